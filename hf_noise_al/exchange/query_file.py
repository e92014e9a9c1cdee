"""Query files: what was asked in a round, for people to read and to label."""

from __future__ import annotations

import itertools
import json
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Array2D, Array3D, Array4D, Array5D, Audio, ClassLabel, Dataset, Image, Value

from ..files.atomic import set_aside, write_atomically
from ..pool.columns import column_beside, is_text, item_feature
from ..refusals import Refusal
from .label_lines import LabelLine, query_files, read_label_lines, shortened

logger = logging.getLogger(__name__)

_OURS = ("row", "score", "label", "classes")
_FEW_CLASSES = 12
"""Up to this many classes are listed in every line; more of them only in the first."""
_UNSHOWN = (Array2D, Array3D, Array4D, Array5D, Audio)
_ESCAPED = re.compile("[\x85\u2028\u2029\ud800-\udfff]")
"""What JSON lets stand in a text, though many readers take it for the end of a line or UTF-8 has no form for it."""


def write_query_file(
    path: Path,
    dataset: Dataset,
    rows: Sequence[int],
    scores: Sequence[float | None],
    labels: Sequence[object],
    classes: Sequence[str] | None = None,
) -> None:
    """Write one JSON object a line, best first: row, score, label (null until it is given), the row's columns, classes.

    What somebody typed into an earlier version of the file stays. A line with a label stays as it stands, whatever the
    label is; where its row is not asked for, behind the others. A note stays beside its open label. A file that cannot
    be read is renamed, and a warning says so.

    Args:
        path: The file, replaced atomically.
        dataset: What people are shown: the user's data set without labels. Images are shown by their path; a column
            whose name is one of ours is shown as ``score (column)``.
        rows: Rows of it.
        scores: One per row.
        labels: One per row, with classes by name.
        classes: The names to choose from.
    """
    shown = _values(dataset, rows, _shown_columns(dataset))
    typed: dict[int, list[LabelLine]] = {}
    for line in _typed_lines(path, dataset):
        typed.setdefault(line.row, []).append(line)
    lines = []
    for row, score, label, values in zip(rows, scores, labels, shown, strict=True):
        earlier = typed.pop(row, [])
        if any(not line.is_open for line in earlier):
            lines += [line.text for line in earlier]
        else:
            choices = {"classes": list(classes)} if classes and (not lines or len(classes) <= _FEW_CLASSES) else {}
            asked = {"row": row, "score": score, "label": label, **values, **choices}
            notes = {name: value for line in earlier for name, value in line.entry.items() if name not in asked}
            lines.append(_one_line({**asked, **notes}))
    lines += [line.text for rest in typed.values() for line in rest]
    write_atomically(path, "".join(line + "\n" for line in lines))


def forget_open_lines(folder: Path) -> None:
    """Keep only what people typed in the query files of `folder`, so that these ask for nothing any more."""
    for path in query_files(folder):
        try:
            typed = [line.text for line in read_label_lines(path) if not line.is_open]
        except ValueError:
            continue  # the reader of labels will refuse it, and say where
        if typed:
            write_atomically(path, "".join(line + "\n" for line in typed))
        else:
            path.unlink()


def refuse_other_rows(dataset: Dataset, lines: Sequence[LabelLine]) -> None:
    """Raise ValueError where a line shows something else than its row of `dataset` holds.

    Compared are the columns that query files show; a line need not have them, and may have others. Folders of images
    differ between machines: where several files have one name, the row must be the one whose path fits best.
    """
    keys = _keys(dataset)
    images = {keys[name]: name for name, kind in dataset.features.items() if isinstance(kind, Image)}
    own = _values(dataset, [line.row for line in lines], _shown_columns(dataset))
    for line, values in zip(lines, own, strict=True):
        for name, value in values.items():
            found = line.entry.get(name)
            if (
                found is None
                or found == value
                or (name in images and _is_image_of(found, value, dataset, images[name]))
            ):
                continue
            raise Refusal(
                f"{line.place}: `{name}` is {shortened(found)}, and in row {line.row} of the data {shortened(value)}. "
                f"The label may be that of another row: correct `row` or `{name}`, or leave `{name}` out."
            )


def _typed_lines(path: Path, dataset: Dataset) -> list[LabelLine]:
    """Return the lines of an earlier version of a query file that say more than it asked: a label, or a note."""
    if not path.exists():
        return []
    known = {*_OURS, *_keys(dataset).values()}
    try:
        return [line for line in read_label_lines(path) if not line.is_open or line.entry.keys() - known]
    except ValueError as error:
        logger.warning(f"{error} What was typed there is kept in {set_aside(path)}, which no run reads.")
        return []


def _one_line(entry: dict[str, Any]) -> str:
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(entry, ensure_ascii=False))


def _shown_columns(dataset: Dataset) -> list[str]:
    """Return the columns that a line of text can show: texts first, images last."""
    kinds = [(name, kind) for name, kind in dataset.features.items() if not isinstance(kind, _UNSHOWN)]
    kinds = [(name, kind) for name, kind in kinds if not (isinstance(kind, Value) and "binary" in kind.dtype)]
    images = [name for name, kind in kinds if isinstance(kind, Image)]
    texts = [name for name, kind in kinds if is_text(kind) or is_text(item_feature(kind))]
    return [*texts, *(name for name, _ in kinds if name not in texts and name not in images), *images]


def _keys(dataset: Dataset) -> dict[str, str]:
    """Return what each column of `dataset` is called in a line, where some names are ours."""
    keys: dict[str, str] = {}
    for name in dataset.column_names:
        keys[name] = column_beside(name, {*dataset.column_names, *keys.values()}) if name in _OURS else name
    return keys


def _values(dataset: Dataset, rows: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return what is shown of `rows`, as plain JSON; of an image its path, of a ClassLabel its name."""
    if not columns or not rows:
        return [{} for _ in rows]
    kinds, keys = {name: dataset.features[name] for name in columns}, _keys(dataset)
    table = dataset.with_format("arrow").select_columns(list(columns)).select(list(rows))[:]
    return [{keys[name]: _plain(value, kinds[name]) for name, value in row.items()} for row in table.to_pylist()]


def _plain(value: Any, kind: Any) -> Any:
    if isinstance(kind, Image):
        return None if value is None else value["path"]
    if isinstance(kind, ClassLabel) and isinstance(value, int) and 0 <= value < len(kind.names):
        return kind.names[value]
    if isinstance(value, list):
        return [_plain(item, item_feature(kind)) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item, None) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None if value != value else str(value)
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _is_image_of(found: object, path: object, dataset: Dataset, column: str) -> bool:
    """Return whether the path `found` is that of the image at `path`, and of no other image of `dataset` rather."""
    fit = _common_end(found, path)
    if not fit:
        return False
    stored = dataset.with_format("arrow").select_columns([column])[:].column(column)
    others = {value["path"] for value in stored.to_pylist() if value is not None}
    return all(_common_end(found, other) < fit for other in others if other != path)


def _common_end(one: object, other: object) -> int:
    """Return how many names at the end of two paths are the same."""
    pairs = zip(reversed(re.split(r"[\\/]", str(one))), reversed(re.split(r"[\\/]", str(other))), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
