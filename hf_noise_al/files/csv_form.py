"""How a csv file is written: its encoding, separator and columns, and in which line each of its records begins."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from .shown_text import listed, one_line
from .typed_text import UnreadableFile, find_encoding

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
"""Separators between cells, the likeliest first, and their names in messages."""
_HEAD = 1 << 20  # characters of a file that its separator is told by
_FIRST = 100  # records that are looked at before the whole file is read


@dataclass(frozen=True)
class CsvForm:
    """What is known of a csv file before its rows are read."""

    encoding: str
    separator: str
    columns: tuple[str, ...]
    has_rows: bool
    rivals: tuple[str, ...] = ()
    """Separators that would fit the first records as well."""


def find_form(path: Path) -> CsvForm:
    """Return the form of the csv file at `path`.

    Raises:
        UnreadableFile: it cannot be read, is not text, has no header, a column twice, or a row wider than the header.
    """
    encoding = find_encoding(path)
    with path.open(encoding=encoding, newline="") as stream:
        head = stream.read(_HEAD)
        complete = len(head) < _HEAD
    separator, rivals = _find_separator(head, complete, path)
    with _long_cells():
        first = list(islice(_records(io.StringIO(head, newline=""), separator), _FIRST))
    if not first:
        raise UnreadableFile(f"Cannot load the data set {path}: the file is empty. Name another, or look at the file.")
    line, header = first[0]
    # the name that pandas gives to a column without one, such as an index that it wrote
    columns = tuple(name or f"Unnamed: {position}" for position, name in enumerate(header))
    twice = [name for position, name in enumerate(columns) if name in columns[:position]]
    if twice:
        raise UnreadableFile(
            f"{path}, line {line}: the column `{one_line(twice[0])}` stands twice in the header. Rename one of them."
        )
    form = CsvForm(encoding, separator, columns, len(first) > 1 or not complete, rivals)
    refuse_wide_rows(path, form, _FIRST)
    return form


def refuse_wide_rows(path: Path, form: CsvForm, most: int | None = None) -> None:
    """Refuse the first of `most` records (all) that has more cells than the header, or a quote that stays open."""
    with _long_cells(), path.open(encoding=form.encoding, newline="") as stream:
        for line, cells in islice(_records(stream, form.separator), most):
            extra = cells[len(form.columns) :]
            if extra:
                name = SEPARATORS[form.separator]
                found = listed([repr(one_line(cell, 40)) for cell in extra], 3)
                raise UnreadableFile(
                    f"{path}, line {line}: found {len(cells)} cells, and the header has {len(form.columns)} "
                    f"({listed(form.columns, 12)}); too many: {found}. Put cells with a {name} in them in double "
                    "quotes, or name every column."
                )


def line_of_open_quote(path: Path, form: CsvForm) -> int:
    """Return the line of the last record: the one that holds the rest of the file, where a quote is never closed."""
    with _long_cells(), path.open(encoding=form.encoding, newline="") as stream:
        return max((line for line, _ in _records(stream, form.separator)), default=1)


def line_of_record(path: Path, record: int) -> int | None:
    """Return the line (from 1) in which the record of that number (from 0, the header not counted) begins."""
    form = find_form(path)
    with _long_cells(), path.open(encoding=form.encoding, newline="") as stream:
        found = next(islice(_records(stream, form.separator), record + 1, None), None)
    return None if found is None else found[0]


def _find_separator(head: str, complete: bool, path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the separator, and others that fit as well: in all records the cells of the header, which are several."""
    order = list(dict.fromkeys(["\t", *SEPARATORS])) if path.suffix.lower() == ".tsv" else list(SEPARATORS)
    fits: dict[str, tuple[float, int]] = {}
    for separator in order:
        with _long_cells():
            widths = [len(cells) for _, cells in islice(_records(io.StringIO(head, newline=""), separator), _FIRST + 1)]
        if not complete and len(widths) <= _FIRST:
            widths = widths[:-1] or widths  # the last one is cut
        widths = widths[:_FIRST]
        if widths and widths[0] > 1:
            fits[separator] = (sum(width == widths[0] for width in widths) / len(widths), widths[0])
    if not fits:
        return order[0], ()
    best = max(fits, key=lambda separator: fits[separator])  # the first of equals
    share = fits[best][0]
    return best, tuple(other for other in fits if other != best and fits[other][0] == share == 1)


def _records(lines: Iterable[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line in which each record begins, and its cells; lines of blanks are none, as for pandas."""
    taken: list[str] = []

    def taking() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    reader = csv.reader(taking(), delimiter=separator)
    blanks = " \t\r\n".replace(separator, "")
    begin = 1
    for cells in reader:
        if any(line.strip(blanks) for line in taken):
            yield begin, cells
        taken.clear()
        begin = reader.line_num + 1


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let cells be as long as they are."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)
