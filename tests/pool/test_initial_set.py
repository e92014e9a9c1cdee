"""The initial set: as many as asked, of the rows given, in the right shares."""

from collections import Counter

import pytest
import torch

from hf_noise_al.pool.initial_set import initial_set

HOWS = ["random", "stratified", "balanced"]
ROWS = list(range(100, 200))
LABELS = [0] * 60 + [1] * 30 + [2] * 9 + [3]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def classes(chosen: list[int]) -> list[int]:
    counts = Counter(LABELS[row - 100] for row in chosen)
    return [counts[label] for label in range(4)]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("size", [1, 3, 10, 37, 99, 100])
def test_as_many_distinct_rows_as_asked(how: str, size: int) -> None:
    chosen = initial_set(ROWS, size, how, LABELS, generator())
    assert len(chosen) == len(set(chosen)) == size and set(chosen) <= set(ROWS)
    assert chosen == initial_set(ROWS, size, how, LABELS, generator())
    if 3 < size < 99:
        assert set(chosen) != set(initial_set(ROWS, size, how, LABELS, generator(1)))


def test_stratified_keeps_the_shares() -> None:
    assert classes(initial_set(ROWS, 10, "stratified", LABELS, generator())) == [6, 3, 1, 0]
    assert classes(initial_set(ROWS, 12, "stratified", LABELS, generator())) == [7, 4, 1, 0], "7.2, 3.6, 1.08, 0.12"
    assert classes(initial_set(ROWS, 50, "stratified", LABELS, generator())) in ([30, 15, 5, 0], [30, 15, 4, 1])
    assert classes(initial_set(ROWS, 100, "stratified", LABELS, generator())) == [60, 30, 9, 1]


def test_balanced_shares_equally_as_far_as_classes_last() -> None:
    assert classes(initial_set(ROWS, 8, "balanced", LABELS, generator())) == [3, 2, 2, 1]
    assert classes(initial_set(ROWS, 60, "balanced", LABELS, generator())) == [25, 25, 9, 1]


def test_random_needs_no_labels_and_is_uniform() -> None:
    source, counts = generator(), Counter()
    for _ in range(600):
        counts.update(initial_set([3, 5, 7, 9], 2, "random", None, source))
    assert set(counts) == {3, 5, 7, 9} and all(abs(count - 300) < 50 for count in counts.values())


@pytest.mark.parametrize("how", ["stratified", "balanced"])
@pytest.mark.parametrize("labels", [None, [0.5, 1.5], [[0, 1], [1, 0]], ["a", "b"], [0, None]])
def test_classes_must_be_known(how: str, labels: object) -> None:
    with pytest.raises(ValueError, match=f"`initial_selection='{how}'` needs held-out class labels"):
        initial_set([0, 1], 1, how, labels, generator())  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, -1, 101])
@pytest.mark.parametrize("how", HOWS)
def test_sizes_are_checked(size: int, how: str) -> None:
    with pytest.raises(ValueError, match=f"Cannot choose an initial set of {size} of 100 unlabeled rows"):
        initial_set(ROWS, size, how, LABELS, generator())


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    initial_set(ROWS, 5, "balanced", LABELS, generator())
    assert torch.equal(torch.get_rng_state(), before)
