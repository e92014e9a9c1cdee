"""The state file: whole or old, never half; refused when it is not ours, with what differs."""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from hf_noise_al.files.run_names import JOURNAL_FILE, STATE_FILE
from hf_noise_al.pool.pool import Annotation, Pool
from hf_noise_al.run_folder.history import RoundRecord
from hf_noise_al.run_folder.pending_query import PendingQuery
from hf_noise_al.run_folder.state import ActiveState
from hf_noise_al.run_folder.state_file import VERSION, classes_of, labeled_rows_of, refuse_other_run

FINGERPRINT = {"seed": 0, "data.size": 9, "acquisition": "NoiseStability()", "betas": (0.9, 0.999)}


def example() -> ActiveState:
    pool = Pool(9, [Annotation(4, 1, 0), Annotation(2, [0.5, 1.0], 1, 0.25), Annotation(0, "é\u2028", 1, given=True)])
    history = [RoundRecord(0, 1, 1, 1.5, 0.0, {"eval_accuracy": 0.5, "eval_loss": float("nan")})]
    return ActiveState(pool, history, PendingQuery(1, [7, 3], [0.9, 1e-30], 2.0, 3), 2.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / STATE_FILE


@pytest.fixture
def saved(path: Path) -> dict[str, Any]:
    example().save(path, FINGERPRINT)
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def rewrite(path: Path, content: Any) -> None:
    """Write a state with the checksum of its content, as only a bug or a person would."""
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key != "checksum"}
        text = json.dumps(content, indent=1).encode()
        content["checksum"] = hashlib.blake2b(text, digest_size=16).hexdigest()
    path.write_text(json.dumps(content, indent=1))


def test_comes_back_as_it_was(path: Path, saved: dict[str, Any]) -> None:
    state, expected = ActiveState.load(path, FINGERPRINT), example()
    assert state.pool.size == 9 and state.pool.annotations == expected.pool.annotations
    assert state.pending == expected.pending and state.acquisition_seconds == 2.0
    assert repr(state.history) == repr(expected.history)  # NaN is not equal to itself
    assert (state.round, state.phase) == (1, "annotate") == (saved["round"], saved["phase"])
    assert saved["version"] == VERSION
    assert saved["writer"]["process"] == os.getpid()
    rows = [json.loads(line)["row"] for line in path.with_name(JOURNAL_FILE).read_text().splitlines()]
    assert rows == [4, 2, 0], "labels are in a file of their own"


def test_only_new_labels_are_written(path: Path) -> None:
    state = example()
    state.save(path, FINGERPRINT)
    journal = path.with_name(JOURNAL_FILE)
    inode, before = journal.stat().st_ino, journal.read_bytes()
    state.pool.annotate([7], [1], 1)
    state.pending = PendingQuery(1, [3], [1e-30], 2.0, 3)
    state.save(path, FINGERPRINT)
    assert journal.stat().st_ino == inode and journal.read_bytes().startswith(before)
    assert ActiveState.load(path, FINGERPRINT).pool.labeled_rows == [0, 2, 4, 7]


def test_labels_behind_the_state_were_never_told(path: Path) -> None:
    state = example()
    state.save(path, FINGERPRINT)
    whole = path.with_name(JOURNAL_FILE).read_bytes()
    with open(path.with_name(JOURNAL_FILE), "ab") as file:
        file.write(b'{"row": 8, "label": 1, "round": 1, "score": null, "given": false}\n{"row": 7, "la')
    again = ActiveState.load(path, FINGERPRINT)
    assert again.pool.labeled_rows == [0, 2, 4]
    again.save(path, FINGERPRINT)
    again.pool.annotate([8], [0], 1)
    again.save(path, FINGERPRINT)
    lines = path.with_name(JOURNAL_FILE).read_bytes()
    assert lines.startswith(whole) and len(lines.splitlines()) == 4 and json.loads(lines.splitlines()[3])["label"] == 0


def test_a_failed_save_is_taken_back_and_done_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = example()
    state.save(path, FINGERPRINT)
    mark = state.mark()
    state.pool.annotate([8], [1], 1)
    state.history.append(RoundRecord(1, 4, 3, 1.0, 1.0))
    state.pending = None
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            state.save(path, FINGERPRINT)
    assert not state.is_saved(path, FINGERPRINT)
    state.go_back(mark)
    assert state.pool.annotations == example().pool.annotations and state.pending == example().pending
    assert len(state.history) == 1 and state.is_saved(path, FINGERPRINT)
    state.pool.annotate([6], [1], 1)
    state.save(path, FINGERPRINT)
    assert ActiveState.load(path, FINGERPRINT).pool.labeled_rows == [0, 2, 4, 6]


def test_a_state_that_somebody_else_changed_is_not_written_over(path: Path) -> None:
    first = example()
    first.save(path, FINGERPRINT)
    second = ActiveState.load(path, FINGERPRINT)
    second.pool.annotate([8], [1], 1)
    second.save(path, FINGERPRINT)
    first.pool.annotate([6], [0], 1)
    with pytest.raises(ValueError, match="was changed by another process since this one read it: nothing was written"):
        first.save(path, FINGERPRINT)
    assert ActiveState.load(path, FINGERPRINT).pool.labeled_rows == [0, 2, 4, 8]
    with pytest.raises(ValueError, match="was changed by another process"):
        example().save(path, FINGERPRINT)


def test_the_first_version_is_read_and_written_in_the_form_of_today(path: Path, saved: dict[str, Any]) -> None:
    kept = {key: value for key, value in saved.items() if key not in ("labels", "checksum", "writer")}
    path.with_name(JOURNAL_FILE).unlink()
    path.write_text(json.dumps({**kept, "version": 1, "annotations": example().pool.to_json()}))
    state = ActiveState.load(path, FINGERPRINT)
    assert state.pool.annotations == example().pool.annotations
    state.save(path, FINGERPRINT)
    assert json.loads(path.read_text())["version"] == VERSION
    assert ActiveState.load(path, FINGERPRINT).pool.annotations == example().pool.annotations


def test_what_was_never_written_is_not_saved(path: Path) -> None:
    assert not example().is_saved(path, FINGERPRINT)


def test_labels_of_an_earlier_run_and_of_every_round_so_far_are_read(path: Path) -> None:
    notes = [Annotation(row, 0, number) for row, number in enumerate((-1, 0, 1))]
    ActiveState(Pool(9, notes), [RoundRecord(0, 2, 2, 1.0, 0.0)]).save(path, FINGERPRINT)
    assert ActiveState.load(path, FINGERPRINT).pool.annotations == notes


def test_a_run_afresh_goes_on_in_the_files_where_nothing_but_given_labels_was_in_them(path: Path) -> None:
    state = ActiveState(Pool(9, [Annotation(4, 1, 0, given=True)]), pending=PendingQuery(0, [7], [None], 0.0, 1))
    state.save(path, FINGERPRINT)
    fresh = state.afresh()
    assert fresh.pool.annotations == state.pool.annotations and fresh.pending is None and fresh.history == []
    fresh.save(path, FINGERPRINT)
    assert ActiveState.load(path, FINGERPRINT).pending is None


GIVEN, ANSWERED = Annotation(4, 1, 0, given=True), Annotation(5, 1, 0)


@pytest.mark.parametrize(
    ("notes", "rounds"),
    [([GIVEN, ANSWERED], []), ([ANSWERED, GIVEN], []), ([GIVEN], [RoundRecord(0, 1, 1, 1.0, 0.0)])],
    ids=["a later label", "an earlier label", "a round"],
)
def test_a_run_afresh_does_not_write_over_what_would_be_lost(
    path: Path, notes: list[Annotation], rounds: list[RoundRecord]
) -> None:
    state = ActiveState(Pool(9, notes), rounds)
    state.save(path, FINGERPRINT)
    fresh = state.afresh()
    assert fresh.pool.annotations == [GIVEN] and fresh.history == []
    with pytest.raises(ValueError, match="was changed by another process"):
        fresh.save(path, FINGERPRINT)


def test_without_pending_query(path: Path) -> None:
    ActiveState(Pool(2)).save(path, {})
    assert ActiveState.load(path, {}).pending is None


@pytest.mark.parametrize(
    ("labels", "trained", "pending_round", "phase"),
    [
        (0, None, None, "query"),
        (0, None, 0, "annotate"),
        (2, None, None, "fine_tune"),
        (2, 2, None, "query"),
        (2, 2, 1, "annotate"),
        (3, 2, 1, "annotate"),  # part of the answers are there
        (3, 2, None, "fine_tune"),
        (2, 2, 0, "query"),  # a query of a round that is over
    ],
)
def test_phase_says_what_comes_next(labels: int, trained: int | None, pending_round: int | None, phase: str) -> None:
    state = ActiveState(Pool(9, [Annotation(row, 0, 0) for row in range(labels)]))
    if trained is not None:
        state.history.append(RoundRecord(0, trained, trained, 0.0, 0.0))
    if pending_round is not None:
        state.pending = PendingQuery(pending_round, [8], [0.0], 0.0, 1)
    assert state.phase == phase


def test_a_missing_file_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no .*active_state\.json\. Start without `resume_from_checkpoint`"):
        ActiveState.load(path, FINGERPRINT)
    path.mkdir()
    with pytest.raises(ValueError, match="there is no"):
        ActiveState.load(path, FINGERPRINT)


def test_another_run_is_refused_with_what_differs(path: Path, saved: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"belongs to another run: seed was 0, is 1\."):
        ActiveState.load(path, {**FINGERPRINT, "seed": 1})


def test_a_part_of_the_fingerprint_may_be_compared_alone(path: Path, saved: dict[str, Any]) -> None:
    refuse_other_run(path, {"seed": 0})
    with pytest.raises(
        ValueError, match=r"belongs to another run: optim was 'adamw', is 'sgd'; seed was 0, is 1\. Use"
    ):
        refuse_other_run(path, {"seed": 1, "optim": "sgd"}, {"optim": "adamw"})
    rewrite(path, {**saved, "fingerprint": ["seed"]})
    with pytest.raises(ValueError, match="is damaged"):
        refuse_other_run(path, {"seed": 0})


@pytest.mark.parametrize(("inputs", "labels"), [("m", {4: 1, 2: [0.5, 1.0], 0: "é\u2028"}), ("a", None), ("z", None)])
def test_labels_are_taken_from_a_run_of_the_same_inputs_alone(path: Path, inputs: str, labels: Any) -> None:
    example().save(path, {**FINGERPRINT, "data.inputs": "m"})
    assert labeled_rows_of(path, {"inputs": inputs}) == labels
    path.with_name(JOURNAL_FILE).unlink()
    assert labeled_rows_of(path, {"inputs": inputs}) is None, "a damaged run has none"


@pytest.mark.parametrize(("fingerprint", "classes"), [({"classes": ["bad", "good"]}, ["bad", "good"]), ({}, [])])
def test_classes_are_those_that_the_run_had(path: Path, fingerprint: dict[str, Any], classes: list[str]) -> None:
    example().save(path, fingerprint)
    assert classes_of(path) == classes
    rewrite(path, {**json.loads(path.read_text()), "fingerprint": ["classes"]})
    with pytest.raises(ValueError, match="is damaged"):
        classes_of(path)


def test_another_version_is_refused(path: Path, saved: dict[str, Any]) -> None:
    path.write_text(json.dumps({**saved, "version": 99}))
    with pytest.raises(ValueError, match="has format version 99, this release reads 1 to 2"):
        ActiveState.load(path, FINGERPRINT)


PENDING = {"round": 1, "rows": [7, 3], "scores": [0.9, 0.1], "seconds": 2.0, "asked": 3}
RECORD = {
    "round": 0,
    "num_labeled": 1,
    "query_size": 1,
    "train_seconds": 1.5,
    "acquisition_seconds": 0.0,
    "metrics": {},
}
DAMAGES: dict[str, Any] = {
    "list": [],
    "string": "state",
    "null": None,
    "no version": {"version": None},
    "fingerprint is a list": {"fingerprint": ["seed"]},
    "fingerprint is null": {"fingerprint": None},
    "size is text": {"size": "9"},
    "a row outside": {"size": 3},
    "no mark of the labels": {"labels": None},
    "fewer labels": {"labels": {"count": 0, "bytes": 0, "checksum": "0"}},
    "pending without rows": {"pending": {"round": 1}},
    "pending of nothing": {"pending": {**PENDING, "rows": [], "scores": []}},
    "a pending row twice": {"pending": {**PENDING, "rows": [7, 7]}},
    "a pending row that is labeled": {"pending": {**PENDING, "rows": [7, 4]}},
    "a pending row outside": {"pending": {**PENDING, "rows": [7, 9]}},
    "a pending row that is no row": {"pending": {**PENDING, "rows": [7, 3.0]}},
    "a score too few": {"pending": {**PENDING, "scores": [0.9]}},
    "a score of text": {"pending": {**PENDING, "scores": [0.9, "0.1"]}},
    "pending of a round to come": {"pending": {**PENDING, "round": 2}},
    "fewer asked than pending": {"pending": {**PENDING, "asked": 1}},
    "seconds of text": {"acquisition_seconds": "2"},
    "seconds below zero": {"acquisition_seconds": -1.0},
    "seconds without end": {"acquisition_seconds": math.inf},
    "seconds that are no number": {"acquisition_seconds": math.nan},
    "history of numbers": {"history": [1]},
    "a round is missing": {"history": [{**RECORD, "round": 1}]},
    "more labels in the history": {"history": [{**RECORD, "num_labeled": 4, "query_size": 4}]},
    "counts that do not add up": {"history": [{**RECORD, "query_size": 0}]},
    "a metric of text": {"history": [{**RECORD, "metrics": {"eval_loss": "low"}}]},
    "no history, labels of round 1": {"history": []},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_state_that_cannot_be_is_refused(path: Path, saved: dict[str, Any], damage: Any) -> None:
    rewrite(path, {**saved, "pending": PENDING, **damage} if isinstance(damage, dict) else damage)
    with pytest.raises(ValueError, match=r"Cannot resume: .*active_state\.json (is damaged .*start afresh|has format)"):
        ActiveState.load(path, FINGERPRINT)


@pytest.mark.parametrize("name", [STATE_FILE, JOURNAL_FILE])
def test_every_flipped_bit_and_every_cut_is_refused(path: Path, saved: dict[str, Any], name: str) -> None:
    file = path.with_name(name)
    whole = file.read_bytes()
    for at in range(0, len(whole) - 1, 7):
        for content in (whole[:at], whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]):
            file.write_bytes(content)
            try:
                state = ActiveState.load(path, FINGERPRINT)
            except ValueError as refusal:
                assert "is damaged" in str(refusal) or "has format version" in str(refusal)
            else:  # a blank of the layout
                assert state.pool.annotations == example().pool.annotations and state.pending == example().pending
                assert whole[at : at + 1].isspace() and len(content) == len(whole)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 10, b"{} {}"])
def test_bytes_that_are_no_json_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        ActiveState.load(path, FINGERPRINT)
