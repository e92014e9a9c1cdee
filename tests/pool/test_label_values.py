"""What a label is: what is missing, and which class an answer names."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise_al.pool.label_values import Classes, UnknownClass, classes_found, is_missing

NAMES = st.one_of(
    st.text(min_size=1, max_size=8),
    st.integers(-3, 30).map(str),
    st.sampled_from(
        ["NA", "null", "None", "True", "False", "-1", "-100", "01", "1.0", " a ", "a b", "é", "\uff11", "½"]
    ),
)
CLASSES = st.lists(NAMES, min_size=1, max_size=8, unique_by=str.strip).filter(lambda names: all(map(str.strip, names)))


@pytest.mark.parametrize("value", [None, math.nan, -100, -100.0, "", "  ", "-100", " -100 ", [], [None], [0, None]])
@pytest.mark.parametrize("names", [None, ("bad", "good")])
def test_what_is_missing_everywhere(value: Any, names: Any) -> None:
    assert is_missing(value, names)


@pytest.mark.parametrize("value", [0, 1, -2, 0.5, math.inf, True, False, "0", "NA", "None", [0.0, 1.0], ["a"], {}])
@pytest.mark.parametrize("names", [None, ("bad", "good")])
def test_what_is_never_missing(value: Any, names: Any) -> None:
    assert not is_missing(value, names)


@pytest.mark.parametrize("value", [-1, -1.0, "-1", " -1", [-1, -1]])
def test_minus_one_is_missing_where_labels_are_classes_and_none_is_called_so(value: Any) -> None:
    assert is_missing(value, ("0", "1"))
    assert not is_missing(value, ("-1", "0", "1"))
    assert not is_missing(value), "a number on a scale"


@pytest.mark.parametrize(
    ("names", "answer", "place"),
    [
        (["1", "2", "3", "4", "5"], 4, 3),  # stars: the fourth, not the fifth
        (["1", "2", "3", "4", "5"], "4", 3),
        (["1", "2", "3", "4", "5"], "4.0", 3),
        (["1", "2", "3", "4", "5"], 4.0, 3),
        (["bad", "ok", "good"], 1, 1),
        (["bad", "ok", "good"], "1", 1),
        (["bad", "ok", "good"], " good\n", 2),
        (["-1", "0", "1"], -1, 0),
        (["-1", "0", "1"], 0, 1),
        (["-1", "0", "1"], "-1", 0),
        (["False", "True"], True, 1),
        (["False", "True"], "true", 1),
        (["false", "true"], False, 0),
        (["True", "False"], 1, 0),
        (["True", "False"], "0", 1),
        (["3.5", "4"], 3.5, 0),
        (["3.5", "4"], "4", 1),
        (["01", "02"], "02", 1),
        (["01", "02"], 2, 1),
        (["1", "01"], "01", 1),
        (["1", "01"], 1, 0),
        (["NA", "null", "None"], "None", 2),
        (["-100", "a"], "-100", 0),
        ([" a ", "b"], "a", 0),
        (["½", "\uff11"], 0, 0),  # other digits than 0 to 9 are no numbers here
    ],
)
def test_which_class_an_answer_names(names: list[str], answer: Any, place: int) -> None:
    assert Classes(tuple(names)).place(answer) == place


@pytest.mark.parametrize(
    ("names", "answer", "message"),
    [
        (["1", "2", "3"], 0, "0 is not a known class. A number is a name here. Classes are 1, 2, 3"),
        (["1", "2", "3"], "4", "'4' is not a known class"),
        (["1", "many"], 0, "0 is not a known class. A number is a name here"),
        (["bad", "good"], 2, "2 is not a known class. Classes are bad, good"),
        (["bad", "good"], "2", "'2' is not a known class"),
        (["bad", "good"], 10**400, "10000.* is not a known class"),
        (["bad", "good"], 0.5, "0.5 is not a known class"),
        (["bad", "good"], math.inf, "inf is not a known class"),
        (["bad", "good"], "godo", "'godo' is not a known class. Did you mean 'good'"),
        (["bad", "good"], True, "True is not a known class"),
        (["0", "1"], True, "True is not a known class"),
        (["a", "A"], "True", "'True' is not a known class"),
        (["bad", "good"], [1], r"\[1\] is not a known class"),
        (["1", "01", "2"], "1.0", "'1.0' is not a known class"),  # either could be meant
        (["bad", "good"], "x" * 500, r"x\.\.\. is not a known class"),
        (["bad", "good"], "1e0", "'1e0' is not a known class"),
    ],
)
def test_what_names_no_class_is_refused(names: list[str], answer: Any, message: str) -> None:
    with pytest.raises(UnknownClass, match=message):
        Classes(tuple(names)).place(answer)


@pytest.mark.parametrize("answer", ["", "  ", -1, "-1", -100, None, math.nan])
def test_an_answer_that_stands_for_a_missing_label_is_refused_as_such(answer: Any) -> None:
    with pytest.raises(ValueError, match="stands for a missing label"):
        Classes(("bad", "good")).place(answer)


@pytest.mark.parametrize(
    ("names", "message"), [(["a", " a"], "the name 'a' stands twice"), (["a", " "], "a name is empty")]
)
def test_names_that_cannot_be_told_apart_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classes(tuple(names))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([3, 1, 2, 10], ["1", "2", "3", "10"]),
        ([-1, 0, 1], ["-1", "0", "1"]),
        ([-1, 1], ["-1", "1"]),
        ([-2, -1, 0, 1, 2], ["-2", "-1", "0", "1", "2"]),
        ([-1, 0, 1, 2], ["0", "1", "2"]),
        ([-100, 0, 1, None, math.nan], ["0", "1"]),
        (["bad", " ok", "ok ", "", " "], ["bad", "ok"]),
        (["-1", "bad", "good"], ["bad", "good"]),
        ([True, False], ["False", "True"]),
        ([1.0, 2.0], ["1", "2"]),
        (["b", "10", "9"], ["10", "9", "b"]),
        (["NA", "yes"], ["NA", "yes"]),
    ],
)
def test_the_classes_that_are_found_in_data(values: list[Any], names: list[str]) -> None:
    assert classes_found(values) == names


@settings(max_examples=100, deadline=None, derandomize=True)
@given(CLASSES, st.data())
def test_whatever_classes_are_called_a_name_names_its_class(names: list[str], data: st.DataObject) -> None:
    classes = Classes(tuple(names))
    for place, name in enumerate(names):
        assert classes.place(name) == place
        assert classes.place(f" {name}\t") == place
        assert not is_missing(name, names)
    answer = data.draw(st.one_of(st.text(max_size=6), st.integers(), st.floats(), st.booleans(), st.none()))
    try:
        place = classes.place(answer)
    except ValueError:
        return
    assert 0 <= place < len(names)
