"""Answers of people to the labels that a pool keeps, and labels back to the names that people and files use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from ..refusals import Refusal, retold
from .label_values import Classes, is_missing, number_in
from .pool import Label
from .problem_type import MULTI_LABEL, REGRESSION


@dataclass(frozen=True)
class LabelReader:
    """Read the labels of one data set for one model.

    The pool keeps class numbers, a tag list as class numbers, several classes as a list of 0.0 and 1.0, a number as a
    float. Answers are read by the rules of `hf_noise_al.pool.label_values`.
    """

    names: tuple[str, ...] | None = None
    """Names of the classes, where labels are classes that have names."""
    num_labels: int | None = None
    """How many outputs the model has, where it says so."""
    problem_type: str | None = None
    """As in the model's configuration."""
    tags: bool = False
    """Whether a label is a list with a class for each word."""
    is_list: bool | None = None
    """Whether the label column holds lists; None where there is none."""
    one_answer: bool = False
    """Whether the model is known to answer for whole rows, not for their words or pixels."""
    read_answer: Callable[[int, object], Label] | None = None
    """``(row, answer) -> label``, where answers are neither classes nor numbers."""
    classes: Classes | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", None if self.names is None else Classes(self.names))

    def read(self, row: int, answer: object, num_words: Mapping[int, int] | None = None) -> Label:
        """Return the label that `answer` gives to `row`.

        Args:
            row: The row, for `read_answer`.
            answer: A class by name or number, a number, or a list of them.
            num_words: How many words the rows have, where each needs a tag.

        Raises:
            ValueError: it is missing, or not of this form.
        """
        if self.read_answer is not None:
            return self.read_answer(row, answer)
        plain = answer.tolist() if hasattr(answer, "tolist") else answer
        if self.tags:
            return parse_tags(plain, self.names or (), (num_words or {}).get(row))
        if self.problem_type == MULTI_LABEL:
            return self._several(plain)
        if self.problem_type != REGRESSION and self.classes is not None and not isinstance(plain, list | tuple):
            return self._place(plain)
        return self._numbers(plain)

    def restore(self, row: int, label: object) -> Label:
        """Check a label that is in the pool's form already, from a column or a state, and return it.

        Raises:
            ValueError: it is no such label.
        """
        plain = label.tolist() if hasattr(label, "tolist") else label
        if self.read_answer is not None or isinstance(plain, str):
            return self.read(row, plain)
        if self.tags:
            return _tag_numbers(plain, self.names or ())
        return self._numbers(plain)

    def spell(self, label: Label | None) -> object:
        """Return a label of the pool as people write it: with the names of classes, where they have names."""
        if self.names is None or isinstance(label, str) or label is None:
            return label
        if self.tags and isinstance(label, list):
            return [self.names[int(tag)] for tag in label]
        if self.problem_type == MULTI_LABEL and isinstance(label, list):
            return [name for name, chosen in zip(self.names, label, strict=True) if chosen]
        if isinstance(label, list) or self.problem_type in (MULTI_LABEL, REGRESSION):
            return label
        return self.names[int(label)]

    def _several(self, plain: object) -> Label:
        """Return a multi-label answer, a list of names or one 0 or 1 per class, as one 0.0 or 1.0 per class."""
        if not isinstance(plain, list | tuple):
            raise Refusal(self._no_classes(plain))
        if all(isinstance(item, str) for item in plain) and (plain or self.classes is not None):
            if self.classes is None:
                raise Refusal(self._no_classes(plain))
            chosen = {self._place(item) for item in plain}
            return [float(place in chosen) for place in range(len(self.classes))]
        if len(plain) != self.num_labels or any(isinstance(item, str) or item not in (0, 1) for item in plain):
            raise Refusal(self._no_classes(plain))
        return [float(item) for item in plain]

    def _place(self, name: object) -> int:
        assert self.classes is not None
        try:
            return self.classes.place(name)
        except ValueError as error:
            raise retold(error, f"the label {error}") from None

    def _no_classes(self, plain: object) -> str:
        named = "the names of its classes, or " if self.classes is not None else ""
        return (
            f"the label {plain!r} is not a list of {named}{self.num_labels} numbers 0 or 1, one per class. "
            "An empty list of names says that it has none of the classes."
        )

    def _numbers(self, plain: object) -> Label:
        """Return a number, or a list of numbers, that fits the model."""
        if isinstance(plain, str):
            plain = self._number_in(plain)
        if isinstance(plain, list | tuple) and plain and all(isinstance(value, int | float) for value in plain):
            plain = list(plain)
        elif isinstance(plain, bool) or not isinstance(plain, int | float):
            raise Refusal(f"the label {plain!r} is not a number, a list of numbers or the name of a class.")
        if is_missing(plain):
            raise Refusal(f"the label {plain!r} stands for a missing label.")
        if not all(_is_finite(value) for value in (plain if isinstance(plain, list) else [plain])):
            raise Refusal(f"the label {plain!r} is not finite.")
        if self.problem_type == MULTI_LABEL:
            return self._several(plain)
        if self.problem_type == REGRESSION:
            return self._on_a_scale(plain)
        if isinstance(plain, list):
            self._refuse_list(plain)
        elif self.num_labels is not None:
            if plain != plain // 1 or not 0 <= plain < self.num_labels:
                raise Refusal(f"the label {plain!r} is outside the model's {self.num_labels} classes.")
            plain = int(plain)
        return plain

    def _number_in(self, text: str) -> float:
        if self.problem_type == REGRESSION:
            try:
                return float(text)
            except ValueError:
                raise Refusal(self._no_number(text)) from None
        number = number_in(text.strip())
        if number is None:
            raise Refusal(self._no_number(text))
        return int(number) if number == int(number) else float(number)

    def _no_number(self, plain: str) -> str:
        if not plain.strip():
            return f"the label {plain!r} stands for a missing label."
        if self.problem_type == REGRESSION:
            return f"the label {plain!r} is not a number. Write it with a decimal point, such as 3.5."
        return f"the label {plain!r} is not a known class. Encode them with `class_encode_column` first."

    def _on_a_scale(self, plain: float | list[float]) -> Label:
        """Return a number as a float, or as many as the model has outputs; their form is that of the label column."""
        listed = bool(self.is_list) or (self.is_list is None and (self.num_labels or 1) > 1)
        count = self.num_labels
        if isinstance(plain, list) != listed or (isinstance(plain, list) and len(plain) != (count or len(plain))):
            wanted = f"a list of {count} numbers, one per output" if listed else "one number"
            raise Refusal(f"the label {plain!r} is not {wanted}.")
        return [float(value) for value in plain] if isinstance(plain, list) else float(plain)

    def _refuse_list(self, plain: list[float]) -> None:
        """Refuse a list where a class is wanted; lists of floats, one per class, let models choose several classes."""
        fits = len(plain) == self.num_labels and all(isinstance(value, float) for value in plain)
        several = self.problem_type is None and fits
        if self.is_list is False or self.problem_type is not None or (self.one_answer and not several):
            raise Refusal(
                f"the label {plain!r} is a list, and the model takes one of {self.num_labels} classes for each row. "
                "Give its name; for several at once set the model's `problem_type` to 'multi_label_classification'."
            )


def parse_tags(label: object, names: Sequence[str], num_words: int | None) -> list[int]:
    """Return the tags of a row as class numbers.

    Args:
        label: A list with the name of a class, or its number where no name is a number, for each word.
        names: Of the classes, in order.
        num_words: How many words the row has; None where nobody knows.

    Raises:
        ValueError: not a list, of another length, or with something that is no class.
    """
    plain = label.tolist() if hasattr(label, "tolist") else label
    if not isinstance(plain, list | tuple):
        raise Refusal(f"{plain!r} is not a list of tags. Give a list with one tag for each word.")
    if num_words is not None and len(plain) != num_words:
        raise Refusal(f"found {len(plain)} tags for {num_words} words. Give one tag for each word.")
    classes, tags = _classes(tuple(names)), []
    for word, tag in enumerate(plain):
        try:
            tags.append(classes.place(tag))
        except ValueError as error:
            raise retold(error, f"the tag of word {word}: {error}") from None
    return tags


@lru_cache(maxsize=8)
def _classes(names: tuple[str, ...]) -> Classes:
    return Classes(names)


def _tag_numbers(tags: object, names: Sequence[str]) -> list[int]:
    """Return tags that are numbers of classes already; names among them are read as answers are."""
    if not isinstance(tags, list | tuple) or any(isinstance(tag, str) for tag in tags):
        return parse_tags(tags, names, None)
    for word, tag in enumerate(tags):
        if isinstance(tag, bool) or not isinstance(tag, int | float) or tag % 1 or not 0 <= tag < len(names):
            raise Refusal(f"the tag of word {word}: {tag!r} is outside the {len(names)} classes.")
    return [int(tag) for tag in tags]


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number too large for a float
        return False
