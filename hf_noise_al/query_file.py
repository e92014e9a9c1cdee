"""Query files: what was asked in a round, for people to read and to label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset, Image, Value

from .files import set_aside, write_atomically
from .labeled_split import item_feature
from .pool import Label

QUERIES_FOLDER = "queries"
FILE_ROW = "file_row"
"""Column that says which row of a file a row of the pool is, where the two differ."""


def write_query_file(
    path: Path, dataset: Dataset, rows: Sequence[int], scores: Sequence[float | None], labels: Sequence[Label | None]
) -> None:
    """Write one JSON object a line, best first: row, score, label (null until it is given), texts, words or path.

    Labels that somebody typed into an earlier version of the file stay in it; a file that could not keep them all is
    renamed, not replaced.

    Args:
        path: The file, replaced atomically.
        dataset: The user's data set without labels; texts, words, image paths and ``file_row`` of it are shown.
        rows: Rows of it.
        scores: One per row.
        labels: One per row.
    """
    typed = _typed_labels(path)
    if typed is None or not set(typed) <= set(rows):
        set_aside(path)
    labels = [(typed or {}).get(row) if label is None else label for row, label in zip(rows, labels, strict=True)]
    shown = _shown(dataset, rows)
    lines = [
        json.dumps({"row": row, "score": score, "label": label, **texts}, ensure_ascii=False)
        for row, score, label, texts in zip(rows, scores, labels, shown, strict=True)
    ]
    # JSON lets these three stand in a text, and many readers take them for the end of a line.
    escaped = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}
    write_atomically(path, "".join(line.translate(escaped) + "\n" for line in lines))


def _typed_labels(path: Path) -> dict[int, Label] | None:
    """Return the labels in the file at `path`, by row; None for a file that is damaged."""
    if not path.is_file():
        return {}
    try:
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
        return {entry["row"]: entry["label"] for entry in entries if entry["label"] is not None}
    except (ValueError, KeyError, TypeError):
        return None


def _shown(dataset: Dataset, rows: Sequence[int]) -> list[dict[str, str | list[str] | int | None]]:
    kinds = [(name, kind) for name, kind in dataset.features.items() if name not in ("row", "score", "label")]
    texts = [name for name, kind in kinds if _is_text(kind) or _is_text(item_feature(kind))]
    texts += [name for name, _ in kinds if name == FILE_ROW]
    images = [name for name, kind in kinds if isinstance(kind, Image)]
    if not texts and not images:
        return [{} for _ in rows]
    table = dataset.with_format("arrow").select_columns([*texts, *images]).select(list(rows))[:]
    return [
        {name: value["path"] if name in images and value is not None else value for name, value in row.items()}
        for row in table.to_pylist()
    ]


def _is_text(kind: object) -> bool:
    return isinstance(kind, Value) and kind.dtype in ("string", "large_string")
