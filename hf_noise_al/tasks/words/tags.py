"""Columns of tags, one class for each word of a row; a row without tags has no label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, Dataset
from datasets import Sequence as SequenceFeature
from transformers.utils import logging

from ...files.shown_text import listed
from ...pool.columns import declared_classes
from ...pool.label_reader import parse_tags
from ...pool.label_values import UnknownClass, in_order, is_missing
from ...pool.places import row_at
from ...pool.problem_type import classes_of_config
from ...refusals import Refusal
from ...settings.arguments import DataArguments
from ..label_column import Outside, read_rows, with_label_column
from ..label_kinds import LabelKind
from ..targets import Targets, by_place, tidy_names

logger = logging.get_logger(__name__)

TAGS = "token_classification"


@dataclass(frozen=True)
class TagTargets(Targets):
    """What the output head predicts: one of the classes for each word."""

    @property
    def feature(self) -> Any:
        """Return the feature of the column ``labels``."""
        return SequenceFeature(ClassLabel(names=list(self.class_names)))

    def head(self) -> dict[str, Any]:
        """Return the fields of a model's configuration that describe its output head."""
        return {**super().head(), "problem_type": None}  # the library has no name for it


def read_tags(pool: Dataset, evaluation: dict[str, Dataset], column: str, arguments: DataArguments) -> Targets:
    """Return the classes of the tags: `class_names`, else those the data declares, else every tag that is found.

    Tags found are in the order of their names; numbers, which index the classes, in numeric order from 0.
    """
    parts = by_place(pool, evaluation)
    names = tidy_names(arguments.class_names) or declared_classes(pool.features[column])
    if names is None:
        found = [tag for place, part in parts.items() for row in _rows(part, column, place, None) for tag in row or ()]
        names = _names(found)
    if len(names) < 2:
        raise Refusal(
            f"Column `{column}` has {len(names)} class{'' if len(names) == 1 else 'es'} of tags ({listed(names, 12)}): "
            "nothing to tell apart. Name another `label_column`, or all classes with `class_names`."
        )
    return TagTargets(TAGS, tuple(names))


def trained_tags(pool: Dataset, column: str, config: Any, arguments: DataArguments) -> Targets:
    """Return the tags that a trained model tells apart: `class_names`, those the data declares, else the model's."""
    given = tidy_names(arguments.class_names) or declared_classes(pool.features[column])
    own = [config.id2label[i] for i in range(config.num_labels)]
    names = given or own
    found = {tag for row in _rows(pool, column, "the pool", names) for tag in row or ()}
    try:
        parse_tags([tag for tag in found if tag is not None], names, None)
    except UnknownClass:  # the model's names say nothing, such as LABEL_0
        if given:
            raise
        return read_tags(pool, {}, column, arguments)
    if not given and classes_of_config(config) is None and any(isinstance(tag, str) for tag in found):
        return read_tags(pool, {}, column, arguments)
    return TagTargets(TAGS, tuple(names))


def with_tags(dataset: Dataset, column: str, targets: Targets, place: str, complete: bool) -> Dataset:
    """Return `dataset` with the tags of `column` as lists of class numbers, under the name ``labels``.

    A row without tags (None, an empty list, nothing but what stands for a missing class) has the label None; where
    labels must be `complete` it is refused, and so is a tag that is none of the classes.
    """
    names, outputs = targets.in_data(), targets.outputs()

    def read(tags: list[Any] | None) -> list[int] | None:
        return None if tags is None else [outputs[tag] for tag in parse_tags(tags, names, None)]

    values = read_rows(_rows(dataset, column, place, targets.class_names), read, column, place)
    missing = [row for row, value in enumerate(values) if value is None]
    if missing and complete:
        raise Refusal(
            f"Column `{column}` of {place} has no tags in {row_at(place, missing[0])} ({len(missing)} such rows). "
            "Rounds are measured on tagged rows: name another `eval_split`, or remove these rows."
        )
    if missing:
        logger.info(f"{len(missing)} of {len(values)} rows of {place} have no tags yet: they stay unlabeled.")
    return with_label_column(dataset, column, values, targets)


WORD_TAGS = LabelKind(read_tags, trained_tags, with_tags)


def _rows(dataset: Dataset, column: str, place: str, classes: Sequence[str] | None) -> list[list[Any] | None]:
    """Return the tags of each row as names where the data names them, else as they are; None where missing."""
    names = dict(enumerate(declared_classes(dataset.features[column]) or ()))
    known = () if classes is None or names else classes  # in a column of class numbers, -1 is none
    rows: list[list[Any] | None] = []
    for number, tags in enumerate(dataset.with_format(None)[column][:]):
        if tags is None or (isinstance(tags, list) and all(is_missing(tag, known) for tag in tags)):
            rows.append(None)
        elif isinstance(tags, list):
            rows.append([tag if not names or is_missing(tag, ()) else names.get(tag, Outside(tag)) for tag in tags])
        else:
            raise Refusal(
                f"Column `{column}` of {place}, {row_at(place, number)}: found {tags!r}, not a list of tags. Store "
                "a list with one tag for each word, or name another `label_column`."
            )
    return rows


def _names(found: Sequence[Any]) -> list[str]:
    """Return the names of all tags in `found`: text as it is, numbers from 0 to the highest."""
    numbers = [tag for tag in found if isinstance(tag, int | float) and not is_missing(tag, ())]
    if any(isinstance(tag, str) for tag in found) or not numbers:
        return in_order({tag.strip() for tag in found if isinstance(tag, str) and not is_missing(tag, ())})
    return [str(number) for number in range(int(max(numbers)) + 1)]
