"""Read label columns of any form as classes, sets of classes or numbers; a missing label stays missing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from datasets import ClassLabel, Dataset, Value
from datasets import Sequence as SequenceFeature
from transformers.utils import logging

from ..files.shown_text import listed
from ..pool.columns import column_beside, declared_classes, is_text, item_feature
from ..pool.label_values import (
    MISSING,
    MISSING_CLASS,
    Classes,
    UnknownClass,
    classes_found,
    in_order,
    is_missing,
    plain_text,
)
from ..pool.places import Place, Source, row_at
from ..pool.problem_type import MULTI_LABEL as MULTI_LABEL
from ..pool.problem_type import REGRESSION as REGRESSION
from ..pool.problem_type import classes_of_config
from ..refusals import Refusal, retold
from ..settings.arguments import DataArguments

logger = logging.get_logger(__name__)

SINGLE_LABEL = "single_label_classification"


@dataclass(frozen=True)
class Targets:
    """What the output head predicts: the kind of problem and, for classes, their names in order."""

    problem_type: str
    class_names: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    """The classes as data and people listed them, for numbers in the data, where the model has another order."""

    @property
    def num_labels(self) -> int:
        """Return the number of outputs."""
        return len(self.class_names) or 1

    @property
    def feature(self) -> Any:
        """Return the feature of the column ``labels``."""
        if self.problem_type == REGRESSION:
            return Value("float32")
        if self.problem_type == MULTI_LABEL:
            return SequenceFeature(Value("float32"))
        return ClassLabel(names=list(self.class_names))

    def head(self) -> dict[str, Any]:
        """Return the fields of a model's configuration that describe its output head."""
        fields: dict[str, Any] = {"num_labels": self.num_labels, "problem_type": self.problem_type}
        if self.class_names:
            fields["id2label"] = dict(enumerate(self.class_names))
            fields["label2id"] = {name: index for index, name in enumerate(self.class_names)}
        return fields

    def arranged(self, names: Sequence[str]) -> Targets:
        """Return the same with the classes `names` first, in that order; those that are not among them follow."""
        ordered = (*names, *(name for name in self.class_names if name not in names))
        return replace(self, class_names=ordered, listed=self.listed or self.class_names)

    def in_data(self) -> tuple[str, ...]:
        """Return the classes in the order that numbers in the data count them by; later ones stand behind."""
        first = self.listed or self.class_names
        return (*first, *(name for name in self.class_names if name not in first))

    def outputs(self) -> list[int]:
        """Return the output of each class of `in_data`."""
        number = {name: output for output, name in enumerate(self.class_names)}
        return [number[name] for name in self.in_data()]


def read_classes(
    pool: Dataset, evaluation: dict[str, Dataset], column: str, class_names: Sequence[str] | None = None
) -> Targets:
    """Return the classes of `column`: `class_names`, else those of its ClassLabel, else every value that is found.

    Lists make it multi-label. Classes found are in the order of their names, numbers in numeric order.
    """
    parts = [pool, *evaluation.values()]
    values = [value for part in parts for value in _plain_values(part, column) if not isinstance(value, _Missing)]
    multi = any(isinstance(value, list) for value in values) or item_feature(pool.features[column]) is not None
    names = tidy_names(class_names) or declared_classes(pool.features[column])
    if names is None and multi:
        names = _found_in_lists([value for value in values if isinstance(value, list)], column)
    elif names is None:
        names = _found(values, column)
    if len(names) < (1 if multi else 2):
        raise Refusal(
            f"Column `{column}` has {len(names)} class{'' if len(names) == 1 else 'es'} ({listed(names, 12)}): nothing "
            "to tell apart. (Empty cells, -1 and -100 mean that a label is missing.) Name another `label_column`, or "
            "all classes with `class_names`."
        )
    return Targets(MULTI_LABEL if multi else SINGLE_LABEL, tuple(names))


def trained_classes(pool: Dataset, column: str, config: Any, class_names: Sequence[str] | None = None) -> Targets:
    """Return the classes that a trained model tells apart: `class_names`, those the data declares, else the model's."""
    multi = getattr(config, "problem_type", None) == MULTI_LABEL
    given = tidy_names(class_names) or declared_classes(pool.features[column])
    known = given or classes_of_config(config)
    if known is None:  # the model's names say nothing, such as LABEL_0
        try:
            return read_classes(pool, {}, column)
        except ValueError:
            known = [config.id2label[i] for i in range(config.num_labels)]
    targets = Targets(MULTI_LABEL if multi else SINGLE_LABEL, tuple(known))
    try:
        with_targets(pool, column, targets, "the pool", complete=False, told=False)
    except UnknownClass:
        if given:
            raise
        return read_classes(pool, {}, column)
    return targets


def tidy_names(names: Sequence[str] | None) -> list[str]:
    """Return the names of classes that somebody listed, without the blanks around them.

    Raises:
        ValueError: one is empty, or stands twice.
    """
    found = [str(name).strip() for name in names or ()]
    Classes(tuple(found))
    return found


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
    values: list[Any] = []
    open_rows: list[int] = []
    taken: Counter[str] = Counter()
    for row, value in enumerate(dataset.with_format(None)[column] if numbers else _plain_values(dataset, column)):
        if isinstance(value, _Missing) or (not isinstance(value, list) and is_missing(value, names)):
            open_rows.append(row)
            taken[_shown_missing(value)] += 1
            values.append(None)
            continue
        try:
            values.append(read(value))
        except ValueError as error:
            raise retold(error, f"Column `{column}` of {place}, {row_at(place, row)}: {error}") from None
    if open_rows and complete:
        raise Refusal(
            f"Column `{column}` of {place} has no label in {row_at(place, open_rows[0])} ({len(open_rows)} such rows"
            f"{_listed(taken)}). Rounds are measured on labeled rows: name another `eval_split`, or remove these rows."
        )
    if told:
        _tell(place, taken, len(values))
        _tell_blanks(dataset, column, place)
    return with_label_column(dataset, column, values, targets)


def with_label_column(dataset: Dataset, column: str, values: list[Any], targets: Targets) -> Dataset:
    """Return `dataset` with `values` as its only column of labels, ``labels``, in the place of `column`."""
    # A second label column would reach the model: collators rename `label` to `labels`.
    others = [name for name in ("labels", "label") if name in dataset.column_names and name != column]
    renamed = dataset
    for name in others:
        renamed = renamed.rename_column(name, column_beside(name, renamed.column_names))
    return renamed.remove_columns(column).add_column("labels", values, feature=targets.feature)


def by_place(pool: Dataset, evaluation: Mapping[str, Dataset], source: Source | None = None) -> dict[str, Dataset]:
    """Return all parts of the data under the names that messages have for them, the pool first."""
    return {
        Place("the pool", source): pool,
        **{f"the evaluation set {name}".rstrip(): part for name, part in evaluation.items()},
    }


@dataclass(frozen=True)
class LabelKind:
    """How a task reads the column of labels."""

    read: Callable[[Dataset, dict[str, Dataset], str, DataArguments], Targets]
    """(pool, evaluation sets, column, arguments) -> what the output head predicts."""
    trained: Callable[[Dataset, str, Any, DataArguments], Targets]
    """(pool, column, configuration of a trained model, arguments) -> what that model predicts."""
    apply: Callable[[Dataset, str, Targets, str, bool], Dataset] = with_targets
    """(data, column, targets, place, complete) -> the data with its labels in the column ``labels``."""


CLASSES = LabelKind(
    lambda pool, evaluation, column, arguments: read_classes(pool, evaluation, column, arguments.class_names),
    lambda pool, column, config, arguments: trained_classes(pool, column, config, arguments.class_names),
)
NUMBERS = LabelKind(
    lambda pool, evaluation, column, arguments: Targets(REGRESSION),
    lambda pool, column, config, arguments: Targets(REGRESSION),
)


class _Missing(float):
    """A number in a column of class numbers that stands for a missing one."""


@dataclass(frozen=True)
class Outside:
    """A number in a column of class numbers that is none of them; it must not be read as the name of one."""

    number: object

    def __repr__(self) -> str:
        return f"the class number {self.number}"


def _plain_values(dataset: Dataset, column: str) -> Iterator[Any]:
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
            return None if number is None else _Missing(number)
        return names.get(number, Outside(number))

    for value in values:
        yield [name(number) for number in value] if isinstance(value, list) else name(value)


def _found(values: Iterable[object], column: str) -> list[str]:
    """Return the names of the classes that are among `values`."""
    try:
        names = classes_found(values)
    except ValueError as error:
        raise Refusal(
            f"Column `{column}`: {error}. For a number to predict use `task: text_regression` or `task: "
            "tabular_regression`, or list the classes in `class_names`."
        ) from None
    if str(MISSING_CLASS) in names:
        logger.warning(
            f"Column `{column}`: -1 is taken to be a class, beside {listed(names[1:], 12)}. Where it means that a "
            "label is missing, leave the cell empty, or list the classes in `class_names`."
        )
    return names


def _found_in_lists(rows: Sequence[list[Any]], column: str) -> list[str]:
    """Return the classes of rows that are lists of class names, or vectors of 0 and 1 with one entry per class."""
    items = {item for row in rows for item in row if not is_missing(item, ())}  # told with their row when they are read
    if all(isinstance(item, str) for item in items):
        return in_order({item.strip() for item in items})
    if not items <= {0, 1}:
        raise Refusal(
            f"The lists of column `{column}` hold neither class names nor only 0 and 1 "
            f"(found {listed(sorted(items, key=str), 5)}). "
            "Write the names of the classes, or one 0 or 1 per class."
        )
    return [str(position) for position in range(max(map(len, rows)))]


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
    if isinstance(value, _Missing):
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
