"""Each write of a run fails once, at every place: memory and disk agree, and the run goes on to the same end."""

import builtins
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_run import assert_same_outcome, make_pool, make_trainer, outcome, read_state

from hf_noise_al import ActiveTrainer

LABELS = make_pool()["label"][:]
UNLABELED = make_pool().remove_columns(["label"])
FULL_DISK = OSError(errno.ENOSPC, "No space left on device")


class Fault:
    """Make the `number`-th write below `folder` fail: opening, writing, flushing, renaming or making a folder.

    With `after`, the write is done and the error comes then, as a Ctrl-C may.
    """

    def __init__(self, folder: Path, number: int, error: BaseException, after: bool = False) -> None:
        self.folder, self.number, self.error, self.after = folder, number, error, after
        self.count = 0

    @property
    def came(self) -> bool:
        return self.count >= self.number

    def at(self, work: Callable[[], Any], part_of_it: Callable[[], Any] = lambda: None) -> Any:
        self.count += 1
        if self.count != self.number:
            return work()
        work() if self.after else part_of_it()
        raise self.error

    def is_ours(self, path: Any) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        return str(path).startswith(str(self.folder))


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> Iterator[Fault]:
    """Let `fault` happen inside the block."""
    with monkeypatch.context() as patch:
        for name in ("fsync", "replace", "rename", "mkdir"):
            original = getattr(os, name)

            def watched(path: Any, *args: Any, original: Any = original, **kwargs: Any) -> Any:
                if not fault.is_ours(path):
                    return original(path, *args, **kwargs)
                return fault.at(lambda: original(path, *args, **kwargs))

            patch.setattr(os, name, watched)
        opened = builtins.open

        def watched_open(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not fault.is_ours(path) or not set(mode) & set("wax+"):
                return opened(path, mode, *args, **kwargs)
            file = fault.at(lambda: opened(path, mode, *args, **kwargs))
            return WatchedFile(file, fault)

        patch.setattr(builtins, "open", watched_open)
        yield fault


class WatchedFile:
    """An open file whose writes may fail half way."""

    def __init__(self, file: Any, fault: Fault) -> None:
        self.file, self.fault = file, fault

    def write(self, data: Any) -> Any:
        return self.fault.at(lambda: self.file.write(data), lambda: self.file.write(data[: len(data) // 2]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "WatchedFile":
        return self

    def __exit__(self, *error: Any) -> None:
        self.file.close()


def start(folder: Path, **settings: Any) -> ActiveTrainer:
    return make_trainer(folder, pool=UNLABELED, max_steps=2, num_rounds=2, **settings)


def step_annotate(trainer: ActiveTrainer) -> None:
    rows = [0, 1, 2, 3, 4, 5]
    trainer.annotate(rows, [LABELS[row] for row in rows])


def step_query(trainer: ActiveTrainer) -> None:
    trainer.query()


def step_answer(trainer: ActiveTrainer) -> None:
    rows = trainer.query().indices.tolist()
    trainer.annotate(rows, [LABELS[row] for row in rows])


def step_fine_tune(trainer: ActiveTrainer) -> None:
    trainer.fine_tune()


STEPS = [step_annotate, step_fine_tune, step_query, step_answer, step_fine_tune]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    trainer = start(tmp_path_factory.mktemp("whole"))
    for step in STEPS:
        step(trainer)
    return outcome(trainer)


def told(folder: Path) -> list[list[Any]]:
    state = read_state(folder) if (folder / "active_state.json").exists() else {"annotations": []}
    return [[entry["row"], entry["label"]] for entry in state["annotations"]]


KINDS = ("full disk", "interrupt before", "interrupt after")
USUAL = {("full disk", 0), ("full disk", 1), ("interrupt after", 3)}
"""What is tried by default; the rest takes two minutes."""


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        pytest.param(
            kind,
            broken,
            id=f"{kind}-{broken}-{step.__name__[5:]}",
            marks=() if (kind, broken) in USUAL else pytest.mark.long,
        )
        for kind in KINDS
        for broken, step in enumerate(STEPS)
    ],
)
def test_a_step_whose_write_failed_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Any], kind: str, broken: int
) -> None:
    number = 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        trainer = start(folder)
        for step in STEPS[:broken]:
            step(trainer)
        error = FULL_DISK if kind == "full disk" else KeyboardInterrupt()
        fault = Fault(folder, number, error, kind == "interrupt after")
        with failing(monkeypatch, fault):
            try:
                STEPS[broken](trainer)
            except BaseException as found:
                assert found is error or str(error) in str(found), "the error that came first is the one that is seen"
        if not fault.came:
            break
        in_memory = [[note.row, note.label] for note in trainer.pool.annotations]
        assert in_memory == told(folder), "memory is what the disk is"
        if number % 2:
            trainer = resumed(folder)
        go_on(trainer, broken)
        assert_same_outcome(outcome(trainer), whole)
    assert number > 5, "the step writes something"


def resumed(folder: Path) -> ActiveTrainer:
    trainer = start(folder)
    if (folder / "active_state.json").exists():
        trainer.resume()
    return trainer


def go_on(trainer: ActiveTrainer, broken: int) -> None:
    """Take the steps from number `broken` on; one that happened, though its error was raised, is not needed again."""
    steps = STEPS[broken:]
    if steps[0] is step_fine_tune and len(trainer.history) > STEPS[:broken].count(step_fine_tune):
        steps = steps[1:]
    if steps and steps[0] is step_answer and trainer.pool.num_labeled == 12:
        steps = steps[1:]
    for step in steps:
        try:
            step(trainer)
        except ValueError as refusal:
            assert "it already has the label" in str(refusal)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_whose_write_failed_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    settings: dict[str, Any] = {"num_rounds": 2, "max_steps": 2}
    reference = make_trainer(tmp_path / "whole", **settings)
    reference.train()
    expected, number = outcome(reference), 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        trainer = make_trainer(folder, **settings)
        error = FULL_DISK if kind == "full disk" else KeyboardInterrupt()
        fault = Fault(folder, number, error, kind == "interrupt after")
        with failing(monkeypatch, fault):
            try:
                trainer.train()
            except BaseException as found:
                assert found is error or str(error) in str(found)
        if not fault.came:
            break
        if number % 2:
            trainer = make_trainer(folder, **settings)
        trainer.train(resume_from_checkpoint=(folder / "active_state.json").exists())
        assert_same_outcome(outcome(trainer), expected)
    assert number > 100, "a run writes"
