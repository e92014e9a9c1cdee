"""Files of labels, as people fill them in: one JSON object a line, read line by line or refused with file and line."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files.typed_text import read_typed_text
from ..pool.label_values import is_missing
from ..refusals import Refusal

MAX_DEPTH = 8
"""How many brackets deep a line may be; the deepest label, a mask as rows of pixels, needs four."""
_SET_ASIDE = re.compile(r"\.previous-\d+$")


@dataclass(frozen=True)
class LabelLine:
    """One line of a label file."""

    path: Path
    number: int
    """From 1."""
    text: str
    """The line as it stands."""
    entry: dict[str, Any]
    """What it says."""

    @property
    def row(self) -> int:
        """The row that it is about."""
        row: int = self.entry["row"]
        return row

    @property
    def label(self) -> Any:
        """The label, as it was typed; None where none is given yet."""
        return self.entry["label"]

    @property
    def is_open(self) -> bool:
        """Whether nobody gave a label yet: it is missing by `is_missing`, such as null and an empty text."""
        return not isinstance(self.label, list) and is_missing(self.label)

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.path}, line {self.number}"


def read_label_lines(path: Path) -> list[LabelLine]:
    """Return the lines of the file at `path`, empty ones left out.

    Raises:
        ValueError: the file cannot be read, or a line is not an object with ``row`` and ``label``.
    """
    lines = []
    for number, text in enumerate(read_typed_text(path).split("\n"), start=1):  # splitlines breaks texts at U+2028
        if not text.strip():
            continue
        try:
            lines.append(LabelLine(path, number, text.rstrip("\r"), _entry(text)))
        except (ValueError, RecursionError) as error:
            raise Refusal(
                f'{path}, line {number}: expected a JSON object with "row" and "label", found {text[:80]!r} '
                f"({_reason(error)}). Correct the line."
            ) from error
    return lines


def query_files(folder: Path) -> list[Path]:
    """Return the query files of `folder`, sorted by name, without those that were set aside.

    Raises:
        OSError: the folder cannot be read.
    """
    files = (
        path for path in folder.iterdir() if path.match("round-*.jsonl")
    )  # a glob would return nothing where the folder cannot be read
    return sorted(path for path in files if not _SET_ASIDE.search(path.stem))


def shortened(value: object) -> str:
    """Return `value` as it would be written in Python, its middle left out where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]} ... {text[-15:]}"


def _entry(text: str) -> dict[str, Any]:
    entry = json.loads(text, object_pairs_hook=_without_duplicates)
    if not isinstance(entry, dict):
        raise Refusal("no object")
    missing = [name for name in ("row", "label") if name not in entry]
    if missing:
        raise Refusal(f"no `{missing[0]}`")
    if isinstance(entry["row"], bool) or not isinstance(entry["row"], int):
        raise Refusal("its row is not a whole number")
    if _is_deeper(entry, MAX_DEPTH):
        raise Refusal("too many brackets inside each other")
    return entry


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Refusal("a key stands twice")
    return found


def _is_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, list | dict):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in inside)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "too many brackets inside each other"
    return f"{error.msg} at character {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
