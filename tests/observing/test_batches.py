"""Batches hold each row once, the longest first, and no more tokens than they may."""

from hypothesis import given
from hypothesis import strategies as st

from hf_noise_al.observing.batches import split_batch, token_batches

LENGTHS = st.lists(st.integers(0, 40), max_size=60)
BUDGET = st.integers(1, 200)


@given(LENGTHS, BUDGET)
def test_each_row_once_the_longest_first_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = token_batches(lengths, budget)
    order = [row for batch in batches for row in batch]
    assert order == sorted(range(len(lengths)), key=lambda row: -lengths[row]), "rows of equal length keep their order"
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget
    for batch in batches[:-1]:
        assert (len(batch) + 1) * max(lengths[batch[0]], 1) > budget, "no batch is smaller than it must be"


@given(LENGTHS, BUDGET, BUDGET)
def test_parts_of_a_batch_are_the_batch(lengths: list[int], budget: int, smaller: int) -> None:
    for batch in token_batches(lengths, budget):
        parts = split_batch(batch, lengths, smaller)
        assert [row for part in parts for row in part] == batch
        assert all(len(part) == 1 or len(part) * lengths[part[0]] <= smaller for part in parts)


def test_by_hand() -> None:
    assert token_batches([3, 10, 0, 5, 5], 10) == [[1], [3, 4], [0, 2]]
    assert token_batches([1, 1, 1, 1, 1], 2) == [[0, 1], [2, 3], [4]]
    assert token_batches([], 5) == []
