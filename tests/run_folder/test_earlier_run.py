"""What people did for an earlier run is kept in one folder before another run starts in its place."""

import os
from pathlib import Path

import pytest

from hf_noise_al.files.run_names import CURVE_FILE, PICTURE_FILE, SETTINGS_FILE
from hf_noise_al.run_folder.earlier_run import keep_earlier_run, refuse_own_file

HUMAN = {"active_state.json", "labels.jsonl", SETTINGS_FILE, CURVE_FILE, PICTURE_FILE, "queries/round-00.jsonl"}
ANSWERED, OPEN = '{"row": 1, "label": "b"}\n', '{"row": 2, "label": null}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an earlier run in it."""
    return write_run(tmp_path / "run")


def write_run(folder: Path) -> Path:
    for name in HUMAN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(ANSWERED + OPEN if "round" in name else f"{name} of a run")
    (folder / "model.safetensors").touch()
    return folder


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_everything_that_people_did_goes_to_the_first_free_folder(folder: Path) -> None:
    before = files(folder)
    assert keep_earlier_run(folder, None) == folder / "previous-1"
    assert files(folder / "previous-1") == {name: before[name] for name in HUMAN}
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "previous-1"}
    assert keep_earlier_run(folder, None) is None, "there is no run any more"
    write_run(folder)
    assert keep_earlier_run(folder, None) == folder / "previous-2"
    assert files(folder / "previous-1") == files(folder / "previous-2")


@pytest.mark.parametrize("moves", range(1, 6))
def test_cut_off_between_nothing_is_lost_and_the_next_start_moves_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    before, replace, done = files(folder), os.replace, []

    def killed(source: Path, target: Path) -> None:
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(source)
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            keep_earlier_run(folder, None)
    assert not (folder / "active_state.json").exists(), "no run is there any more"
    keep_earlier_run(folder, None)
    assert {**files(folder / "previous-1"), **files(folder / "previous-2")} == {name: before[name] for name in HUMAN}
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "previous-1", "previous-2"}


@pytest.mark.parametrize("named", ["queries", "queries/round-00.jsonl"])
def test_answers_that_the_new_run_reads_stay_and_are_copied(folder: Path, named: str) -> None:
    assert keep_earlier_run(folder, folder / named) == folder / "previous-1"
    assert (folder / "queries" / "round-00.jsonl").read_text() == ANSWERED, "of the rest nobody knows who asks for it"
    assert (folder / "previous-1" / "queries" / "round-00.jsonl").read_text() == ANSWERED + OPEN
    assert not (folder / "active_state.json").exists()


def test_answers_that_a_link_leads_to_stay(folder: Path, tmp_path: Path) -> None:
    (folder / "queries").rename(tmp_path / "elsewhere")
    (folder / "queries").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(folder)
    for named in (folder / "queries", tmp_path / "link" / "queries"):
        kept = keep_earlier_run(folder, named)
        assert kept is not None and (kept / "queries" / "round-00.jsonl").is_file()
        assert (folder / "queries" / "round-00.jsonl").read_text() == ANSWERED


def test_a_label_file_of_ones_own_in_the_folder_stays_and_is_copied(folder: Path) -> None:
    (folder / "answers.jsonl").write_text(ANSWERED + OPEN)
    keep_earlier_run(folder, folder / "answers.jsonl")
    assert (folder / "answers.jsonl").read_text() == ANSWERED + OPEN
    assert set(files(folder / "previous-1")) == {*HUMAN, "answers.jsonl"}


def test_a_folder_of_ones_own_with_the_label_file_in_it_is_left_alone(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "answers.jsonl").write_text(ANSWERED)
    for named in (folder / "mine" / "answers.jsonl", folder / "mine"):
        kept = keep_earlier_run(write_run(folder), named)
        assert kept is not None and set(files(kept)) == HUMAN
    assert files(folder / "mine") == {"answers.jsonl": ANSWERED}


def test_a_label_file_elsewhere_or_of_a_run_before_is_left_alone(folder: Path) -> None:
    keep_earlier_run(folder, None)
    before = files(folder / "previous-1")
    for label_file in (folder / "previous-1" / "queries", folder.parent, folder, folder / "gone.jsonl"):
        write_run(folder)
        kept = keep_earlier_run(folder, label_file)
        assert kept is not None and set(files(kept)) == HUMAN
    assert files(folder / "previous-1") == before


def test_files_of_a_folder_without_a_run_stay(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("of somebody else")
    assert keep_earlier_run(tmp_path, None) is None
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


@pytest.mark.parametrize("name", ["labels.jsonl", "active_state.json"])
def test_the_files_that_a_run_writes_are_no_label_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} cannot be the label file: .* such as answers.jsonl"):
        refuse_own_file(tmp_path, tmp_path / "queries" / ".." / name)
    refuse_own_file(tmp_path, tmp_path / "queries" / name)
