"""Labels from a file that somebody filled in."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..exchange.label_formats import read_labels
from ..exchange.label_lines import LabelLine, query_files, shortened
from ..pool.label_values import Classes, UnknownClass, number_in, plain_text
from ..pool.pool import Label
from ..refusals import Refusal
from .base import Annotator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownRows:
    """What a run knows of its rows, to compare with what people wrote."""

    told: Mapping[int, object]
    """The labels that it has, by row, as people write them."""
    read: Callable[[int, object], Label]
    """``(row, label as typed) -> label``; raises ValueError for what is none."""
    refuse_other_rows: Callable[[Sequence[LabelLine]], None]
    """Raises ValueError where a line shows other contents than its row has."""
    size: int | None = None
    """How many rows there are, where that is known."""
    set_aside: Collection[int] = ()
    """Rows whose answers nobody uses."""

    def agree(self, row: int, one: object, other: object) -> bool:
        """Return whether two labels of `row` are read as one: as a name and its number are, or a mask packed anew."""
        try:
            return self.read(row, one) == self.read(row, other)
        except Exception:  # a reader of pictures may raise anything for what was typed
            return False


class LabelFile(Annotator):
    """Read labels from a JSON lines file, one ``{"row": 3, "label": 1}`` a line.

    The files that a run writes to ``queries/`` have this form: fill in the labels and hand that folder over. It is
    read anew at each query; lines whose label is null are not labels yet. In a run, what a line shows of its row must
    be what the row holds, and a row that has a label already must have the same one here; other keys are ignored.

    Args:
        path: The file, or a folder of ``round-NN.jsonl`` files.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._known: KnownRows | None = None

    def compare_with(self, known: KnownRows) -> None:
        """Compare what is read from now on with the rows of a run."""
        self._known = known

    def annotate(self, rows: Sequence[int]) -> list[Label]:
        """Return the labels of `rows` in the file."""
        lines = self._lines()
        labels = self._checked(lines, rows)
        missing = [row for row in rows if row not in labels]
        if missing:
            raise self._nothing_for(missing, len(rows), lines)
        return [labels[row] for row in rows]

    def check(self, rows: Sequence[int]) -> None:
        """Compare with the run what is in the file so far, where there is one: of `rows`, and of what it was told.

        Raises:
            ValueError: a line cannot be read, or says otherwise than the run.
        """
        if self._files():
            self._checked(self._lines(), rows)

    def lines_so_far(self) -> list[LabelLine]:
        """Return what is in the file so far; nothing where there is none."""
        return self._lines() if self._files() else []

    def _files(self) -> list[Path]:
        try:
            files = query_files(self.path) if self.path.is_dir() else [self.path]
            return [file for file in files if file.exists()]
        except OSError as error:
            raise Refusal(
                f"Cannot read {self.path}: {error.strerror or error}. Name a file or folder that can be read."
            ) from error

    def _lines(self) -> list[LabelLine]:
        files = self._files()
        if not files:
            raise Refusal(f"There is no label file {self.path}.")
        return [line for file in files for line in read_labels(file)]

    def _checked(self, lines: Sequence[LabelLine], rows: Sequence[int]) -> dict[int, Label]:
        """Return the labels by row, as they were typed first."""
        labeled = [line for line in lines if not line.is_open]
        first: dict[int, LabelLine] = {}
        for line in labeled:
            other = first.setdefault(line.row, line)
            if other is not line and not self._agree(other, line):
                raise Refusal(
                    f"{line.place}: row {line.row} has two labels, {shortened(other.label)} and "
                    f"{shortened(line.label)}. The other is in {other.place}: leave one of them."
                )
        if self._known is not None:
            asked, told = set(rows), self._known.told
            _refuse_unknown_rows(labeled, self._known)
            self._known.refuse_other_rows(
                [line for line in labeled if line.row in asked]
            )  # rows with a label were compared when they were asked for
            for line in labeled:
                if line.row in asked or line.row in told:
                    _refuse_other_label(line, self._known)
        return {row: line.label for row, line in first.items()}

    def _agree(self, one: LabelLine, other: LabelLine) -> bool:
        if one.label == other.label and isinstance(one.label, bool) == isinstance(other.label, bool):
            return True
        return self._known is not None and self._known.agree(one.row, one.label, other.label)

    def _nothing_for(self, missing: Sequence[int], asked: int, lines: Sequence[LabelLine]) -> Refusal:
        asking = [line.path for line in lines if line.row == missing[0]]
        told = self._known.told.values() if self._known is not None else ()
        example = {"row": missing[0], "label": next(iter(told), 0)}
        remedy = f"Add a line such as {json.dumps(example, ensure_ascii=False)} for each"
        if self.path.is_dir():
            remedy = f"Fill in the labels in {asking[-1]}" if asking else f"{remedy} to {self._files()[-1]}"
        return Refusal(
            f"{self.path} has no label for {len(missing)} of the {asked} rows asked for, the first is row "
            f"{missing[0]}. {remedy}, then resume; nothing that was labeled is lost."
        )


def new_classes_in(path: Path, classes: Sequence[str], size: int) -> list[str]:
    """Return what the label file, or the folder of them, at `path` names beside `classes`, in the order it was typed.

    A number is a new class only where classes are called by numbers: elsewhere it is the place of one.

    Args:
        path: The file or folder.
        classes: The names that are known.
        size: How many rows there are; what is said of others is none of the run's.

    Raises:
        ValueError: a line cannot be read.
    """
    known, new = Classes(tuple(classes)), []
    for line in LabelFile(path).lines_so_far():
        for answer in line.label if isinstance(line.label, list) else [line.label]:
            text = plain_text(answer) if isinstance(answer, int | float) and not isinstance(answer, bool) else answer
            if not isinstance(text, str) or not 0 <= line.row < size:
                continue
            try:
                known.place(text)
            except UnknownClass:
                if number_in(text.strip()) is None or known.has_numbers:
                    new.append(text.strip())
                    known = Classes((*known.names, text.strip()))
            except ValueError:  # it stands for a missing label
                continue
    return new


def _refuse_unknown_rows(lines: Sequence[LabelLine], known: KnownRows) -> None:
    """Raise ValueError where a labeled row does not exist; log labels that nobody will use."""
    for line in lines:
        if known.size is not None and not 0 <= line.row < known.size:
            raise Refusal(
                f"{line.place}: there is no row {line.row}: rows are 0 to {known.size - 1}. Correct the row, or remove "
                "the line."
            )
    unused = [line for line in lines if line.row in known.set_aside]
    if unused:
        logger.warning(
            f"{unused[0].place}: row {unused[0].row} is set aside to measure with, so that its label here is not used "
            f"({len(unused)} such lines)."
        )


def _refuse_other_label(line: LabelLine, known: KnownRows) -> None:
    """Raise ValueError where `line` has no valid label, or another one than the run has trained on."""
    try:
        known.read(line.row, line.label)
    except UnknownClass as error:
        raise Refusal(
            f"{line.place}: {error} If it is a new class, go on with `--new_classes allow` (`--resume_from_checkpoint "
            "true`), or list it in `class_names` behind the others."
        ) from error
    except ValueError as error:
        raise Refusal(f"{line.place}: {error}") from error
    except Exception as error:  # a reader of pictures may raise anything for what was typed
        raise Refusal(f"{line.place}: the label {shortened(line.label)} cannot be read ({error!r}).") from error
    told = known.told.get(line.row, line.label)
    if line.label != told and not known.agree(line.row, line.label, told):
        raise Refusal(
            f"{line.place}: row {line.row} has the label {shortened(line.label)}, and in the run it has "
            f"{shortened(told)}. Put {shortened(told)} back; or, for a run that learns from the new label, start "
            "afresh (`--start_afresh true`), or correct the data if the old one stands there."
        )
