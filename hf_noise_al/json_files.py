"""Json and JSON lines files whose columns change their type: read by line, each column of one type over all rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from .shown_text import one_line
from .typed_text import UnreadableFile, find_encoding


class _Number(float):
    """A number that remembers how it was written."""

    written: str

    def __new__(cls, written: str) -> _Number:
        number = super().__new__(cls, written)
        number.written = written
        return number


def has_mixed_columns(rows: Dataset) -> bool:
    """Return whether `datasets` found no type for a column and left its values, which are no objects, as JSON."""
    return any(
        _is_json(feature) and not _are_objects(rows.data.column(name)) for name, feature in rows.features.items()
    )


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
