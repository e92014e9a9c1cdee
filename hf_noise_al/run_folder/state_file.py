"""State files of runs: read with their checksum and their journal, asked which run they belong to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files.run_names import JOURNAL_FILE
from ..pool.pool import Annotation, Label
from ..refusals import Refusal, reason_of
from .differences import refuse_differences
from .journal import Journal

VERSION = 2
"""Version 1 held the labels in the state file itself and had no checksum; it is still read."""


def checksum(data: bytes | str) -> str:
    """Return the checksum of bytes, or of a text as it is written."""
    return hashlib.blake2b(data.encode() if isinstance(data, str) else data, digest_size=16).hexdigest()


def checksum_of(path: Path) -> str | None:
    """Return the checksum of a file; None where there is none."""
    return checksum(path.read_bytes()) if path.exists() else None


def as_json(content: Mapping[str, Any]) -> str:
    """Return the text that a state file has, its checksum apart."""
    return json.dumps(content, indent=1)


def refuse_other_run(path: Path, known: Mapping[str, object], defaults: Mapping[str, object] | None = None) -> None:
    """Raise ValueError if the file at `path` is damaged or was written for other values of `known`.

    Args:
        path: The state file of a run.
        known: A part of a fingerprint.
        defaults: As for `ActiveState.load`.
    """
    content, _ = read_state(path)
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
        content, _ = read_state(path)
        if content["fingerprint"]["data.inputs"] != data["inputs"]:
            return None
        return {annotation.row: annotation.label for annotation in labels_of_state(path, content)[1]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def classes_of(path: Path) -> list[str]:
    """Return the classes of the run whose state file is at `path`, in its order; none where it names none.

    Raises:
        ValueError: the file is damaged.
    """
    content, _ = read_state(path)
    try:
        return [str(name) for name in content["fingerprint"].get("classes") or ()]
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception | str) -> Refusal:
    """Return the refusal of the state at `path`, for the reason that `error` says."""
    reason = error if isinstance(error, str) else reason_of(error)
    return Refusal(
        f"Cannot resume: {path} is damaged ({reason}). Restore it from a copy, or start afresh in another `output_dir`."
    )


def read_state(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return what the state file at `path` says, its checksum compared, and the bytes of the file."""
    if not path.is_file():
        raise Refusal(f"Cannot resume: there is no {path}. Start without `resume_from_checkpoint`.")
    try:
        data = path.read_bytes()
        content: dict[str, Any] = json.loads(data)
        version = content["version"]
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if version not in (1, VERSION):
        raise Refusal(
            f"Cannot resume: {path} has format version {version!r}, this release reads 1 to {VERSION}. "
            "Use the release that wrote it."
        )
    if version == VERSION and content.pop("checksum", None) != checksum(as_json(content)):
        raise damaged(path, "its checksum is another than that of its content")
    return content, data


def labels_of_state(path: Path, content: Mapping[str, Any]) -> tuple[Journal, list[Annotation]]:
    """Return the journal beside the state file at `path`, and the labels of the run."""
    journal = Journal(path.with_name(JOURNAL_FILE))
    if content["version"] == 1:
        return journal, [Annotation(**entry) for entry in content["annotations"]]
    return Journal.load(journal.path, content["labels"])
