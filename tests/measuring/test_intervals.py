"""Wilson's interval, and what is said of evaluation sets of few rows."""

import pytest
from scipy import stats

from hf_noise_al.measuring.intervals import few_rows, format_interval, wilson


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (6, 6), (0, 6), (3, 6), (47, 50), (980, 1000)])
def test_wilson_is_that_of_scipy(right: int, count: int) -> None:
    expected = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson(right, count) == pytest.approx((expected.low, expected.high))


def test_six_of_six_right_leave_room_for_less() -> None:
    assert wilson(6, 6) == pytest.approx((0.61, 1.0), abs=0.001)


def test_an_interval_that_is_not_there_is_no_text() -> None:
    assert format_interval(None) == ""
    assert format_interval([0.1234, 0.5], 2) == "0.12 to 0.50"


def test_few_rows_are_told_with_the_width_there_and_what_to_do() -> None:
    said = few_rows({"": 6})
    assert said is not None and "the evaluation set has 6 rows" in said
    assert "all right" in said and "0.61 to 1.00" in said and "of 3 right, 0.19 to 0.81" in said
    for remedy in ("50 rows or more", "`validation_fraction`", "`eval_folds`"):
        assert remedy in said


def test_sets_are_named_and_fifty_rows_are_enough() -> None:
    assert few_rows({"": 50}) is None and few_rows({}) is None and few_rows({"": 0}) is None
    said = few_rows({"matched": 400, "mismatched": 49})
    assert said is not None and "the evaluation set mismatched has 49 rows" in said and "matched has 400" not in said
    one = few_rows({"": 1})
    assert one is not None and "has 1 row." in one
