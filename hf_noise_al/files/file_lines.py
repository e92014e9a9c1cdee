"""The line of a data file in which a row stands, for messages."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from .csv_form import line_of_record


def line_of_row(path: Path, row: int) -> int | None:
    """Return the line (from 1) of the file at `path` where its row `row` (from 0) begins; None where it has no lines.

    Rows are the records of a csv file, whose cells may go over several lines, and the objects of a JSON lines file;
    blank lines are no rows. A parquet file, a list in a json file and a row that is not there have no line.
    """
    suffix = path.suffix.lower()
    if row < 0:
        return None
    if suffix in (".csv", ".tsv"):
        return line_of_record(path, row)
    if suffix in (".jsonl", ".json", ".ndjson"):
        return next(islice(_lines_of_objects(path), row, None), None)
    return None


def _lines_of_objects(path: Path) -> Iterator[int]:
    seen = False
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            text = line.removeprefix(codecs.BOM_UTF8).strip()
            if text and not seen and not _is_object(text):
                return
            seen = seen or bool(text)
            if text:
                yield number


def _is_object(text: bytes) -> bool:
    """Return whether a line is an object by itself, and not the beginning of a list or of an object of many lines."""
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
