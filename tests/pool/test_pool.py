"""The pool: what is labeled is labeled once, by a row that exists, all or none."""

import json

import pytest

from hf_noise_al.pool.pool import Annotation, Pool


def test_a_new_pool_is_unlabeled() -> None:
    pool = Pool(3)
    assert (pool.num_labeled, pool.labeled_rows, pool.unlabeled_rows, pool.annotations) == (0, [], [0, 1, 2], [])


def test_annotations_keep_their_order_and_rows_are_ascending() -> None:
    pool = Pool(5)
    pool.annotate([4, 1], [0, 1], round=0)
    pool.add([Annotation(2, [0, 1], 1, score=0.5)])
    assert [annotation.row for annotation in pool.annotations] == [4, 1, 2]
    assert pool.labeled_rows == [1, 2, 4]
    assert pool.unlabeled_rows == [0, 3]
    assert (pool.label(4), pool.label(2), pool.num_labeled) == (0, [0, 1], 3)


@pytest.mark.parametrize("row", [-1, 3, 1.0, "1", True, None])
def test_a_row_outside_the_pool_is_refused(row: object) -> None:
    pool = Pool(3)
    with pytest.raises(ValueError, match=r"Cannot label row .*: rows of this pool are the integers 0 to 2\."):
        pool.annotate([row], [0], round=0)  # type: ignore[list-item]
    assert pool.num_labeled == 0


def test_a_row_is_labeled_once() -> None:
    pool = Pool(3)
    pool.annotate([1], [7], round=2)
    with pytest.raises(ValueError, match=r"Cannot label row 1 twice: it already has the label 7 \(round 2\)\."):
        pool.annotate([1], [7], round=3)


@pytest.mark.parametrize("rows", [[0, 0], [0, 9], [0, 1]])
def test_all_labels_are_kept_or_none(rows: list[int]) -> None:
    pool = Pool(3)
    pool.annotate([1], [1], round=0)
    with pytest.raises(ValueError):
        pool.annotate(rows, [0, 0], round=1)
    assert pool.labeled_rows == [1]


def test_as_many_labels_as_rows() -> None:
    with pytest.raises(ValueError, match="Cannot label 2 rows with 1 labels: give one label per row"):
        Pool(3).annotate([0, 1], [1], round=0)


def test_what_was_given_is_kept_and_counts_as_round_zero() -> None:
    pool = Pool(4)
    pool.annotate([3], [1], round=0)
    pool.annotate([0, 2], [5, 6], round=2, given=True)
    fresh = pool.given()
    assert fresh.annotations == [Annotation(0, 5, 0, None, True), Annotation(2, 6, 0, None, True)]
    fresh.annotate([3], [0], round=0)
    assert pool.label(3) == 1


def test_lists_handed_out_are_copies() -> None:
    pool = Pool(2)
    pool.annotate([0], [1], round=0)
    pool.annotations.clear()
    pool.labeled_rows.clear()
    assert pool.num_labeled == 1


def test_goes_through_json() -> None:
    pool = Pool(4)
    pool.annotate([2], [[1, 0]], round=1, given=True)
    pool.add([Annotation(0, 0.5, 2, score=1e-30)])
    plain = json.loads(json.dumps(pool.to_json()))
    assert Pool(4, [Annotation(**entry) for entry in plain]).annotations == pool.annotations


def test_rows_that_are_set_aside_are_neither_asked_for_nor_labeled() -> None:
    pool = Pool(5, [Annotation(0, 1, 0)], set_aside=[3, 1])
    assert pool.unlabeled_rows == [2, 4]
    with pytest.raises(ValueError, match="Cannot label row 3: it is set aside"):
        pool.annotate([2, 3], [0, 0], 1)
    assert pool.unlabeled_rows == [2, 4], "all or none"
    pool.leave_out([0, 4])
    assert (pool.unlabeled_rows, pool.labeled_rows) == ([2], [0])
    assert pool.given().set_aside == pool.set_aside
