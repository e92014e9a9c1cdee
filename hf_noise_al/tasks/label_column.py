"""A column of labels read as targets: classes, sets of classes or numbers; a missing label stays missing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from datasets import ClassLabel, Dataset
from transformers.utils import logging

from ..pool.columns import column_beside, is_text, item_feature
from ..pool.label_values import MISSING, MISSING_CLASS, Classes, UnknownClass, is_missing, plain_text
from ..pool.places import row_at
from ..pool.problem_type import MULTI_LABEL, REGRESSION
from ..refusals import Refusal, retold
from .targets import Targets

logger = logging.get_logger(__name__)


def with_targets(
    dataset: Dataset, column: str, targets: Targets, place: str, complete: bool, told: bool = True
) -> Dataset:
    """Return `dataset` with `column` read as `targets`, under the name ``labels``.

    A missing label, see `pool.label_values`, is None; where the labels must be `complete` it is refused. What was
    taken for missing is logged, where it is to be `told`.
    """
    numbers = targets.problem_type == REGRESSION
    if numbers:
        read: Callable[[object], Any] = _number
        names: Sequence[str] | None = None
    else:
        classes, names, outputs = Classes(targets.in_data()), targets.class_names, targets.outputs()
        several = targets.problem_type == MULTI_LABEL
        read = partial(_set_of, classes, outputs) if several else partial(_output, classes, outputs)
    taken: Counter[str] = Counter()

    def read_or_leave_open(value: Any) -> Any:
        if isinstance(value, MissingNumber) or (not isinstance(value, list) and is_missing(value, names)):
            taken[_shown_missing(value)] += 1
            return None
        return read(value)

    plain = dataset.with_format(None)[column] if numbers else plain_values(dataset, column)
    values = read_rows(plain, read_or_leave_open, column, place)
    open_rows = [row for row, value in enumerate(values) if value is None]
    if open_rows and complete:
        raise Refusal(
            f"Column `{column}` of {place} has no label in {row_at(place, open_rows[0])} ({len(open_rows)} such rows"
            f"{_listed(taken)}). Rounds are measured on labeled rows: name another `eval_split`, or remove these rows."
        )
    if told:
        _tell(place, taken, len(values))
        _tell_blanks(dataset, column, place)
    return with_label_column(dataset, column, values, targets)


def read_rows(values: Iterable[Any], read: Callable[[Any], Any], column: str, place: str) -> list[Any]:
    """Return what `read` makes of each value of `column`; where it refuses one, the message names the row."""
    found: list[Any] = []
    for row, value in enumerate(values):
        try:
            found.append(read(value))
        except ValueError as error:
            raise retold(error, f"Column `{column}` of {place}, {row_at(place, row)}: {error}") from None
    return found


def with_label_column(dataset: Dataset, column: str, values: list[Any], targets: Targets) -> Dataset:
    """Return `dataset` with `values` as its only column of labels, ``labels``, in the place of `column`."""
    # A second label column would reach the model: collators rename `label` to `labels`.
    others = [name for name in ("labels", "label") if name in dataset.column_names and name != column]
    renamed = dataset
    for name in others:
        renamed = renamed.rename_column(name, column_beside(name, renamed.column_names))
    return renamed.remove_columns(column).add_column("labels", values, feature=targets.feature)


class MissingNumber(float):
    """A number in a column of class numbers that stands for a missing one."""


@dataclass(frozen=True)
class Outside:
    """A number in a column of class numbers that is none of them; it must not be read as the name of one."""

    number: object

    def __repr__(self) -> str:
        return f"the class number {self.number}"


def plain_values(dataset: Dataset, column: str) -> Iterator[Any]:
    """Yield what `column` holds, class numbers as the names that its type declares for them."""
    feature = dataset.features[column]
    item = item_feature(feature)
    kind = feature if item is None else item
    values = dataset.with_format(None)[column]
    if not isinstance(kind, ClassLabel):
        yield from values
        return
    names = dict(enumerate(kind.names))

    def name(number: Any) -> Any:
        if number is None or (isinstance(number, int | float) and number in (MISSING_CLASS, MISSING)):
            return None if number is None else MissingNumber(number)
        return names.get(number, Outside(number))

    for value in values:
        yield [name(number) for number in value] if isinstance(value, list) else name(value)


def _place(classes: Classes, value: object) -> int:
    if isinstance(value, list):
        raise Refusal(f"found the list {value} among single labels. Write lists in every row, or in none.")
    try:
        return classes.place(value)
    except UnknownClass as error:
        raise UnknownClass(f"{error} Correct the row, or list every class in `class_names`.") from None


def _output(classes: Classes, outputs: Sequence[int], value: object) -> int:
    return outputs[_place(classes, value)]


def _set_of(classes: Classes, outputs: Sequence[int], value: object) -> list[float]:
    if not isinstance(value, list):
        raise Refusal(f"found {value!r} among lists of labels. Write lists in every row, or in none.")
    if value and not any(isinstance(item, str) for item in value):
        if len(value) != len(classes) or not set(value) <= {0, 1}:
            raise Refusal(f"found {value}. Write one 0 or 1 for each of the {len(classes)} classes, or their names.")
        chosen = {outputs[place] for place, item in enumerate(value) if item}
    else:
        chosen = {outputs[_place(classes, name)] for name in value}
    return [float(output in chosen) for output in range(len(classes))]


def _number(value: object) -> float:
    try:
        number = math.nan if isinstance(value, bool | list) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise Refusal(
            f"found {value!r}, which is not a number. Correct the row; for classes use a task of classification."
        )
    return number


def _shown_missing(value: object) -> str:
    if isinstance(value, MissingNumber):
        return plain_text(value)
    if value is None or value != value:
        return ""
    return "empty text" if isinstance(value, str) and not value.strip() else repr(value)


def _listed(taken: Mapping[str, int]) -> str:
    """Return what was taken for missing beside nothing at all, with how often."""
    found = [f"{count} times {value}" for value, count in taken.items() if value]
    return f": {', '.join(found)}" if found else ""


def _tell(place: str, taken: Mapping[str, int], size: int) -> None:
    if not taken:
        return
    classes = any(value.strip("'") in ("-1", "-100") for value in taken)
    remedy = " A number that is a class must be listed in `class_names`." if classes else ""
    logger.info(
        f"{sum(taken.values())} of {size} rows of {place} have no label yet: they stay unlabeled"
        f"{_listed(taken)}.{remedy}"
    )


def _tell_blanks(dataset: Dataset, column: str, place: str) -> None:
    if not is_text(dataset.features[column]):
        return
    found = sum(value is not None and value != value.strip() and bool(value.strip()) for value in dataset[column])
    if found:
        logger.info(f"{found} labels of {place} have blanks around them in `{column}`: these are taken off.")
