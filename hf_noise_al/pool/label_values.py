"""What a label is: which values stand for a missing one, and which class an answer names. The rules stand here alone.

| value | read as |
| --- | --- |
| None, NaN, -100, an empty or blank text | missing |
| -1 | the class of that name; a number, where numbers are predicted; else missing |
| ``[]`` | none of the classes, where a row may have several; no tags, where each word needs one |
| text, without the blanks around it | the class of that name; else as the number that it is |
| a number | the class whose name is that number; where no name is a number, the class at this place, from 0 |
| true, false | the class called so, in whatever case; of the classes True and False, 1 and 0 are these |
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from ..files.shown_text import listed, one_line
from ..refusals import Refusal

_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]{1,300})?")
MISSING, MISSING_CLASS = -100, -1
"""What the trainer takes as missing in any column, and what data sets write for a missing class."""


class UnknownClass(Refusal):
    """An answer names a class that does not exist."""


def is_missing(value: object, names: Collection[str] | None = None) -> bool:
    """Return whether `value` stands for a missing label.

    A list does where it is empty, has a None, or has nothing but what stands for a missing label.

    Args:
        value: A label as plain Python, or one item of a list.
        names: The classes, where labels are classes; None where they are numbers, or nobody knows.
    """
    if isinstance(value, list | tuple):
        return any(item is None for item in value) or all(is_missing(item, names) for item in value)
    if value is None or isinstance(value, bool):
        return value is None
    if isinstance(value, str):
        text = value.strip()
        number = number_in(text)
        return not text or (number is not None and _is_missing_number(number, text, names))
    if isinstance(value, int | float):
        return value != value or _is_missing_number(value, plain_text(value), names)
    return False


def number_in(text: str) -> Decimal | None:
    """Return the number that `text` is, written with the digits 0 to 9; None where it is none.

    Example:
        >>> number_in("-3.50"), number_in("1e3"), number_in("four")
        (Decimal('-3.50'), None, None)
    """
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def plain_text(value: float) -> str:
    """Return a number as a class of that name is called: whole numbers without a decimal point.

    Example:
        >>> plain_text(4.0), plain_text(3.5)
        ('4', '3.5')
    """
    return str(int(value)) if isinstance(value, int) or value.is_integer() else str(value)


def numbers_have_minus_one(names: Collection[str]) -> bool:
    """Return whether -1 is a class among `names` that were found in data.

    It is one where all are numbers and those below zero mirror those above: sentiment -1, 0, 1, or -1 against 1.

    Example:
        >>> numbers_have_minus_one({"-1", "0", "1"}), numbers_have_minus_one({"-1", "0", "1", "2"})
        (True, False)
    """
    numbers = [number_in(name) for name in names]
    known = [number for number in numbers if number is not None]
    below = {-number for number in known if number < 0}
    return len(known) == len(numbers) and below == {number for number in known if number > 0}


@dataclass(frozen=True)
class Classes:
    """The names of the classes, in the order of the model's outputs.

    Raises:
        ValueError: a name is empty, or stands twice; blanks around names do not count.
    """

    names: tuple[str, ...]
    _places: dict[str, int] = field(init=False, repr=False, compare=False)
    _numbers: dict[Decimal, list[int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        places: dict[str, int] = {}
        numbers: dict[Decimal, list[int]] = {}
        for place, name in enumerate(self.names):
            tidy = name.strip()
            if not tidy or tidy in places:
                found = f"the name {tidy!r} stands twice" if tidy else f"a name is empty ({name!r})"
                raise Refusal(f"Cannot use the classes {listed(self.names, 12)}: {found}. Give each its own name.")
            places[tidy] = place
            number = number_in(tidy)
            if number is not None:
                numbers.setdefault(number, []).append(place)
        object.__setattr__(self, "_places", places)
        object.__setattr__(self, "_numbers", numbers)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_numbers(self) -> bool:
        """Whether a class is called by a number, so that numbers are names."""
        return bool(self._numbers)

    def place(self, answer: object) -> int:
        """Return the place, from 0, of the class that `answer` names, by the table above.

        Raises:
            ValueError: it names none, or is missing.
        """
        if isinstance(answer, str):
            text = answer.strip()
            found = self._places.get(text)
            if found is not None:
                return found
            if text.lower() in ("true", "false"):
                return self._place_of_truth(text, answer)
            number = number_in(text)
            if number is None:
                raise self._unknown(answer)
            return self._place_of_number(number, text, answer)
        if isinstance(answer, bool):
            return self._place_of_truth(str(answer), answer)
        if isinstance(answer, int) or (isinstance(answer, float) and math.isfinite(answer)):
            text = plain_text(answer)
            found = self._places.get(text)
            return self._place_of_number(Decimal(text), text, answer) if found is None else found
        raise self._unknown(answer)

    def _place_of_number(self, number: Decimal, text: str, answer: object) -> int:
        named = self._numbers.get(number, [])
        if len(named) == 1:
            return named[0]
        if _is_missing_number(number, text, self._places):
            raise Refusal(f"{answer!r} stands for a missing label.")
        if self._numbers or not 0 <= number < len(self.names) or number % 1:
            raise self._unknown(answer)
        if {name.lower() for name in self._places} == {"true", "false"}:
            return self._place_of_truth(str(bool(number)), answer)
        return int(number)

    def _place_of_truth(self, text: str, answer: object) -> int:
        found = [place for name, place in self._places.items() if name.lower() == text.lower()]
        if len(found) != 1:
            raise self._unknown(answer)
        return found[0]

    def _unknown(self, answer: object) -> Refusal:
        if is_missing(answer, self._places):
            return Refusal(f"{answer!r} stands for a missing label.")
        near = difflib.get_close_matches(str(answer).strip(), list(self._places), 1)
        meant = f" Did you mean {one_line(repr(near[0]))}?" if near else ""
        numbers = " A number is a name here." if self._numbers and not isinstance(answer, str) else ""
        shown = one_line(repr(answer))
        return UnknownClass(f"{shown} is not a known class.{meant}{numbers} Classes are {listed(self.names, 12)}.")


def in_order(names: Collection[str]) -> list[str]:
    """Return the names of classes that were found, whole numbers by their value, others by the alphabet."""
    numbers = [number_in(name) for name in names]
    if all(number is not None and number == int(number) for number in numbers):
        return sorted(names, key=lambda name: (int(Decimal(name)), name))
    return sorted(names)


def classes_found(values: Iterable[object]) -> list[str]:
    """Return the names of the classes among `values`, in order; `numbers_have_minus_one` decides about -1.

    Raises:
        ValueError: a number is no whole one.
    """
    names: set[str] = set()
    for value in values:
        if isinstance(value, str | bool):
            names.add(str(value).strip())
        elif isinstance(value, int | float) and value == value:
            if isinstance(value, float) and not value.is_integer():
                raise Refusal(f"{value!r} is no class: classes are whole numbers or text")
            names.add(plain_text(value))
    ordered = in_order(names - {"", str(MISSING)})
    if str(MISSING_CLASS) in names and not numbers_have_minus_one(ordered):
        ordered.remove(str(MISSING_CLASS))
    return ordered


def _is_missing_number(number: float | Decimal, text: str, names: Collection[str] | None) -> bool:
    if number == MISSING:
        return names is None or text not in names
    return number == MISSING_CLASS and names is not None and text not in names
