"""The state of a run as one plain JSON file, replaced atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from .history import RoundRecord
from .pool import Annotation, Label, Pool

STATE_FILE = "active_state.json"
VERSION = 1


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


@dataclass
class ActiveState:
    """Everything that a run needs to go on after a kill, the weights apart."""

    pool: Pool
    history: list[RoundRecord] = field(default_factory=list)
    pending: PendingQuery | None = None
    acquisition_seconds: float = 0.0
    """Seconds of the query whose labels the next round trains on first."""

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

    def save(self, path: Path, fingerprint: Mapping[str, object]) -> None:
        """Replace the file at `path` atomically."""
        content = {
            "version": VERSION,
            "phase": self.phase,
            "round": self.round,
            "size": self.pool.size,
            "fingerprint": fingerprint,
            "pending": None if self.pending is None else asdict(self.pending),
            "acquisition_seconds": self.acquisition_seconds,
            "history": [asdict(record) for record in self.history],
            "annotations": self.pool.to_json(),
        }
        write_atomically(path, json.dumps(content, indent=1, allow_nan=True))

    @classmethod
    def load(cls, path: Path, fingerprint: Mapping[str, object]) -> ActiveState:
        """Read the file at `path`, written for the same `fingerprint`.

        Raises:
            ValueError: no file, a damaged file, another version, or a fingerprint that differs; it says in what.
        """
        content = _read(path)
        try:
            _compare(path, content["fingerprint"], fingerprint)
            pending = content["pending"]
            return cls(
                pool=Pool(content["size"], [Annotation(**row) for row in content["annotations"]]),
                history=[RoundRecord(**record) for record in content["history"]],
                pending=None if pending is None else PendingQuery(**pending),
                acquisition_seconds=content["acquisition_seconds"],
            )
        except _Differs:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise _damaged(path, error) from error


def refuse_other_run(path: Path, known: Mapping[str, object]) -> None:
    """Raise ValueError if the file at `path` is damaged or was written for other values of `known`.

    Args:
        path: The state file of a run.
        known: A part of a fingerprint.
    """
    content = _read(path)
    try:
        saved = {key: content["fingerprint"].get(key) for key in known}
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error
    _compare(path, saved, known)


def labeled_rows_of(path: Path, data: Mapping[str, object]) -> dict[int, Label] | None:
    """Return the labels in the state file at `path`, by row; None if it is damaged or was written for other inputs.

    Args:
        path: The state file of a run.
        data: Fingerprint of the data, see `PoolDataset.fingerprint`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["fingerprint"]["data.inputs"] != data["inputs"]:
            return None
        return {entry["row"]: entry["label"] for entry in content["annotations"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to a temporary file beside `path`, flush it to the disk, and put it in the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.incomplete")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def set_aside(path: Path) -> Path | None:
    """Rename an existing file at `path` to its first free ``NAME.previous-N.json``; return the new path."""
    if not path.exists():
        return None
    number = 1
    while (kept := path.with_name(f"{path.stem}.previous-{number}{path.suffix}")).exists():
        number += 1
    os.replace(path, kept)
    return kept


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"Cannot resume: there is no {path}. Start without `resume_from_checkpoint`.")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = content["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    if version != VERSION:
        raise ValueError(
            f"Cannot resume: {path} has format version {version!r}, this release reads {VERSION}. "
            "Use the release that wrote it."
        )
    return content


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"Cannot resume: {path} is damaged ({type(error).__name__}: {error}). "
        "Restore it from a copy, or start afresh in another `output_dir`."
    )


def _compare(path: Path, saved: Mapping[str, object], fingerprint: Mapping[str, object]) -> None:
    now = json.loads(json.dumps(fingerprint))
    differing = [key for key in sorted({*saved, *now}) if saved.get(key) != now.get(key)]
    if differing:
        details = "; ".join(f"{key} was {saved.get(key)!r}, is {now.get(key)!r}" for key in differing)
        raise _Differs(
            f"Cannot resume: {path} belongs to another run: {details}. "
            "Use the same data and arguments, or start afresh in another `output_dir`."
        )


class _Differs(ValueError):
    """The file is whole and belongs to another run."""
