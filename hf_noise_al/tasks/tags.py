"""Read columns of tags, one class for each word of a row; a row that is not tagged stays without label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, Dataset
from datasets import Sequence as SequenceFeature
from transformers.utils import logging

from ..arguments import DataArguments
from ..labeled_split import item_feature, parse_tags
from ..shown_text import listed
from .targets import LabelKind, Targets, by_place, with_label_column

logger = logging.get_logger(__name__)

TAGS = "token_classification"
_MISSING = (None, -1, -100)


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
    found = [tag for place, part in parts.items() for row in _rows(part, column, place) for tag in row or ()]
    names = list(arguments.class_names or _declared(pool, column) or _names(found))
    if len(names) < 2:
        raise ValueError(
            f"Column `{column}` has {len(names)} class{'' if len(names) == 1 else 'es'} of tags ({listed(names, 12)}): "
            "nothing to tell apart. Name another `label_column`, or all classes with `class_names`."
        )
    return TagTargets(TAGS, tuple(names))


def trained_tags(pool: Dataset, column: str, config: Any, arguments: DataArguments) -> Targets:
    """Return the tags that a trained model tells apart: `class_names`, those the data declares, else the model's."""
    own = [config.id2label[i] for i in range(config.num_labels)]
    names = arguments.class_names or _declared(pool, column) or own
    found = {tag for row in _rows(pool, column, "the pool") for tag in row or () if isinstance(tag, str)}
    if not found <= set(names):  # the model's names say nothing, such as LABEL_0
        return read_tags(pool, {}, column, arguments)
    return TagTargets(TAGS, tuple(names))


def with_tags(dataset: Dataset, column: str, targets: Targets, place: str, complete: bool) -> Dataset:
    """Return `dataset` with the tags of `column` as lists of class numbers, under the name ``labels``.

    A row without tags (None, an empty list, all -1 or -100) has the label None; where labels must be `complete` it is
    refused, and so is a tag that is none of the classes.
    """
    values: list[list[int] | None] = []
    for row, tags in enumerate(_rows(dataset, column, place)):
        try:
            values.append(None if tags is None else parse_tags(tags, targets.class_names, None))
        except ValueError as error:
            raise ValueError(f"Column `{column}` of {place}, row {row}: {error}") from None
    missing = [row for row, value in enumerate(values) if value is None]
    if missing and complete:
        raise ValueError(
            f"Column `{column}` of {place} has no tags in row {missing[0]} ({len(missing)} such rows). Rounds are "
            "measured on tagged rows: name another `eval_split`, or remove these rows."
        )
    if missing:
        logger.info(f"{len(missing)} of {len(values)} rows of {place} have no tags yet: they stay unlabeled.")
    return with_label_column(dataset, column, values, targets)


WORD_TAGS = LabelKind(read_tags, trained_tags, with_tags)


def _rows(dataset: Dataset, column: str, place: str) -> list[list[Any] | None]:
    """Return the tags of each row as names where the data names them, else as they are; None where missing."""
    names = dict(enumerate(_declared(dataset, column) or ()))
    rows: list[list[Any] | None] = []
    for number, tags in enumerate(dataset.with_format(None)[column][:]):
        if tags is None or (isinstance(tags, list) and all(tag in _MISSING for tag in tags)):
            rows.append(None)
        elif isinstance(tags, list):
            rows.append([names.get(tag, tag) for tag in tags])
        else:
            raise ValueError(
                f"Column `{column}` of {place}, row {number}: found {tags!r}, not a list of tags. Store a list with "
                "one tag for each word, or name another `label_column`."
            )
    return rows


def _declared(dataset: Dataset, column: str) -> list[str] | None:
    item = item_feature(dataset.features[column])
    return list(item.names) if isinstance(item, ClassLabel) else None


def _names(found: Sequence[Any]) -> list[str]:
    """Return the names of all tags in `found`: text as it is, numbers from 0 to the highest."""
    numbers = [tag for tag in found if not isinstance(tag, str)]
    if not numbers:
        return sorted(set(found))
    return [str(number) for number in range(int(max(number for number in numbers if number is not None)) + 1)]
