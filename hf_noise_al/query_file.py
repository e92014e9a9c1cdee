"""Query files: what was asked in a round, for people to read and to label."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, Value

from .files import set_aside, write_atomically
from .label_lines import LabelLine, query_files, read_label_lines, shortened
from .labeled_split import item_feature
from .pool import Label

logger = logging.getLogger(__name__)

QUERIES_FOLDER = "queries"
FILE_ROW = "file_row"
"""Column that says which row of a file a row of the pool is, where the two differ."""
_OURS = ("row", "score", "label")
_ESCAPED = re.compile("[\x85\u2028\u2029\ud800-\udfff]")
"""What JSON lets stand in a text, though many readers take it for the end of a line or UTF-8 has no form for it."""


def write_query_file(
    path: Path, dataset: Dataset, rows: Sequence[int], scores: Sequence[float | None], labels: Sequence[Label | None]
) -> None:
    """Write one JSON object a line, best first: row, score, label (null until it is given), texts, words or path.

    What somebody typed into an earlier version of the file stays. A line with a label stays as it stands, whatever the
    label is; where its row is not asked for, behind the others. A note stays beside its open label. A file that cannot
    be read is renamed, and a warning says so.

    Args:
        path: The file, replaced atomically.
        dataset: The user's data set without labels; texts, words, image paths and ``file_row`` of it are shown.
        rows: Rows of it.
        scores: One per row.
        labels: One per row.
    """
    shown = _values(dataset, rows, _shown_columns(dataset))
    typed: dict[int, list[LabelLine]] = {}
    for line in _typed_lines(path, dataset):
        typed.setdefault(line.row, []).append(line)
    lines = []
    for row, score, label, values in zip(rows, scores, labels, shown, strict=True):
        earlier = typed.pop(row, [])
        if any(line.label is not None for line in earlier):
            lines += [line.text for line in earlier]
        else:
            asked = {"row": row, "score": score, "label": label, **values}
            notes = {name: value for line in earlier for name, value in line.entry.items() if name not in asked}
            lines.append(_one_line({**asked, **notes}))
    lines += [line.text for rest in typed.values() for line in rest]
    write_atomically(path, "".join(line + "\n" for line in lines))


def forget_open_lines(folder: Path) -> None:
    """Leave of the query files in `folder` what people typed, so that nothing is asked there any more."""
    for path in query_files(folder):
        try:
            typed = [line.text for line in read_label_lines(path) if line.label is not None]
        except ValueError:
            continue  # who reads the labels refuses it, and says where
        if typed:
            write_atomically(path, "".join(line + "\n" for line in typed))
        else:
            path.unlink()


def refuse_other_rows(dataset: Dataset, lines: Sequence[LabelLine]) -> None:
    """Raise ValueError where a line shows something else than its row of `dataset` holds.

    Compared are the columns that query files show, and an ``id``; a line need not have them, and may have others. Of
    an image, only the name of its file: folders differ between machines.
    """
    columns = [*_shown_columns(dataset), *(["id"] if "id" in dataset.column_names else [])]
    images = [name for name in columns if isinstance(dataset.features[name], Image)]
    own = _values(dataset, [line.row for line in lines], list(dict.fromkeys(columns)))
    for line, values in zip(lines, own, strict=True):
        for name, value in values.items():
            found = line.entry.get(name)
            if found is None or found == value or (name in images and _file_name(found) == _file_name(value)):
                continue
            raise ValueError(
                f"{line.place}: `{name}` is {shortened(found)}, and in row {line.row} of the data {shortened(value)}. "
                f"The label may be that of another row: mend `row` or `{name}`, or leave `{name}` out."
            )


def _typed_lines(path: Path, dataset: Dataset) -> list[LabelLine]:
    """Return the lines of an earlier version of a query file that say more than it asked: a label, or a note."""
    if not path.exists():
        return []
    known = {*_OURS, *_shown_columns(dataset)}
    try:
        return [line for line in read_label_lines(path) if line.label is not None or line.entry.keys() - known]
    except ValueError as error:
        logger.warning(f"{error} What was typed there is kept in {set_aside(path)}, which nobody reads.")
        return []


def _one_line(entry: dict[str, Any]) -> str:
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(entry, ensure_ascii=False))


def _shown_columns(dataset: Dataset) -> list[str]:
    kinds = [(name, kind) for name, kind in dataset.features.items() if name not in _OURS]
    texts = [name for name, kind in kinds if _is_text(kind) or _is_text(item_feature(kind))]
    texts += [name for name, _ in kinds if name == FILE_ROW]
    return texts + [name for name, kind in kinds if isinstance(kind, Image)]


def _values(dataset: Dataset, rows: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return what is shown of `rows`; of an image its path."""
    if not columns or not rows:
        return [{} for _ in rows]
    images = [name for name in columns if isinstance(dataset.features[name], Image)]
    table = dataset.with_format("arrow").select_columns(list(columns)).select(list(rows))[:]
    return [
        {name: value["path"] if name in images and value is not None else value for name, value in row.items()}
        for row in table.to_pylist()
    ]


def _is_text(kind: object) -> bool:
    return isinstance(kind, Value) and kind.dtype in ("string", "large_string")


def _file_name(path: object) -> str:
    return re.split(r"[\\/]", str(path))[-1]
