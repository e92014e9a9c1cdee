"""How a task finds out what its labels are: classes of a column, those of a trained model, or numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers.utils import logging

from ..files.shown_text import listed
from ..pool.columns import declared_classes, item_feature
from ..pool.label_values import MISSING_CLASS, UnknownClass, classes_found, in_order, is_missing
from ..pool.problem_type import MULTI_LABEL, REGRESSION, classes_of_config
from ..refusals import Refusal
from ..settings.arguments import DataArguments
from .label_column import MissingNumber, plain_values, with_targets
from .targets import SINGLE_LABEL, Targets, tidy_names

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class LabelKind:
    """How a task reads the column of labels."""

    read: Callable[[Dataset, dict[str, Dataset], str, DataArguments], Targets]
    """(pool, evaluation sets, column, arguments) -> what the output head predicts."""
    trained: Callable[[Dataset, str, Any, DataArguments], Targets]
    """(pool, column, configuration of a trained model, arguments) -> what that model predicts."""
    apply: Callable[[Dataset, str, Targets, str, bool], Dataset] = with_targets
    """(data, column, targets, place, complete) -> the data with its labels in the column ``labels``."""


def read_classes(
    pool: Dataset, evaluation: dict[str, Dataset], column: str, class_names: Sequence[str] | None = None
) -> Targets:
    """Return the classes of `column`: `class_names`, else those of its ClassLabel, else every value that is found.

    Lists make it multi-label. Classes found are in the order of their names, numbers in numeric order.
    """
    parts = [pool, *evaluation.values()]
    values = [value for part in parts for value in plain_values(part, column) if not isinstance(value, MissingNumber)]
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


CLASSES = LabelKind(
    lambda pool, evaluation, column, arguments: read_classes(pool, evaluation, column, arguments.class_names),
    lambda pool, column, config, arguments: trained_classes(pool, column, config, arguments.class_names),
)
NUMBERS = LabelKind(
    lambda pool, evaluation, column, arguments: Targets(REGRESSION),
    lambda pool, column, config, arguments: Targets(REGRESSION),
)
