"""Runs in which people answer: what they typed is never lost, misread or ignored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset
from tiny_run import make_pool, make_trainer, read_state

from hf_noise_al import ActiveTrainer, LabelFile

ANSWERS = make_pool()["label"][:]
NAMES = ["bad", "ok"]


@pytest.fixture
def pool() -> Dataset:
    """Texts whose classes have names and that nobody labeled."""
    rows = make_pool()
    unlabeled = rows.remove_columns("label").add_column("label", [None] * len(rows))
    return unlabeled.cast_column("label", ClassLabel(names=NAMES))


@pytest.fixture
def start(tmp_path: Path, pool: Dataset) -> Callable[..., ActiveTrainer]:
    """Return a function that makes a trainer of two rounds that reads ``run/queries``."""

    def make(label_file: Path | None = None, **arguments: Any) -> ActiveTrainer:
        annotator = LabelFile(label_file or tmp_path / "run" / "queries")
        arguments = {"num_rounds": 2, "log_level": "warning", **arguments}
        return make_trainer(tmp_path / "run", pool=pool, trainer={"annotator": annotator}, **arguments)

    return make


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    return tmp_path / "run" / "queries"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, entries: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def fill_in(path: Path) -> None:
    """Answer every line by the name of the class."""
    write(path, [{**line, "label": NAMES[ANSWERS[line["row"]]]} for line in lines(path)])


def waits(trainer: ActiveTrainer, resume: bool = False, match: str = "has no label for") -> None:
    with pytest.raises(ValueError, match=match):
        trainer.train(resume_from_checkpoint=resume)


def right_labels(folder: Path) -> bool:
    return all(entry["label"] == ANSWERS[entry["row"]] for entry in read_state(folder)["annotations"])


def test_answers_by_name_stay_names_and_an_answer_that_nobody_asked_for_yet_is_found(
    start: Callable[..., ActiveTrainer], queries: Path
) -> None:
    waits(start())
    file = queries / "round-00.jsonl"
    fill_in(file)
    extra = [{"row": row, "label": NAMES[label], "note": "as well"} for row, label in enumerate(ANSWERS)]
    asked = {line["row"] for line in lines(file)}
    typed = file.read_text() + "".join(json.dumps(line) + "\n" for line in extra if line["row"] not in asked)
    file.write_text(typed)
    start().train(resume_from_checkpoint=True)
    assert file.read_text() == typed
    assert right_labels(queries.parent) and len(read_state(queries.parent)["annotations"]) == 14


def test_labels_of_swapped_rows_are_refused_and_nothing_is_told(
    start: Callable[..., ActiveTrainer], queries: Path
) -> None:
    waits(start())
    file = queries / "round-00.jsonl"
    fill_in(file)
    whole = lines(file)
    rows = [line["row"] for line in whole]
    write(file, [{**line, "row": row} for line, row in zip(whole, rows[1:] + rows[:1], strict=True)])
    typed = file.read_text()
    match = f"round-00.jsonl, line 1: `text` is 'text {rows[0]}', and in row {rows[1]} of the data 'text {rows[1]}'"
    for _ in range(2):
        waits(start(), resume=True, match=match)
    assert file.read_text() == typed, "to mend it there"
    assert read_state(queries.parent)["annotations"] == []
    write(file, whole)
    waits(start(), resume=True)
    assert right_labels(queries.parent)


def test_a_label_that_is_changed_after_it_was_told_is_refused_until_it_is_put_back(
    start: Callable[..., ActiveTrainer], queries: Path
) -> None:
    waits(start())
    file = queries / "round-00.jsonl"
    fill_in(file)
    waits(start(), resume=True)
    told = lines(file)
    row, label = told[2]["row"], ANSWERS[told[2]["row"]]
    told[2]["label"] = NAMES[1 - label]
    write(file, told)
    fill_in(queries / "round-01.jsonl")
    typed, old = NAMES[1 - label], NAMES[label]
    message = f"line 3: row {row} has the label '{typed}', and in the run it has '{old}'. Put '{old}' back"
    waits(start(), resume=True, match=message)
    told[2]["label"] = label
    write(file, told)
    start().train(resume_from_checkpoint=True)
    assert right_labels(queries.parent)


def test_a_changed_label_is_learned_from_by_a_run_that_starts_afresh(
    start: Callable[..., ActiveTrainer], queries: Path
) -> None:
    waits(start())
    fill_in(queries / "round-00.jsonl")
    waits(start(), resume=True)
    changed = [{**line, "label": "ok"} for line in lines(queries / "round-00.jsonl")]
    write(queries / "round-00.jsonl", changed)
    waits(start())
    assert [entry["label"] for entry in read_state(queries.parent)["annotations"]] == [1] * 8


def test_nothing_of_an_earlier_run_is_removed_before_its_answers_are_kept(
    start: Callable[..., ActiveTrainer], queries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits(start())
    fill_in(queries / "round-00.jsonl")
    waits(start(), resume=True)
    before = {path: path.read_bytes() for path in queries.parent.rglob("*") if path.is_file()}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_noise_al.run_folder.stored_run.keep_earlier_run", killed)
    with pytest.raises(KeyboardInterrupt):
        start().train()
    assert {path: path.read_bytes() for path in queries.parent.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("seed", [0, 1])
def test_answers_that_were_not_read_yet_are_found_by_a_run_that_starts_afresh(
    start: Callable[..., ActiveTrainer], queries: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    waits(start())
    fill_in(queries / "round-00.jsonl")
    typed = lines(queries / "round-00.jsonl")
    for number in (1, 2):
        waits(start(seed=seed))  # with another seed it asks for other rows
        kept = queries.parent / f"previous-{number}"
        assert str(kept) in caplog.text and str(kept / "queries") in caplog.text
        assert all(line in lines(kept / "queries" / "round-00.jsonl") for line in typed)
    found = [line for line in lines(queries / "round-00.jsonl") if line["label"] is not None]
    assert sorted(found, key=lambda line: line["row"]) == sorted(typed, key=lambda line: line["row"])


def test_the_answers_of_an_earlier_run_are_read_from_where_the_warning_says(
    start: Callable[..., ActiveTrainer], queries: Path, tmp_path: Path
) -> None:
    waits(start())
    fill_in(queries / "round-00.jsonl")
    waits(start(tmp_path / "elsewhere.jsonl"), match="There is no label file")
    waits(start(queries.parent / "previous-1" / "queries"))
    assert right_labels(queries.parent) and len(read_state(queries.parent)["annotations"]) == 8


def test_a_start_that_cannot_read_the_answers_touches_nothing(
    start: Callable[..., ActiveTrainer], queries: Path
) -> None:
    waits(start())
    with open(queries / "round-00.jsonl", "a") as file:
        file.write('{"row": 3, "label":')
    before = {path: path.read_bytes() for path in queries.parent.rglob("*.json*")}
    for resume in (False, True):
        waits(start(), resume, match="round-00.jsonl, line 9: expected a JSON object")
    assert {path: path.read_bytes() for path in queries.parent.rglob("*.json*")} == before


def test_a_label_file_under_the_name_of_ours_is_refused_and_untouched(
    start: Callable[..., ActiveTrainer], queries: Path
) -> None:
    file = queries.parent / "labels.jsonl"
    file.parent.mkdir()
    write(file, [{"row": row, "label": label} for row, label in enumerate(ANSWERS)])
    typed = file.read_text()
    waits(start(file), match="labels.jsonl cannot be the label file: .* Give it another name")
    assert file.read_text() == typed
