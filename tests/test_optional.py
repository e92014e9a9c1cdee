import json
import sys

import pytest

from hf_noise_al._optional import require


def test_returns_the_module_itself():
    assert require("json", "plot") is json


def test_returns_a_submodule_not_its_package():
    assert require("importlib.metadata", "plot") is sys.modules["importlib.metadata"]


def test_missing_module_says_what_to_install():
    with pytest.raises(ImportError, match=r"Cannot import `no_such_library\.part`") as raised:
        require("no_such_library.part", "plot")
    assert "`pip install 'hf-noise-al[plot]'`, or `no_such_library` by itself." in str(raised.value)
    assert raised.value.name == "no_such_library.part"


def test_broken_module_keeps_its_own_reason(tmp_path, monkeypatch):
    (tmp_path / "broken_library.py").write_text("raise ImportError('libfoo.so.3 not found')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"Cannot import `broken_library` \(libfoo.so.3 not found\)"):
        require("broken_library", "plot")


def test_other_errors_of_a_module_are_left_alone(tmp_path, monkeypatch):
    (tmp_path / "failing_library.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        require("failing_library", "plot")
