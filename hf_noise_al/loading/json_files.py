"""Json and JSON lines files whose columns change their type: read by line, each column of one type over all rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ..files.shown_text import one_line
from ..files.typed_text import UnreadableFile, find_encoding


class _Number(float):
    """A number that remembers how it was written."""

    written: str

    def __new__(cls, written: str) -> _Number:
        number = super().__new__(cls, written)
        number.written = written
        return number


def has_mixed_columns(rows: Dataset) -> bool:
    """Return whether `datasets` has a column that is not as it was written.

    It leaves values of several types, which are no objects, as JSON; it takes texts for dates, and whole numbers that
    are too large for it for broken ones.
    """
    return any(
        (_is_json(feature) and not _are_objects(rows.data.column(name))) or _was_changed(feature, rows, name)
        for name, feature in rows.features.items()
    )


def _was_changed(feature: Any, rows: Dataset, name: str) -> bool:
    kind = str(getattr(feature, "dtype", ""))
    if kind.startswith(("timestamp", "date", "time")):
        return True
    largest = pc.max(pc.abs(rows.data.column(name))).as_py() if kind == "float64" else None
    return largest is not None and 2**53 < largest < 1e30


def _is_json(feature: Any) -> bool:
    return type(feature).__name__ == "Json" or (hasattr(feature, "feature") and _is_json(feature.feature))


def _are_objects(column: pa.ChunkedArray) -> bool:
    return all(value is None or str(value).startswith("{") for value in column.to_pylist())


def read_json_files(files: Mapping[str, Sequence[Path]]) -> dict[str, Dataset]:
    """Return the splits that the json files of `files` hold, each column of one type over all of them.

    Where values are of several types, numbers, true and false among text are text as they were written.

    Raises:
        UnreadableFile: a file is not UTF-8, or a line of it is no JSON object.
    """
    rows = {split: [row for path in paths for row in _rows(path)] for split, paths in files.items()}
    names = list(dict.fromkeys(name for part in rows.values() for row in part for name in row))
    columns: dict[str, dict[str, pa.Array]] = {split: {} for split in files}
    for name in names:
        _refuse_mixed_lists(name, rows, next(iter(files.values()))[0])
        values = [row.get(name) for part in rows.values() for row in part]
        column = _column(values)
        start = 0
        for split, part in rows.items():
            columns[split][name] = column.slice(start, len(part))
            start += len(part)
    return {split: Dataset(pa.table(part)) for split, part in columns.items()}


def refuse_other_text(files: Mapping[str, Sequence[Path]]) -> None:
    """Refuse a file that is not UTF-8."""
    for paths in files.values():
        for path in paths:
            find_encoding(path, others=False)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding=find_encoding(path, others=False)) as stream:
        for number, line in enumerate(stream, start=1):
            if line.lstrip().startswith("["):  # a list goes to the end of the file
                rest = line + stream.read()
                for value in _parsed(rest, path, number):
                    yield _row(value, path, number)
            elif line.strip():
                yield _row(_parsed(line.rstrip(), path, number), path, number)


def _parsed(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text, parse_float=_Number)
    except ValueError as error:
        place, reason = line + getattr(error, "lineno", 1) - 1, getattr(error, "msg", str(error))
        raise UnreadableFile(
            f"{path}, line {place}: this is not JSON ({reason}). Correct the line; a file has one object a line, or is "
            "a list of objects."
        ) from error
    except RecursionError as error:
        raise UnreadableFile(f"{path}, line {line}: the values are nested too deeply. Make them flat.") from error


def _row(value: object, path: Path, line: int) -> dict[str, Any]:
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict):
        raise UnreadableFile(
            f"{path}, line {line}: found {one_line(json.dumps(value), 40)} where a row, an object such as "
            '{"text": "..."}, is expected. Correct the line.'
        )
    return value


def _refuse_mixed_lists(name: str, rows: Mapping[str, Sequence[Mapping[str, Any]]], path: object) -> None:
    """Raise where a column holds lists in some rows and single values in others: one of them is not as it was meant."""
    lists = first = None
    for part in rows.values():
        for number, row in enumerate(part):
            value = row.get(name)
            if value is None:
                continue
            if first is None:
                first, lists = (number, value), isinstance(value, list)
            elif isinstance(value, list) != lists:
                raise UnreadableFile(
                    f"{path}, row {number}: `{name}` is {one_line(json.dumps(value), 40)}, and in row {first[0]} "
                    f"{one_line(json.dumps(first[1]), 40)}. Write lists in every row, or in none."
                )


def _column(values: list[Any]) -> pa.Array:
    """Return `values` as an array of one type."""
    makers: tuple[Callable[[Any], Any], ...] = (lambda value: value, _with_texts, _as_text)
    for made in makers:
        try:
            return pa.array([made(value) for value in values])
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            continue
    raise AssertionError("text is always of one type")


def _with_texts(value: Any) -> Any:
    """Return `value` with text in the place of single values, also of those in lists."""
    return None if value is None else [_with_texts(item) for item in value] if isinstance(value, list) else _text(value)


def _as_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return value.written if isinstance(value, _Number) else json.dumps(value, ensure_ascii=False)
