"""What messages call a row: its number, the line of the file where it stands, and the id that people gave it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from ..files.file_lines import line_of_row
from ..files.shown_text import one_line


def id_of(dataset: Dataset, column: str, row: int) -> str:
    """Return what the id column `column` says of `row`, after the column's name."""
    name = dataset.select_columns([column]).with_format(None)[row][column]
    return f"{column} {one_line(name)}"


@dataclass(frozen=True)
class Source:
    """Where the rows of a pool come from."""

    pool: Dataset
    """All rows, as they are stored."""
    file: Path | None = None
    """The one file that they are all of the rows of, in its order."""
    id_column: str | None = None
    """Column that names each row for people."""

    def details(self, row: int) -> str:
        """Return where `row` stands, beside its number, such as ``(mine.csv, line 7, id A-3)``."""
        if not 0 <= row < len(self.pool):
            return ""
        parts = []
        if self.file is not None:
            line = line_of_row(self.file, row) if self.file.exists() else None
            parts += [self.file.name, *([] if line is None else [f"line {line}"])]
        if self.id_column is not None:
            parts.append(id_of(self.pool, self.id_column, row))
        return f" ({', '.join(parts)})" if parts else ""


class Place(str):
    """The name of a part of the data, such as "the pool", that can say where its rows stand."""

    source: Source | None

    def __new__(cls, name: str, source: Source | None = None) -> Place:
        """Return the name; `source` is where the rows of the part come from, as far as that is known."""
        place = super().__new__(cls, name)
        place.source = source
        return place


def row_at(place: str, row: int) -> str:
    """Return what messages call row number `row` of the part `place`.

    Example:
        >>> row_at("the pool", 3)
        'row 3'
    """
    source = getattr(place, "source", None)
    return f"row {row}" if source is None else f"row {row}{source.details(row)}"
