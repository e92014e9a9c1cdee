"""Selections against brute force, and on the rows that break naive ones."""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_noise_al.selection.checks import check_finite, check_size, check_whole_number, row_norms
from hf_noise_al.selection.choosing import SelectionName, select_rows, top_k
from hf_noise_al.selection.k_center import k_center_greedy
from hf_noise_al.selection.k_dpp import k_dpp
from hf_noise_al.selection.k_means import k_means_plus_plus, k_means_plus_plus_of_products

SELECTIONS = get_args(SelectionName)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def brute_force(rows: list[list[int]], k: int, centers: list[list[int]], first: int | None = None) -> list[int]:
    """Greedy k-center in whole numbers, from the definition."""
    chosen: list[int] = [] if first is None or centers else [first]
    taken = [*([[0] * len(rows[0])] if first is None else []), *centers, *(rows[i] for i in chosen)]
    k -= len(chosen)
    for _ in range(k):
        distances = [min(sum((a - b) ** 2 for a, b in zip(row, c, strict=True)) for c in taken) for row in rows]
        left = [i for i in range(len(rows)) if i not in chosen]
        chosen.append(max(left, key=lambda i: (distances[i], -i)))
        taken.append(rows[chosen[-1]])
    return chosen


@st.composite
def integer_rows(draw: Callable[..., object]) -> tuple[list[list[int]], int, list[list[int]]]:
    """Few distinct numbers, so that duplicates, ties, zero rows, equal norms and low rank are common."""
    width = draw(st.integers(1, 4))
    numbers = st.integers(-(reach := draw(st.sampled_from([1, 2, 9]))), reach)
    row = st.lists(numbers, min_size=width, max_size=width)
    if draw(st.booleans()):  # every row a multiple of one
        direction = draw(row)
        row = numbers.map(lambda factor: [factor * x for x in direction])
    rows = draw(st.lists(row, min_size=1, max_size=12))
    if draw(st.booleans()):
        rows = rows + rows
    return rows, draw(st.integers(1, len(rows))), draw(st.lists(row, max_size=4))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(integer_rows(), st.sampled_from([1.0, 2.0**-80, 2.0**90]), st.sampled_from([torch.float32, torch.float64]))
def test_k_center_is_that_of_brute_force(
    case: tuple[list[list[int]], int, list[list[int]]], scale: float, dtype: torch.dtype
) -> None:
    rows, k, centers = case
    scaled = torch.tensor(rows, dtype=dtype) * scale
    given_centers = torch.tensor(centers, dtype=dtype) * scale if centers else None
    assert k_center_greedy(scaled, k, given_centers).tolist() == brute_force(rows, k, centers)
    first = len(rows) // 2
    assert k_center_greedy(scaled, k, given_centers, first).tolist() == brute_force(rows, k, centers, first)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(integer_rows(), st.sampled_from(SELECTIONS), st.integers(0, 3))
def test_every_selection_gives_k_distinct_rows_also_among_duplicates_and_zeros(
    case: tuple[list[list[int]], int, list[list[int]]], name: SelectionName, seed: int
) -> None:
    rows, k, _ = case
    chosen = select_rows(name, torch.tensor(rows).float(), k, generator(seed)).tolist()
    assert len(chosen) == len(set(chosen)) == k
    assert all(0 <= index < len(rows) for index in chosen)


def test_k_center_starts_with_the_longest_row_and_ends_with_zeros_in_order() -> None:
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, -3.0], [0.0, 0.0], [1.0, 0.0]])
    assert k_center_greedy(rows, 5).tolist() == [2, 1, 0, 3, 4]


def test_k_center_breaks_ties_by_the_lowest_index() -> None:
    assert k_center_greedy(torch.ones(70, 3), 70).tolist() == list(range(70))
    assert k_center_greedy(torch.eye(40), 40).tolist() == list(range(40))


def test_k_center_keeps_away_from_centers() -> None:
    rows = torch.tensor([[10.0, 0.0], [0.0, 4.0], [0.0, -5.0]])
    assert k_center_greedy(rows, 1, torch.tensor([[9.0, 0.0]])).tolist() == [2]
    assert k_center_greedy(rows, 1, torch.zeros(0, 2)).tolist() == [0]


def test_k_center_sees_near_duplicates_far_from_the_origin() -> None:
    """Where squared lengths are subtracted all four look the same."""
    rows = torch.tensor([[4096.0, 0.0], [4096.0, 0.0], [4096.0, 0.25], [4096.0, -0.125]])
    assert k_center_greedy(rows, 4).tolist() == [0, 2, 3, 1]


def test_no_centers_are_as_an_empty_table_of_them() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    empty = torch.zeros(0, 2)
    assert k_center_greedy(rows, 3, empty, first=1).tolist() == k_center_greedy(rows, 3, first=1).tolist() == [1, 0, 2]
    assert k_center_greedy(rows, 3, empty).tolist() == k_center_greedy(rows, 3).tolist()


def test_rows_of_integers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"floating-point.*got torch\.int64"):
        k_center_greedy(torch.tensor([[1, 0], [3, 0]]), 1)


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("size", [1e-42, 1e-25, 1e30, 1e38])
def test_tiny_and_huge_rows_neither_vanish_nor_overflow(name: SelectionName, size: float) -> None:
    torch.manual_seed(0)
    rows = torch.randint(-8, 9, (20, 4)).float() / 8
    chosen = select_rows(name, (rows.double() * size).float(), 6, generator())
    if size > 1e-40:
        assert chosen.tolist() == select_rows(name, rows, 6, generator()).tolist()
    assert len(set(chosen.tolist())) == 6


def test_row_norms_neither_vanish_nor_overflow() -> None:
    rows = torch.tensor([[3e-30, 4e-30], [3e30, 4e30], [0.0, 0.0]])
    torch.testing.assert_close(row_norms(rows), torch.tensor([5e-30, 5e30, 0.0]), rtol=1e-6, atol=0)
    assert row_norms(rows).dtype == torch.float32


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_is_named(name: SelectionName, bad: float) -> None:
    rows = torch.ones(6, 2)
    rows[3, 1] = rows[5, 0] = bad
    with pytest.raises(ValueError, match=r"not finite: row 3 holds NaN or infinity \(2 of 6 rows do\)"):
        select_rows(name, rows, 2, generator())


@pytest.mark.parametrize("name", ["k_center", "k_means_plus_plus"])
def test_a_center_that_is_not_finite_is_refused(name: SelectionName) -> None:
    with pytest.raises(ValueError, match="row 1 holds NaN"):
        select_rows(name, torch.ones(3, 2), 1, generator(), torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]))


@pytest.mark.parametrize("name", SELECTIONS)
def test_sizes_are_checked(name: SelectionName) -> None:
    rows = torch.randn(5, 3, generator=generator())
    assert sorted(select_rows(name, rows, 5, generator()).tolist()) == [0, 1, 2, 3, 4]
    for k in (0, 6, -1):
        with pytest.raises(ValueError, match=f"Cannot query {k} of 5 unlabeled examples"):
            select_rows(name, rows, k, generator())
    with pytest.raises(ValueError, match="Cannot query 1 of 0"):
        select_rows(name, torch.zeros(0, 3), 1, generator())


@pytest.mark.parametrize("name", SELECTIONS)
def test_rows_without_columns_follow_in_order(name: SelectionName) -> None:
    assert select_rows(name, torch.zeros(4, 0), 3, generator()).tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["k_dpp", "top_k"])
def test_selections_without_centers_refuse_them(name: SelectionName) -> None:
    with pytest.raises(ValueError, match=f"The selection '{name}' takes no centers"):
        select_rows(name, torch.ones(3, 2), 1, generator(), torch.ones(1, 2))


@pytest.mark.parametrize("name", SELECTIONS)
def test_rows_are_left_as_they_were_and_so_is_the_global_random_state(name: SelectionName) -> None:
    rows = torch.randn(8, 3, generator=generator())
    before, state = rows.clone(), torch.get_rng_state()
    first = select_rows(name, rows, 4, generator())
    assert torch.equal(rows, before) and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, select_rows(name, rows, 4, generator()))


def test_top_k_takes_the_lowest_index_among_equals() -> None:
    scores = torch.tensor([1.0, 3.0, 2.0, 3.0, 2.0, 2.0])
    assert top_k(scores, 4).tolist() == [1, 3, 2, 4]
    assert top_k(torch.zeros(100), 50).tolist() == list(range(50))


def test_checks_of_rows_and_sizes() -> None:
    check_finite(torch.zeros(0, 3))
    check_finite(torch.tensor([[3e38]]))
    check_size(1, 1)
    with pytest.raises(ValueError, match="Choose a `query_size` between 1 and the number of unlabeled examples"):
        check_size(2, 1)


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (2.0, {}, r"`size` must be a whole number, got 2\.0\. Set it to an int of at least 1\."),
        (True, {"least": 0}, r"must be a whole number, got True\. Set it to an int of at least 0\."),
        (None, {"least": -math.inf}, r"must be a whole number, got None\. Set it to an int\."),
        (0, {}, "`size` must be at least 1, got 0"),
        (5001, {"most": 5000}, r"`size` must be at most 5,000, got 5,001\. Lower it"),
    ],
)
def test_numbers_that_are_not_whole_or_out_of_range_are_refused(
    value: object, bounds: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_whole_number("size", value, **bounds)
    for least in (1, 3):
        check_whole_number("size", 3, least, most=3)


# ---- k-means++ ---------------------------------------------------------------------------------------------------


def chi_square(counts: Counter[tuple[int, ...]], expected: dict[tuple[int, ...], float], draws: int) -> float:
    assert set(counts) <= {key for key, p in expected.items() if p > 0}
    return sum((counts[key] - draws * p) ** 2 / (draws * p) for key, p in expected.items() if p > 0)


def pair_probabilities(rows: Tensor) -> dict[tuple[int, ...], float]:
    """Probabilities of ordered pairs drawn by k-means++ that starts with a center in the origin."""
    squared = torch.cdist(rows.double(), rows.double()).square()
    start = rows.double().square().sum(dim=1)
    expected = {}
    for i, j in itertools.permutations(range(len(rows)), 2):
        nearest = torch.minimum(start, squared[i])
        expected[i, j] = float(start[i] / start.sum() * nearest[j] / nearest.sum())
    return expected


def test_k_means_plus_plus_draws_with_the_squared_distance() -> None:
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 0.0], [2.0, 0.0]])
    source, draws = generator(1), 1200
    counts = Counter(tuple(k_means_plus_plus(rows, 2, source).tolist()) for _ in range(draws))
    expected = pair_probabilities(rows)
    degrees = sum(p > 0 for p in expected.values()) - 1
    assert chi_square(counts, expected, draws) < degrees + 4 * (2 * degrees) ** 0.5


def test_k_means_plus_plus_takes_zeros_last_and_in_order() -> None:
    rows = torch.zeros(5, 2)
    rows[3] = 1
    for seed in range(20):
        assert k_means_plus_plus(rows, 5, generator(seed)).tolist() == [3, 0, 1, 2, 4]


def test_k_means_plus_plus_never_draws_what_a_center_covers() -> None:
    rows = torch.tensor([[5.0, 5.0], [1.0, 0.0], [5.0, 5.0]])
    for seed in range(20):
        assert k_means_plus_plus(rows, 1, generator(seed), rows[:1]).tolist() == [1]


# ---- k-means++ of outer products -----------------------------------------------------------------------------------


def products(left: Tensor, right: Tensor) -> Tensor:
    """Return the (N, A * B) rows that `k_means_plus_plus_of_products` never forms."""
    return (left[:, :, None] * right[:, None, :]).flatten(1)


def brute_force_seeding(rows: Tensor, k: int, source: torch.Generator) -> list[int]:
    """The longest row, then draws with the squared distance to the nearest drawn one, from the definition."""
    chosen = [int(rows.square().sum(dim=1).argmax())]
    while len(chosen) < k:
        squared = (rows[:, None] - rows[chosen]).square().sum(dim=2).amin(dim=1)
        squared[chosen] = 0
        cumulative = squared.cumsum(dim=0)
        draw = torch.rand((), generator=source, dtype=torch.float64) * cumulative[-1]
        left = [i for i in range(len(rows)) if i not in chosen]
        found = next((i for i in left if cumulative[i] > draw), left[0])
        chosen.append(found if cumulative[-1] > 0 else left[0])
    return chosen


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_are_drawn_as_the_rows_that_they_stand_for(seed: int, dtype: torch.dtype) -> None:
    source = generator(seed)
    left, right = (torch.randn(40, width, generator=source, dtype=torch.float64) for width in (3, 5))
    found = k_means_plus_plus_of_products(left.to(dtype), right.to(dtype), 12, generator(seed))
    assert found.tolist() == brute_force_seeding(products(left, right), 12, generator(seed))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(integer_rows(), st.integers(0, 3), st.sampled_from([1.0, 2.0**-60, 2.0**60]))
def test_products_among_duplicates_and_zeros(
    case: tuple[list[list[int]], int, list[list[int]]], seed: int, scale: float
) -> None:
    rows, k, _ = case
    left = torch.tensor(rows).float()
    right = left.flip(1) - 1
    found = k_means_plus_plus_of_products(left * scale, right / scale, k, generator(seed)).tolist()
    assert found == brute_force_seeding(products(left, right).double(), k, generator(seed))
    assert len(set(found)) == k


def test_products_see_near_duplicates_far_from_the_origin() -> None:
    """Where inner products are subtracted, rows that differ by less than rounding look the same, or worse, far."""
    left = torch.tensor([[4096.0, 0.0], [4096.0, 0.0], [4096.0, 2.0**-8]])
    right = torch.full((3, 4), 1000.0)
    for seed in range(20):
        assert k_means_plus_plus_of_products(left, right, 3, generator(seed)).tolist() == [0, 2, 1]
        assert k_means_plus_plus_of_products(left[:2], right[:2], 2, generator(seed)).tolist() == [0, 1]


def test_products_are_never_formed() -> None:
    rows, width = 64, 1000
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            sizes.extend(leaf.numel() for leaf in tree_leaves(found) if isinstance(leaf, Tensor))
            return found

    left, right = (torch.randn(rows, width, generator=generator(seed)) for seed in range(2))
    with Watch():
        k_means_plus_plus_of_products(left, right, 5, generator())
    assert max(sizes) == rows * width, "nothing is larger than one factor"


def test_products_check_their_rows_and_sizes() -> None:
    bad = torch.ones(4, 2)
    bad[2, 1] = float("nan")
    for left, right in ((bad, torch.ones(4, 3)), (torch.ones(4, 3), bad)):
        with pytest.raises(ValueError, match="row 2 holds NaN"):
            k_means_plus_plus_of_products(left, right, 1, generator())
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"Cannot query {k} of 4 unlabeled examples"):
            k_means_plus_plus_of_products(torch.ones(4, 2), torch.ones(4, 3), k, generator())


# ---- k-DPP -------------------------------------------------------------------------------------------------------


def test_k_dpp_draws_subsets_with_the_determinants_of_their_kernels() -> None:
    rows = torch.randn(5, 3, generator=generator(4), dtype=torch.float64)
    kernel, k, draws, source = rows @ rows.T, 2, 500, generator(5)
    subsets = list(itertools.combinations(range(5), k))
    weights = torch.stack([torch.det(kernel[list(s)][:, list(s)]) for s in subsets])
    expected = dict(zip(subsets, (weights / weights.sum()).tolist(), strict=True))
    counts = Counter(tuple(sorted(k_dpp(rows, k, source).tolist())) for _ in range(draws))
    degrees = len(subsets) - 1
    assert chi_square(counts, expected, draws) < degrees + 4 * (2 * degrees) ** 0.5


def test_k_dpp_of_one_row_draws_with_the_squared_length() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 0.0]])
    source, draws = generator(2), 300
    counts = Counter(tuple(k_dpp(rows, 1, source).tolist()) for _ in range(draws))
    assert chi_square(counts, {(0,): 1 / 9, (1,): 4 / 9, (2,): 4 / 9}, draws) < 2 + 4 * 2


def test_k_dpp_never_draws_parallel_rows_while_it_can() -> None:
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    for seed in range(30):
        drawn = k_dpp(rows, 2, generator(seed)).tolist()
        assert 3 in drawn and 4 not in drawn


def test_k_dpp_fills_up_by_k_center_beyond_its_rank() -> None:
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    for seed in range(10):
        drawn = k_dpp(rows, 4, generator(seed)).tolist()
        assert len(set(drawn)) == 4 and 3 in drawn[:2]
        left = [i for i in range(5) if i not in drawn[:2]]
        rest = k_center_greedy(rows[left], 2, rows[drawn[:2]]).tolist()
        assert drawn[2:] == [left[i] for i in rest]
    assert k_dpp(torch.zeros(4, 2), 3, generator()).tolist() == [0, 1, 2]


def test_k_dpp_of_many_duplicates_and_of_more_columns_than_rows() -> None:
    few = torch.randn(3, 50, generator=generator())
    assert len(set(k_dpp(few.repeat(4, 1), 6, generator()).tolist())) == 6
    drawn = [index % 3 for index in k_dpp(few.repeat(4, 1), 3, generator(1)).tolist()]
    assert sorted(drawn) == [0, 1, 2]
