"""Label files by their ending: JSON lines, and the formats that other packages bring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from ..plugins import Registry
from ..refusals import Refusal
from .label_lines import LabelLine, read_label_lines

ReadLabels: TypeAlias = Callable[[Path], list[LabelLine]]
"""``path -> lines``, each with the number of its line and ``{"row": 3, "label": "cat"}`` as its entry."""

LABEL_FORMATS: Registry[ReadLabels] = Registry(
    group="hf_noise_al.exchange",
    kind="label format",
    own={"jsonl": read_label_lines},
    wanted="a function that takes a path and returns a list of `LabelLine`",
    fits=lambda name, value: callable(value) and not isinstance(value, type),
)
"""Readers of label files by the ending of their names, without the dot; packages bring more by entry points."""


def read_labels(path: Path) -> list[LabelLine]:
    """Return the lines of the label file at `path`, read by its ending, or as JSON lines where no format has it.

    Raises:
        ValueError: the file cannot be read, or the reader of its format returned something else than lines.
    """
    ending = path.suffix.removeprefix(".").lower()
    lines = LABEL_FORMATS[ending](path) if ending in LABEL_FORMATS else read_label_lines(path)
    for line in lines:
        if not isinstance(line, LabelLine) or type(line.entry.get("row")) is not int or "label" not in line.entry:
            raise Refusal(
                f"Cannot read {path}: the label format `{ending}` returned {line!r}, and not a `LabelLine` whose entry "
                "has a `row`, a whole number, and a `label`. Correct its reader."
            )
    return lines
