"""Read label columns of any form as classes, sets of classes or numbers; a missing label stays missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, Dataset, Value
from datasets import Sequence as SequenceFeature
from transformers.utils import logging

from ..arguments import DataArguments
from ..labeled_split import item_feature
from ..recipe import did_you_mean
from ..shown_text import listed, one_line

logger = logging.get_logger(__name__)

SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"
_MISSING_CLASSES = (-1, -100)
_MISSING_NUMBER = -100  # what the trainer takes as missing, in any column


@dataclass(frozen=True)
class Targets:
    """What the output head predicts: the kind of problem and, for classes, their names in order."""

    problem_type: str
    class_names: tuple[str, ...] = ()

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


def read_classes(
    pool: Dataset, evaluation: dict[str, Dataset], column: str, class_names: Sequence[str] | None = None
) -> Targets:
    """Return the classes of `column`: `class_names`, else those of its ClassLabel, else every value that is found.

    Lists make it multi-label. Classes found are in the order of their names, numbers in numeric order.
    """
    parts = [pool, *evaluation.values()]
    values = [_class_values(part, column) for part in parts]
    known = [value for part in values for value in part if value is not None]
    multi = any(isinstance(value, list) for value in known) or item_feature(pool.features[column]) is not None
    names = list(class_names) if class_names else _declared(pool.features[column])
    if names is None and multi:
        names = _found_in_lists([value for value in known if isinstance(value, list)], column)
    elif names is None:
        names = _in_order(set(known))
    if len(names) < (1 if multi else 2):
        raise ValueError(
            f"Column `{column}` has {len(names)} class{'' if len(names) == 1 else 'es'} ({listed(names, 12)}): nothing "
            "to tell apart. (-1 and -100 mean that a label is missing.) Name another `label_column`, or all classes "
            "with `class_names`."
        )
    return Targets(MULTI_LABEL if multi else SINGLE_LABEL, tuple(names))


def trained_classes(pool: Dataset, column: str, config: Any, class_names: Sequence[str] | None = None) -> Targets:
    """Return the classes that a trained model tells apart: `class_names`, those the data declares, else the model's."""
    names = class_names or _declared(pool.features[column]) or [config.id2label[i] for i in range(config.num_labels)]
    found = {
        name
        for value in _class_values(pool, column)
        for name in (value if isinstance(value, list) else [value])
        if isinstance(name, str)
    }
    if not found <= set(names):  # the model's names say nothing, such as LABEL_0
        return read_classes(pool, {}, column, class_names)
    multi = getattr(config, "problem_type", None) == MULTI_LABEL
    return Targets(MULTI_LABEL if multi else SINGLE_LABEL, tuple(names))


def with_targets(dataset: Dataset, column: str, targets: Targets, place: str, complete: bool) -> Dataset:
    """Return `dataset` with `column` read as `targets`, under the name ``labels``.

    A missing label (None, NaN, -100, -1 as a class) is None; where the labels must be `complete` it is refused.
    """
    if targets.problem_type == REGRESSION:
        values: list[Any] = [_number(value, column, row, place) for row, value in enumerate(dataset[column])]
    else:
        index = {name: position for position, name in enumerate(targets.class_names)}
        encode = _encode_set if targets.problem_type == MULTI_LABEL else _encode_class
        values = [
            None if value is None else encode(value, index, f"Column `{column}` of {place}, row {row}")
            for row, value in enumerate(_class_values(dataset, column))
        ]
    missing = [row for row, value in enumerate(values) if value is None]
    if missing and complete:
        raise ValueError(
            f"Column `{column}` of {place} has no label in row {missing[0]} ({len(missing)} such rows; None, -1 and "
            "-100 mean missing). Rounds are measured on labeled rows: name another `eval_split`, or remove these rows."
        )
    if missing:
        logger.info(f"{len(missing)} of {len(values)} rows of {place} have no label yet: they stay unlabeled.")
    return with_label_column(dataset, column, values, targets)


def with_label_column(dataset: Dataset, column: str, values: list[Any], targets: Targets) -> Dataset:
    """Return `dataset` with `values` as its only column of labels, ``labels``, in the place of `column`."""
    # A second label column would reach the model: collators rename `label` to `labels`.
    replaced = [name for name in dict.fromkeys((column, "labels", "label")) if name in dataset.column_names]
    return dataset.remove_columns(replaced).add_column("labels", values, feature=targets.feature)


def by_place(pool: Dataset, evaluation: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Return all parts of the data under the names that messages have for them, the pool first."""
    return {"the pool": pool, **{f"the evaluation set {name}".rstrip(): part for name, part in evaluation.items()}}


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


def _class_values(dataset: Dataset, column: str) -> list[Any]:
    """Return the labels of `column` as class names, lists of class names or of 0 and 1, or None where missing."""
    feature = dataset.features[column]
    item = item_feature(feature)
    if item is not None:
        read = item.int2str if isinstance(item, ClassLabel) else (lambda value: value)
        return [row if row is None else [read(value) for value in row] for row in dataset[column]]
    if isinstance(feature, ClassLabel):
        names = dict(enumerate(feature.names))
        return [
            None if value is None or value in _MISSING_CLASSES else names.get(value, str(value))
            for value in dataset[column]
        ]
    return [_class_name(value, column, row) for row, value in enumerate(dataset[column])]


def _class_name(value: object, column: str, row: int) -> str | list[Any] | None:
    if value is None or isinstance(value, (str, list)):
        return value
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, (int, float)) and value == int(value):
        return None if value in _MISSING_CLASSES else str(int(value))
    raise ValueError(
        f"Column `{column}`, row {row}: {value!r} is no class. Classes are whole numbers or text; for a number to "
        "predict use `task: text_regression` or `task: tabular_regression`."
    )


def _declared(feature: Any) -> list[str] | None:
    item = item_feature(feature)
    found = feature if item is None else item
    return list(found.names) if isinstance(found, ClassLabel) else None


def _in_order(names: set[str]) -> list[str]:
    if all(name.removeprefix("-").isdigit() for name in names):
        return sorted(names, key=int)
    return sorted(names)


def _found_in_lists(rows: Sequence[list[Any]], column: str) -> list[str]:
    """Return the classes of rows that are lists of class names, or vectors of 0 and 1 with one entry per class."""
    items = {item for row in rows for item in row}
    if all(isinstance(item, str) for item in items):
        return _in_order(items)
    if not items <= {0, 1}:
        raise ValueError(
            f"The lists of column `{column}` hold neither class names nor only 0 and 1 "
            f"(found {sorted(items, key=str)[:5]}). "
            "Write the names of the classes, or one 0 or 1 per class."
        )
    return [str(position) for position in range(max(map(len, rows)))]


def _encode_class(value: object, index: dict[str, int], where: str) -> int:
    if isinstance(value, list):
        raise ValueError(f"{where}: found the list {value} among single labels. Write lists in every row, or in none.")
    if value not in index:
        raise _outside(str(value), index, where)
    return index[str(value)]


def _encode_set(value: object, index: dict[str, int], where: str) -> list[float]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: found {value!r} among lists of labels. Write lists in every row, or in none.")
    if value and not isinstance(value[0], str):
        if len(value) != len(index) or not set(value) <= {0, 1}:
            raise ValueError(f"{where}: found {value}. Write one 0 or 1 for each of the {len(index)} classes.")
        return [float(item) for item in value]
    for name in value:
        if name not in index:
            raise _outside(name, index, where)
    return [float(name in value) for name in index]


def _outside(name: str, index: dict[str, int], where: str) -> ValueError:
    near = did_you_mean(name, list(index))
    return ValueError(
        f"{where}: `{one_line(name)}` is outside the {len(index)} classes ({listed(index, 10)}).{near} "
        "Correct the row, or list every class in `class_names`."
    )


def _number(value: object, column: str, row: int, place: str) -> float | None:
    if value is None or value == _MISSING_NUMBER or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isinf(value):
        raise ValueError(
            f"Column `{column}` of {place} is not a number in row {row}: found {value!r}. "
            "Correct the row; for classes use a task of classification."
        )
    return float(value)
