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

    With `after`, the write is done and the error comes then, as a Ctrl-C may. Without a number, none fails.
    """

    def __init__(self, folder: Path, number: int | None, error: BaseException, after: bool = False) -> None:
        self.folder, self.number, self.error, self.after = folder, number, error, after
        self.writes: list[tuple[str, str]] = []

    @property
    def came(self) -> bool:
        return self.number is not None and len(self.writes) >= self.number

    def at(self, name: str, path: Any, work: Callable[[], Any], part_of_it: Callable[[], Any] = lambda: None) -> Any:
        """Do `work` on `path`, the function called `name`, or fail; see to it that both are among the writes."""
        path = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else str(path)
        self.writes.append((name, path.removeprefix(str(self.folder))))
        if len(self.writes) != self.number:
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

            def watched(path: Any, *args: Any, name: str = name, original: Any = original, **kwargs: Any) -> Any:
                if not fault.is_ours(path):
                    return original(path, *args, **kwargs)
                return fault.at(name, path, lambda: original(path, *args, **kwargs))

            patch.setattr(os, name, watched)
        opened = builtins.open

        def watched_open(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not fault.is_ours(path) or not set(mode) & set("wax+"):
                return opened(path, mode, *args, **kwargs)
            file = fault.at("open", path, lambda: opened(path, mode, *args, **kwargs))
            return WatchedFile(file, path, fault)

        patch.setattr(builtins, "open", watched_open)
        yield fault


class WatchedFile:
    """An open file whose writes may fail half way."""

    def __init__(self, file: Any, path: Any, fault: Fault) -> None:
        self.file, self.path, self.fault = file, path, fault

    def write(self, data: Any) -> Any:
        half = data[: len(data) // 2]
        return self.fault.at("write", self.path, lambda: self.file.write(data), lambda: self.file.write(half))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "WatchedFile":
        return self

    def __exit__(self, *error: Any) -> None:
        self.file.close()


def start(folder: Path) -> ActiveTrainer:
    settings: dict[str, Any] = {"acquisition": "random", "acquisition_kwargs": None}
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


def reached(trainer: ActiveTrainer, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return where a run is: in memory, and on the disk, but for seconds and sums over them."""
    state = read_state(folder)
    pending = state["pending"] and {name: state["pending"][name] for name in ("rows", "scores", "round")}
    on_disk = {name: state[name] for name in ("phase", "round", "size", "annotations")}
    return outcome(trainer), {**on_disk, "pending": pending, "rounds": len(state["history"])}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Where a run without a fault is after each of the steps."""
    folder = tmp_path_factory.mktemp("whole")
    trainer, found = start(folder), []
    for step in STEPS:
        step(trainer)
        found.append(reached(trainer, folder))
    return found


def told(folder: Path) -> list[list[Any]]:
    state = read_state(folder) if (folder / "active_state.json").exists() else {"annotations": []}
    return [[entry["row"], entry["label"]] for entry in state["annotations"]]


KINDS = ("full disk", "interrupt before", "interrupt after")
USUAL = {("full disk", 0), ("full disk", 1), ("interrupt after", 3)}
"""What is tried by default, with one write of each kind and until the broken step is done; the rest takes minutes."""


def numbers(writes: list[tuple[str, str]], every: bool) -> list[int]:
    """Return the places of the writes to try, counted from 1: all, or the last of each function and file."""
    return (
        list(range(1, len(writes) + 1)) if every else sorted({kind: at for at, kind in enumerate(writes, 1)}.values())
    )


@pytest.mark.parametrize(
    ("kind", "broken", "every"),
    [
        pytest.param(
            kind,
            broken,
            every,
            id=f"{kind}-{broken}-{step.__name__[5:]}-{'every write' if every else 'one of each kind'}",
            marks=pytest.mark.long if every else (),
        )
        for kind in KINDS
        for broken, step in enumerate(STEPS)
        for every in (False, True)
        if every or (kind, broken) in USUAL
    ],
)
def test_a_step_whose_write_failed_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: list[Any], kind: str, broken: int, every: bool
) -> None:
    def broken_step(folder: Path, number: int | None, error: BaseException) -> tuple[ActiveTrainer, Fault]:
        trainer = start(folder)
        for step in STEPS[:broken]:
            step(trainer)
        fault = Fault(folder, number, error, kind == "interrupt after")
        with failing(monkeypatch, fault):
            try:
                STEPS[broken](trainer)
            except BaseException as found:
                assert found is error or str(error) in str(found), "the error that came first is the one that is seen"
        return trainer, fault

    _, unbroken = broken_step(tmp_path / "unbroken", None, FULL_DISK)
    assert len(unbroken.writes) > 5, "the step writes something"
    for place, number in enumerate(numbers(unbroken.writes, every)):
        folder = tmp_path / str(number)
        trainer, fault = broken_step(folder, number, FULL_DISK if kind == "full disk" else KeyboardInterrupt())
        assert fault.came
        known = [[note.row, note.label] for note in trainer.pool.annotations]
        assert known == told(folder), "memory is what the disk is"
        if place % 2:
            trainer = resumed(folder)
        last = len(STEPS) - 1 if every else broken
        go_on(trainer, broken, last)
        in_memory, on_disk = reached(trainer, folder)
        assert_same_outcome(in_memory, whole[last][0])
        assert on_disk == whole[last][1]


def resumed(folder: Path) -> ActiveTrainer:
    trainer = start(folder)
    if (folder / "active_state.json").exists():
        trainer.resume()
    return trainer


def go_on(trainer: ActiveTrainer, broken: int, last: int) -> None:
    """Take the steps `broken` to `last`; one that happened, though its error was raised, is not needed again."""
    steps = STEPS[broken : last + 1]
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
    settings: dict[str, Any] = {"num_rounds": 2, "max_steps": 2, "acquisition": "random", "acquisition_kwargs": None}
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
