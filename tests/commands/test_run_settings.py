"""The settings that a run is about: written, compared, paths by where they lead."""

import json
from pathlib import Path
from typing import Any

import pytest

from hf_noise_al.commands.run_settings import refuse_other_inputs, save_settings, settings_of
from hf_noise_al.files.run_names import SETTINGS_FILE
from hf_noise_al.settings.parsing import parse
from hf_noise_al.settings.recipe import InvalidArgument


def settings(*flags: str) -> dict[str, Any]:
    return settings_of(
        *parse(None, ["--dataset_name=d.csv", "--model_config={'model_type':'bert'}".replace("'", '"'), *flags])
    )


def test_the_file_is_plain_json_of_all_that_decides(tmp_path: Path) -> None:
    save_settings(settings("--metric", "f1", "--label_column", "Ergebnis", "--class_names", "größer"), tmp_path / "new")
    text = (tmp_path / "new" / SETTINGS_FILE).read_text(encoding="utf-8")
    saved = json.loads(text)
    assert saved["model_config"] == {"model_type": "bert"} and saved["metric"] == ["f1"]
    assert saved["label_column"] == "Ergebnis" and "größer" in text
    assert "trust_remote_code" not in saved
    refuse_other_inputs(saved, tmp_path / "new")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--metric", "f1"], r"`metric` was None, is \['f1'\]"),
        (["--max_train_samples", "9"], "`max_train_samples` was None, is 9"),
        (["--validation_fraction", "0.2"], r"`validation_fraction` was 0\.1, is 0\.2"),
        (["--label_column", "y"], "`label_column` was None, is 'y'"),
        (
            ['--model_config={"model_type": "bert", "hidden_size": 8}'],
            "`model_config` was {'model_type': 'bert'}, is {",
        ),
        (["--dataset_name", "e.csv"], r"`dataset_name` was 'd\.csv', is 'e\.csv'\. Use the same settings, or pass"),
    ],
)
def test_other_settings_are_refused_by_name(flags: list[str], message: str, tmp_path: Path) -> None:
    save_settings(settings(), tmp_path)
    with pytest.raises(InvalidArgument, match=message):
        refuse_other_inputs(settings(*flags), tmp_path)


def test_a_path_is_where_it_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_settings(settings(), tmp_path)
    with pytest.raises(InvalidArgument, match="`dataset_name` was"):
        refuse_other_inputs(settings("--dataset_name", "./d.csv"), tmp_path)  # nobody knows where neither is
    for name in ("d.csv", "e.csv"):
        (tmp_path / name).touch()
    refuse_other_inputs(settings("--dataset_name", "./d.csv"), tmp_path)
    refuse_other_inputs(settings("--dataset_name", str(tmp_path / "d.csv")), tmp_path)
    with pytest.raises(InvalidArgument, match="`dataset_name` was"):
        refuse_other_inputs(settings("--dataset_name", "e.csv"), tmp_path)


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_without_a_sound_file_nothing_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / SETTINGS_FILE).write_text(text)
    refuse_other_inputs(settings("--metric", "f1"), tmp_path)


def test_a_setting_that_an_earlier_release_did_not_know_counts_as_its_default(tmp_path: Path) -> None:
    save_settings({name: value for name, value in settings().items() if name != "unlabeled_folder"}, tmp_path)
    refuse_other_inputs(settings(), tmp_path)
    with pytest.raises(InvalidArgument, match="`unlabeled_folder` was 'unlabeled', is 'open'"):
        refuse_other_inputs(settings("--unlabeled_folder", "open"), tmp_path)
