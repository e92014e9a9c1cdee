"""The state of a run on the disk: a small JSON file, replaced in one step, and the journal of its labels."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from ..files.atomic import append_at, write_atomically
from ..files.run_names import JOURNAL_FILE
from ..pool.pool import Pool
from ..refusals import Refusal
from .differences import OtherRun, has_more_classes, refuse_differences
from .history import RoundRecord
from .journal import Journal
from .pending_query import PendingQuery
from .state_checks import check_state
from .state_file import VERSION, as_json, checksum, checksum_of, damaged, labels_of_state, read_state


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
        if checksum_of(path) != known.digest:
            raise Refusal(
                f"{path} was changed by another process since this one read it: nothing was written. Go on from there "
                "with `resume` (`resume_from_checkpoint`), and let one process at a time work in a folder."
            )
        journal, data = known.journal.extended(self.pool.annotations_from(known.journal.count))
        text = self._text(fingerprint, journal)
        if data:
            append_at(journal.path, known.journal.size, data)
        write_atomically(path, text)
        self._disk = _OnDisk(path, checksum(text), journal)

    def is_saved(self, path: Path, fingerprint: Mapping[str, object]) -> bool:
        """Return whether the file at `path` says what this object does: `save` may fail when all is written."""
        known = self._known(path)
        journal, _ = known.journal.extended(self.pool.annotations_from(known.journal.count))
        digest = checksum(self._text(fingerprint, journal))
        try:
            if checksum_of(path) != digest:
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
        content, data = read_state(path)
        try:
            refuse_differences(path, content["fingerprint"], fingerprint, defaults or {})
            journal, annotations = labels_of_state(path, content)
            pending = content["pending"]
            state = cls(
                pool=Pool(content["size"], annotations, set_aside),
                history=[RoundRecord(**record) for record in content["history"]],
                pending=None if pending is None else PendingQuery(**pending),
                acquisition_seconds=content["acquisition_seconds"],
                has_new_classes=has_more_classes(content["fingerprint"], fingerprint),
            )
            check_state(state.pool, state.history, state.pending, state.acquisition_seconds)
        except OtherRun:
            raise
        except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
            raise damaged(path, error) from error
        state._disk = _OnDisk(path, checksum(data), journal)
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
        return as_json({**content, "checksum": checksum(as_json(content))})


@dataclass(frozen=True)
class _OnDisk:
    """What the state file at `path` is known to hold."""

    path: Path
    digest: str | None
    """Of its bytes; None where there is no file yet."""
    journal: Journal
