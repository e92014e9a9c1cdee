"""The state of a run on the disk: a small JSON file, replaced in one step, and the journal of its labels."""

from __future__ import annotations

import hashlib
import json
import math
import os
import socket
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..files.atomic import append_at, write_atomically
from ..pool.pool import Annotation, Label, Pool
from .differences import OtherRun, has_more_classes, refuse_differences
from .history import RoundRecord
from .journal import JOURNAL_FILE, Journal

STATE_FILE = "active_state.json"
VERSION = 2
"""Version 1 held the labels in the state file itself and had no checksum; it is still read."""


@dataclass(frozen=True)
class PendingQuery:
    """A query that was asked and not yet answered in full."""

    round: int
    """The round that will train on the answers."""
    rows: list[int]
    """Rows still without a label, best first."""
    scores: list[float | None]
    """One per row; None in an initial set, which nothing scored."""
    seconds: float
    """Wall-clock seconds of the acquisition."""
    asked: int
    """How many rows were asked for."""

    def is_query_of(self, number: int, size: int) -> bool:
        """Return whether this is what a query for `size` rows in round `number` would choose again."""
        return (self.round, self.asked, len(self.rows)) == (number, size, size) and None not in self.scores

    def without(self, rows: Collection[int]) -> PendingQuery | None:
        """Return what is left when `rows` are answered; None where nothing is."""
        answered = set(rows)
        left = [(row, score) for row, score in zip(self.rows, self.scores, strict=True) if row not in answered]
        return replace(self, rows=[row for row, _ in left], scores=[score for _, score in left]) if left else None


@dataclass
class ActiveState:
    """Everything that a run needs to go on after a kill, the weights apart.

    Labels and rounds are only ever added, so that what was added last can be taken back.
    """

    pool: Pool
    history: list[RoundRecord] = field(default_factory=list)
    pending: PendingQuery | None = None
    acquisition_seconds: float = 0.0
    """Seconds of the query whose labels the next round trains on first."""
    has_new_classes: bool = field(default=False, compare=False)
    """Whether the run that wrote the file knew fewer classes."""
    _disk: _OnDisk | None = field(default=None, repr=False, compare=False)
    """What this object last wrote or read."""

    @property
    def round(self) -> int:
        """The round that the next fine-tuning will be."""
        return len(self.history)

    @property
    def phase(self) -> Literal["annotate", "fine_tune", "query"]:
        """What comes next."""
        if self.pending is not None and self.pending.round == self.round:
            return "annotate"
        trained = self.history[-1].num_labeled if self.history else 0
        return "fine_tune" if self.pool.num_labeled > trained else "query"

    def afresh(self) -> ActiveState:
        """Return the state that a run starting afresh begins with, in the same files where nothing is lost by that."""
        fresh = ActiveState(self.pool.given())
        if not self.history and fresh.pool.annotations == self.pool.annotations:
            fresh._disk = self._disk
        return fresh

    def mark(self) -> tuple[int, int, PendingQuery | None, float]:
        """Return what `go_back` needs to undo what is added from now on."""
        return self.pool.num_labeled, len(self.history), self.pending, self.acquisition_seconds

    def go_back(self, mark: tuple[int, int, PendingQuery | None, float]) -> None:
        """Forget what was added since `mark` was taken."""
        labels, rounds, self.pending, self.acquisition_seconds = mark
        self.pool.forget_after(labels)
        del self.history[rounds:]

    def save(self, path: Path, fingerprint: Mapping[str, object]) -> None:
        """Write what is new: labels into the journal beside `path`, then the file at `path`, in one step.

        Nothing happened before that step, and everything after it.

        Raises:
            ValueError: somebody else wrote the file since this object last did.
        """
        known = self._known(path)
        if _digest_of(path) != known.digest:
            raise ValueError(
                f"{path} was changed by another process since this one read it: nothing was written. Go on from there "
                "with `resume` (`resume_from_checkpoint`), and let one process at a time work in a folder."
            )
        journal, data = known.journal.extended(self.pool.annotations_from(known.journal.count))
        text = self._text(fingerprint, journal)
        if data:
            append_at(journal.path, known.journal.size, data)
        write_atomically(path, text)
        self._disk = _OnDisk(path, _digest(text), journal)

    def is_saved(self, path: Path, fingerprint: Mapping[str, object]) -> bool:
        """Return whether the file at `path` says what this object does: `save` may fail when all is written."""
        known = self._known(path)
        journal, _ = known.journal.extended(self.pool.annotations_from(known.journal.count))
        digest = _digest(self._text(fingerprint, journal))
        try:
            if _digest_of(path) != digest:
                return False
        except OSError:  # the next `save` finds out
            return False
        self._disk = _OnDisk(path, digest, journal)
        return True

    def _known(self, path: Path) -> _OnDisk:
        nothing = _OnDisk(path, None, Journal(path.with_name(JOURNAL_FILE)))
        return nothing if self._disk is None or self._disk.path != path else self._disk

    @classmethod
    def load(
        cls,
        path: Path,
        fingerprint: Mapping[str, object],
        defaults: Mapping[str, object] | None = None,
        set_aside: Collection[int] = (),
    ) -> ActiveState:
        """Read the file at `path`, written for the same `fingerprint`, and the journal beside it.

        Args:
            path: The state file.
            fingerprint: What must be the same.
            defaults: What stands for an entry that the file lacks, since a release before did not know it; where
                there is no default either, such an entry is not compared.
            set_aside: Rows of the pool that are set aside.

        Raises:
            ValueError: no file, a damaged file, another version, or a fingerprint that differs; it says in what.
        """
        content, data = _read(path)
        try:
            refuse_differences(path, content["fingerprint"], fingerprint, defaults or {})
            journal, annotations = _labels(path, content)
            pending = content["pending"]
            state = cls(
                pool=Pool(content["size"], annotations, set_aside),
                history=[RoundRecord(**record) for record in content["history"]],
                pending=None if pending is None else PendingQuery(**pending),
                acquisition_seconds=content["acquisition_seconds"],
                has_new_classes=has_more_classes(content["fingerprint"], fingerprint),
            )
            state._check()
        except OtherRun:
            raise
        except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
            raise damaged(path, error) from error
        state._disk = _OnDisk(path, _digest(data), journal)
        return state

    def _text(self, fingerprint: Mapping[str, object], journal: Journal) -> str:
        content = {
            "version": VERSION,
            "phase": self.phase,
            "round": self.round,
            "size": self.pool.size,
            "fingerprint": fingerprint,
            "pending": None if self.pending is None else asdict(self.pending),
            "acquisition_seconds": self.acquisition_seconds,
            "history": [asdict(record) for record in self.history],
            "labels": journal.mark,
            "writer": {"process": os.getpid(), "host": socket.gethostname()},
        }
        return _dumps({**content, "checksum": _digest(_dumps(content))})

    def _check(self) -> None:
        """Raise ValueError where the parts of the state cannot have come about together."""
        _check_history(self.history, self.pool.num_labeled)
        if any(not -1 <= annotation.round <= self.round for annotation in self.pool.annotations):  # -1: an earlier run
            raise ValueError(f"a label is of a round after {self.round}")
        pending = self.pending
        if pending is not None:
            rows, unlabeled = pending.rows, set(self.pool.unlabeled_rows)
            whole = all(type(row) is int for row in rows) and len({*rows}) == len(rows) == len(pending.scores)
            if not rows or not whole or not unlabeled.issuperset(rows):
                raise ValueError("the pending query does not ask for distinct unlabeled rows, each with a score")
            if not all(score is None or _is_number(score) for score in pending.scores):
                raise ValueError("a score of the pending query is no number")
            if not (0 <= _whole(pending.round) <= self.round and _whole(pending.asked) >= len(rows)):
                raise ValueError(
                    "the pending query is of a round that has not come, or asks for fewer rows than it has"
                )
            _seconds(pending.seconds)
        _seconds(self.acquisition_seconds)


@dataclass(frozen=True)
class _OnDisk:
    """What the state file at `path` is known to hold."""

    path: Path
    digest: str | None
    """Of its bytes; None where there is no file yet."""
    journal: Journal


def refuse_other_run(path: Path, known: Mapping[str, object], defaults: Mapping[str, object] | None = None) -> None:
    """Raise ValueError if the file at `path` is damaged or was written for other values of `known`.

    Args:
        path: The state file of a run.
        known: A part of a fingerprint.
        defaults: As for `ActiveState.load`.
    """
    content, _ = _read(path)
    try:
        saved = {key: value for key, value in content["fingerprint"].items() if key in known}
        refuse_differences(path, saved, known, defaults or {})
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error


def labeled_rows_of(path: Path, data: Mapping[str, object]) -> dict[int, Label] | None:
    """Return the labels of the run whose state file is at `path`, by row; None if it is damaged or of other inputs.

    Args:
        path: The state file of a run.
        data: Fingerprint of the data, see `PoolDataset.fingerprint`.
    """
    try:
        content, _ = _read(path)
        if content["fingerprint"]["data.inputs"] != data["inputs"]:
            return None
        return {annotation.row: annotation.label for annotation in _labels(path, content)[1]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def classes_of(path: Path) -> list[str]:
    """Return the classes of the run whose state file is at `path`, in its order; none where it names none.

    Raises:
        ValueError: the file is damaged.
    """
    content, _ = _read(path)
    try:
        return [str(name) for name in content["fingerprint"].get("classes") or ()]
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception | str) -> ValueError:
    """Return the refusal of the state at `path`, for the reason that `error` says."""
    reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return ValueError(
        f"Cannot resume: {path} is damaged ({reason}). Restore it from a copy, or start afresh in another `output_dir`."
    )


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return what the state file at `path` says, its checksum compared, and the bytes of the file."""
    if not path.is_file():
        raise ValueError(f"Cannot resume: there is no {path}. Start without `resume_from_checkpoint`.")
    try:
        data = path.read_bytes()
        content: dict[str, Any] = json.loads(data)
        version = content["version"]
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if version not in (1, VERSION):
        raise ValueError(
            f"Cannot resume: {path} has format version {version!r}, this release reads 1 to {VERSION}. "
            "Use the release that wrote it."
        )
    if version == VERSION and content.pop("checksum", None) != _digest(_dumps(content)):
        raise damaged(path, "its checksum is another than that of its content")
    return content, data


def _labels(path: Path, content: Mapping[str, Any]) -> tuple[Journal, list[Annotation]]:
    """Return the journal beside the state file at `path`, and the labels of the run."""
    journal = Journal(path.with_name(JOURNAL_FILE))
    if content["version"] == 1:
        return journal, [Annotation(**entry) for entry in content["annotations"]]
    return Journal.load(journal.path, content["labels"])


def _digest(data: bytes | str) -> str:
    return hashlib.blake2b(data.encode() if isinstance(data, str) else data, digest_size=16).hexdigest()


def _digest_of(path: Path) -> str | None:
    return _digest(path.read_bytes()) if path.exists() else None


def _dumps(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1)


def _check_history(history: list[RoundRecord], num_labeled: int) -> None:
    before = 0
    for number, record in enumerate(history):
        if _whole(record.round) != number or _whole(record.num_labeled) - before != _whole(record.query_size):
            raise ValueError(f"record {number} of the history does not follow from the one before")
        if record.query_size < 0 or record.num_labeled > num_labeled:
            raise ValueError(f"record {number} of the history counts other labels than there are ({num_labeled})")
        before = record.num_labeled
        _seconds(record.train_seconds)
        _seconds(record.acquisition_seconds)
        if not all(isinstance(name, str) and _is_number(value) for name, value in record.metrics.items()):
            raise ValueError(f"a metric of record {number} of the history is no number")
        ends = [end for interval in record.intervals.values() for end in interval]
        if not all(type(count) is int for count in record.num_rows.values()) or not all(map(_is_number, ends)):
            raise ValueError(f"record {number} of the history has rows or an interval that are no numbers")


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} stands where a whole number belongs")
    return value


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _seconds(value: float) -> None:
    if not _is_number(value) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r} stands where seconds belong")
