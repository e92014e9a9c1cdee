"""The state file: whole or old, never half; refused when it is not ours, with what differs."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from hf_noise_al.history import RoundRecord
from hf_noise_al.pool import Annotation, Pool
from hf_noise_al.state import (
    STATE_FILE,
    VERSION,
    ActiveState,
    PendingQuery,
    refuse_other_run,
    set_aside,
    write_atomically,
)

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


def test_comes_back_as_it_was(path: Path, saved: dict[str, Any]) -> None:
    state, expected = ActiveState.load(path, FINGERPRINT), example()
    assert state.pool.size == 9 and state.pool.annotations == expected.pool.annotations
    assert state.pending == expected.pending and state.acquisition_seconds == 2.0
    assert repr(state.history) == repr(expected.history)  # NaN is not equal to itself
    assert (state.round, state.phase) == (1, "annotate") == (saved["round"], saved["phase"])
    assert saved["version"] == VERSION


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
    other = {**FINGERPRINT, "seed": 1, "model": "Bert"}
    with pytest.raises(ValueError, match=r"belongs to another run: model was None, is 'Bert'; seed was 0, is 1\."):
        ActiveState.load(path, other)
    with pytest.raises(ValueError, match=r"acquisition was 'NoiseStability\(\)', is None"):
        ActiveState.load(path, {key: value for key, value in FINGERPRINT.items() if key != "acquisition"})


def test_a_part_of_the_fingerprint_may_be_compared_alone(path: Path, saved: dict[str, Any]) -> None:
    refuse_other_run(path, {"seed": 0})
    with pytest.raises(ValueError, match=r"belongs to another run: optim was None, is 'sgd'; seed was 0, is 1\. Use"):
        refuse_other_run(path, {"seed": 1, "optim": "sgd"})
    path.write_text(json.dumps({**saved, "fingerprint": ["seed"]}))
    with pytest.raises(ValueError, match="is damaged"):
        refuse_other_run(path, {"seed": 0})


def test_another_version_is_refused(path: Path, saved: dict[str, Any]) -> None:
    path.write_text(json.dumps({**saved, "version": 99}))
    with pytest.raises(ValueError, match="has format version 99, this release reads 1"):
        ActiveState.load(path, FINGERPRINT)


DAMAGES: dict[str, Any] = {
    "list": lambda _: [],
    "string": lambda _: "state",
    "null": lambda _: None,
    "no version": lambda c: {key: value for key, value in c.items() if key != "version"},
    "no annotations": lambda c: {key: value for key, value in c.items() if key != "annotations"},
    "fingerprint is a list": lambda c: {**c, "fingerprint": ["seed"]},
    "fingerprint is null": lambda c: {**c, "fingerprint": None},
    "size is text": lambda c: {**c, "size": "9"},
    "unknown key of an annotation": lambda c: {**c, "annotations": [{"row": 1, "label": 0, "round": 0, "x": 1}]},
    "a row twice": lambda c: {**c, "annotations": [c["annotations"][0]] * 2},
    "a row outside": lambda c: {**c, "size": 3},
    "pending without rows": lambda c: {**c, "pending": {"round": 1}},
    "history of numbers": lambda c: {**c, "history": [1]},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_file_is_refused(path: Path, saved: dict[str, Any], damage: Any) -> None:
    path.write_text(json.dumps(damage(saved)))
    with pytest.raises(ValueError, match=r"Cannot resume: .*active_state\.json is damaged \(\w+: .*start afresh"):
        ActiveState.load(path, FINGERPRINT)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 10, b"{} {}"])
def test_bytes_that_are_no_json_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        ActiveState.load(path, FINGERPRINT)


def test_every_cut_of_the_file_is_refused(path: Path, saved: dict[str, Any]) -> None:
    whole = path.read_bytes()
    for end in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="is damaged"):
            ActiveState.load(path, FINGERPRINT)


# ---- files -------------------------------------------------------------------------------------------------------


def test_writing_makes_folders_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_atomically(path, "é")
    write_atomically(path, "ü\n")
    assert path.read_bytes() == "ü\n".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["b.json"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "old")

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(error):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def _write_for_ever(path: Path) -> None:
    texts = [json.dumps([i] * 20_000) for i in range(2)]
    while True:
        for text in texts:
            write_atomically(path, text)


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    for pause in (0.002, 0.005, 0.011):
        writer = multiprocessing.get_context("fork").Process(target=_write_for_ever, args=(path,))
        writer.start()
        while not path.exists():
            time.sleep(0.001)
        time.sleep(pause)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        assert len(json.loads(path.read_text())) == 20_000


def test_set_aside_takes_the_first_free_name(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert set_aside(path) is None
    kept = []
    for text in ("one", "two"):
        path.write_text(text)
        kept.append(set_aside(path))
        assert not path.exists()
    assert [entry.name for entry in kept if entry] == ["state.previous-1.json", "state.previous-2.json"]
    assert [entry.read_text() for entry in kept if entry] == ["one", "two"]
