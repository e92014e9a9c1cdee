"""Every example in a docstring of the package is run, and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest

import hf_noise_al

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(hf_noise_al.__path__, "hf_noise_al.")
    if not module.name.endswith("__main__") and ".recipes" not in module.name
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    assert sum(bool(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name))) >= 3
