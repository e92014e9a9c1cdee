"""Answers of people as labels of the pool, and back to what people write."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise_al.pool.label_reader import LabelReader, parse_tags
from hf_noise_al.pool.label_values import UnknownClass
from hf_noise_al.pool.problem_type import MULTI_LABEL, REGRESSION, classes_of_config

STARS = ("1", "2", "3", "4", "5")
SEVERAL = LabelReader(("toxic", "spam", "1"), 3, MULTI_LABEL)
NUMBER = LabelReader(None, 1, REGRESSION)
TAGS = LabelReader(("O", "B", "I"), 3, tags=True)


def test_a_number_is_a_name_where_names_are_numbers() -> None:
    reader = LabelReader(STARS, 5)
    assert [reader.read(0, answer) for answer in (4, "4", 2, np.int64(1))] == [3, 3, 1, 0]
    assert [reader.spell(label) for label in (3, 1, 0)] == ["4", "2", "1"]
    with pytest.raises(UnknownClass, match="the label 0 is not a known class. A number is a name here"):
        reader.read(0, 0)


def test_what_the_pool_keeps_is_restored_by_number() -> None:
    assert LabelReader(STARS, 5).restore(0, 4) == 4
    assert LabelReader(STARS, 5).restore(0, "4") == 3
    assert TAGS.restore(0, [2.0, 0]) == [2, 0]
    assert LabelReader(("1", "2"), 2, tags=True).restore(0, [1, 0]) == [1, 0]
    assert SEVERAL.restore(0, [0, 1, 1]) == [0.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="outside the model's 5 classes"):
        LabelReader(STARS, 5).restore(0, 5)
    with pytest.raises(ValueError, match="the tag of word 0: 3 is outside the 3 classes"):
        TAGS.restore(0, [3])


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (["spam"], [0.0, 1.0, 0.0]),
        (["1", " toxic "], [1.0, 0.0, 1.0]),
        ([], [0.0, 0.0, 0.0]),
        ([0, 1, 1], [0.0, 1.0, 1.0]),
        (np.array([1.0, 0.0, 0.0]), [1.0, 0.0, 0.0]),
        ([False, True, False], [0.0, 1.0, 0.0]),
    ],
)
def test_several_classes_are_names_or_a_vector(answer: Any, label: list[float]) -> None:
    assert SEVERAL.read(0, answer) == label


def test_several_classes_are_written_as_names() -> None:
    assert SEVERAL.spell([1.0, 0.0, 1.0]) == ["toxic", "1"]
    assert SEVERAL.spell([0.0, 0.0, 0.0]) == []


@pytest.mark.parametrize("answer", [1, "spam", None, [1], [0, 1, 2], [0.5, 0, 0], ["spam", 1], [None], [[0, 1, 1]], {}])
def test_what_is_neither_names_nor_a_vector_is_refused(answer: Any) -> None:
    with pytest.raises(ValueError, match="is not a list of the names of its classes, or 3 numbers 0 or 1"):
        SEVERAL.read(0, answer)


def test_an_unknown_name_among_several_is_refused() -> None:
    with pytest.raises(UnknownClass, match="the label 'spma' is not a known class. Did you mean 'spam'"):
        SEVERAL.read(0, ["toxic", "spma"])


@pytest.mark.parametrize(
    ("answer", "label"), [(3, 3.0), ("3.5", 3.5), (" -2 ", -2.0), ("1e3", 1000.0), (-1, -1.0), (np.float32(0.5), 0.5)]
)
def test_numbers_may_be_typed_as_text(answer: Any, label: float) -> None:
    found = NUMBER.read(0, answer)
    assert found == label and isinstance(found, float)
    assert NUMBER.spell(found) == label


def test_as_many_numbers_as_the_model_has_outputs_are_read_however_many_these_are() -> None:
    reader = LabelReader(None, 300, REGRESSION)
    assert reader.read(0, list(range(300))) == [float(number) for number in range(300)]
    with pytest.raises(ValueError, match="is not a list of 300 numbers, one per output"):
        reader.read(0, list(range(299)))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("3,5", "'3,5' is not a number. Write it with a decimal point"),
        ("", "'' stands for a missing label"),
        (-100, "-100 stands for a missing label"),
        (math.nan, "nan stands for a missing label"),
        (True, "True is not a number"),
        ("inf", "inf is not finite"),
        (math.inf, "inf is not finite"),
        ([1.0], r"\[1.0\] is not one number"),
    ],
)
def test_what_is_no_number_is_refused(answer: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NUMBER.read(0, answer)


def test_tags_are_names_or_numbers_and_are_written_as_names() -> None:
    assert TAGS.read(0, ["O", 1, " I "], {0: 3}) == [0, 1, 2]
    assert TAGS.spell([0, 1, 2]) == ["O", "B", "I"]
    assert parse_tags(["2", 1], ["1", "2"], None) == [1, 0], "where tags are numbers, a number is a name"


def test_where_answers_are_read_by_the_task_labels_are_written_as_they_are() -> None:
    masks = LabelReader(("road", "car"), 2, read_answer=lambda row, answer: f"{row}:{answer}")
    assert masks.read(3, "a.png") == masks.restore(3, "a.png") == "3:a.png"
    assert masks.spell("3:a.png") == "3:a.png"


@pytest.mark.parametrize(
    ("id2label", "names"),
    [
        ({0: "bad", 1: "good"}, ("bad", "good")),
        ({"1": "good", "0": "bad"}, ("bad", "good")),
        ({0: "Bad", 1: "Good"}, ("Bad", "Good")),
        ({0: "LABEL_0", 1: "LABEL_1"}, None),
        ({0: "LABEL_1", 1: "LABEL_0"}, ("LABEL_1", "LABEL_0")),
        ({0: "a"}, None),
        ({0: "a", 1: " a"}, None),
        (None, None),
    ],
)
def test_the_classes_that_a_model_names(id2label: Any, names: tuple[str, ...] | None) -> None:
    assert classes_of_config(SimpleNamespace(num_labels=2, id2label=id2label)) == names
    assert classes_of_config(None) is None


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.text(min_size=1, max_size=5).filter(str.strip), min_size=2, max_size=6, unique_by=str.strip), st.data()
)
def test_names_that_are_read_are_the_names_that_are_written(names: list[str], data: st.DataObject) -> None:
    one = LabelReader(tuple(names), len(names))
    name = data.draw(st.sampled_from(names))
    assert one.spell(one.read(0, name)) == name
    assert one.restore(0, one.read(0, name)) == names.index(name)
    several = LabelReader(tuple(names), len(names), MULTI_LABEL)
    chosen = data.draw(st.lists(st.sampled_from(names), unique=True))
    assert several.spell(several.read(0, chosen)) == [name for name in names if name in chosen]
    tags = LabelReader(tuple(names), len(names), tags=True)
    words = data.draw(st.lists(st.sampled_from(names), min_size=1))
    assert tags.spell(tags.read(0, words)) == words
