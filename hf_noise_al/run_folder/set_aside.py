"""The file ``set_aside.json`` of a run: the rows of its pool that it is measured on, for later queries to leave out."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from ..files.atomic import write_atomically
from ..files.run_names import SET_ASIDE_FILE
from ..refusals import Refusal


def write_set_aside(folder: Path, rows: Collection[int]) -> None:
    """Write the file, in one step; where nothing is set aside there is none."""
    if rows:
        write_atomically(folder / SET_ASIDE_FILE, json.dumps(sorted(rows)) + "\n")


def read_set_aside(folder: Path) -> list[int]:
    """Return the rows that the run in `folder` set aside; none where there is no file.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / SET_ASIDE_FILE
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list) or any(type(row) is not int or row < 0 for row in rows):
            raise Refusal("no list of rows")
    except (OSError, ValueError, RecursionError) as error:
        raise Refusal(
            f"Cannot read {path}: {error}. Restore it from a copy, or resume the run, which writes it anew."
        ) from error
    return rows
