"""What an output head predicts: the kind of problem and, for classes, their names in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasets import ClassLabel, Dataset, Value
from datasets import Sequence as SequenceFeature

from ..pool.label_values import Classes
from ..pool.places import Place, Source
from ..pool.problem_type import MULTI_LABEL, REGRESSION

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


def tidy_names(names: Sequence[str] | None) -> list[str]:
    """Return the names of classes that somebody listed, without the blanks around them.

    Raises:
        ValueError: one is empty, or stands twice.
    """
    found = [str(name).strip() for name in names or ()]
    Classes(tuple(found))
    return found


def by_place(pool: Dataset, evaluation: Mapping[str, Dataset], source: Source | None = None) -> dict[str, Dataset]:
    """Return all parts of the data under the names that messages have for them, the pool first."""
    return {
        Place("the pool", source): pool,
        **{f"the evaluation set {name}".rstrip(): part for name, part in evaluation.items()},
    }
