"""Labels from a file that somebody filled in."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ..pool import Label
from .base import Annotator


class LabelFile(Annotator):
    """Read labels from a JSON lines file, one ``{"row": 3, "label": 1}`` a line; other keys are ignored.

    The files that a run writes to ``queries/`` have this form: fill in the labels and hand that folder over. It is
    read anew at each query; lines whose label is null are not labels yet.

    Args:
        path: The file, or a folder of ``round-NN.jsonl`` files.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def annotate(self, rows: Sequence[int]) -> list[Label]:
        """Return the labels of `rows` in the file."""
        files = self._files()
        labels: dict[int, Label] = {}
        for file in files:
            _read_into(labels, file)
        missing = [row for row in rows if row not in labels]
        if missing:
            example = json.dumps({"row": missing[0], "label": 0})
            remedy = (
                f"Fill in the labels in {files[-1]}" if self.path.is_dir() else f"Add a line such as {example} for each"
            )
            raise ValueError(
                f"{self.path} has no label for {len(missing)} of the {len(rows)} rows asked for, the first is row "
                f"{missing[0]}. {remedy}, then resume; nothing that was labeled is lost."
            )
        return [labels[row] for row in rows]

    def _files(self) -> list[Path]:
        files = sorted(self.path.glob("round-*.jsonl")) if self.path.is_dir() else [self.path]
        if not files or not files[0].is_file():
            raise ValueError(f"There is no label file {self.path}.")
        return files


def _read_into(labels: dict[int, Label], path: Path) -> None:
    text = path.read_text(encoding="utf-8-sig")  # some editors put a byte order mark in front
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would break texts at U+2028
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            row, label = entry["row"], entry["label"]
            if isinstance(row, bool) or not isinstance(row, int):
                raise TypeError(f"row {row!r} is not a whole number")
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f'{path}, line {number}: expected a JSON object with "row" and "label", found {line[:80]!r}.'
            ) from error
        if label is None:
            continue
        if row in labels and labels[row] != label:
            raise ValueError(f"{path}, line {number}: row {row} has two labels, {labels[row]!r} and {label!r}.")
        labels[row] = label
