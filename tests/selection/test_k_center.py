"""Lazy k-center against the loop over all rows: the same choice to the last bit, and less work."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from hf_noise_al.selection import distances, lazy_distances
from hf_noise_al.selection.k_center import choose, k_center_greedy
from hf_noise_al.selection.lazy_distances import LazyDistances, leading

KINDS = (
    "normal",
    "heavy-tailed lengths",
    "equal lengths",
    "whole numbers",
    "one-hot and zeros",
    "low rank",
    "duplicates",
    "near-duplicates",
    "far from the origin",
    "clusters",
    "each near the one before",
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(rows: Tensor, k: int, centers: Tensor | None = None, first: int | None = None) -> list[int]:
    """Greedy k-center as the loop over all rows, in the arithmetic of the rows."""
    every = rows if centers is None else torch.cat([rows, centers])
    every = every * 2.0 ** -int(torch.frexp(every.abs().max()).exponent)
    rows, others = every[: len(rows)], every[len(rows) :]
    squared = rows.square().sum(dim=1) if first is None else torch.full_like(rows[:, 0], torch.inf)
    for center in others:
        squared = torch.minimum(squared, (rows - center).square().sum(dim=1))
    chosen: list[int] = []
    for _ in range(k):
        forced = first is not None and centers is None and not chosen
        chosen.append(int(squared.argmax()) if not forced else int(first or 0))
        squared = torch.minimum(squared, (rows - rows[chosen[-1]]).square().sum(dim=1))
        squared[chosen] = -1
    return chosen


def make_rows(kind: str, size: int, width: int, seed: int, dtype: torch.dtype) -> Tensor:
    source = generator(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=dtype)

    def some(count: int) -> Tensor:
        return torch.randint(count, (size,), generator=source)

    rows = normal(size, width)
    if kind == "heavy-tailed lengths":
        rows *= (2 * normal(size, 1)).exp()
    elif kind == "equal lengths":
        rows /= rows.norm(dim=1, keepdim=True)
    elif kind == "whole numbers":
        rows = rows.round()
    elif kind == "one-hot and zeros":
        rows = torch.eye(width, dtype=dtype)[some(width)] * some(3)[:, None]
    elif kind == "low rank":
        rows = normal(size, 2) @ normal(2, width)
    elif kind == "duplicates":
        rows = rows[some(size // 4 + 1)]
    elif kind == "near-duplicates":
        rows = rows[some(size // 8 + 1)] * (1 + 10.0 ** -(1 + some(14).to(dtype)[:, None]) * normal(size, width))
    elif kind == "far from the origin":
        rows = 3 + 1e-4 * rows
    elif kind == "clusters":
        rows = 0.05 * rows + normal(5, width)[some(5)]
    elif kind == "each near the one before":
        rows = torch.eye(size, dtype=dtype).cumsum(dim=1)[:, :width]
    return rows


@st.composite
def cases(draw: Callable[..., object]) -> tuple[Tensor, int, Tensor | None, int | None, int]:
    """Rows, k, centers, first and the rows of a block, which are so few that the lazy path has to work."""
    size = draw(st.integers(1, 60))
    dtype, seed = draw(st.sampled_from([torch.float32, torch.float64])), draw(st.integers(0, 10_000))
    rows = make_rows(draw(st.sampled_from(KINDS)), size, draw(st.sampled_from([1, 2, 5, 17, 70])), seed, dtype)
    how = draw(st.sampled_from(["none", "none", "rows", "others"]))
    centers = None
    if how == "rows":
        centers = rows[torch.randint(size, (draw(st.integers(0, 30)),), generator=generator(seed))]
    elif how == "others":
        centers = torch.randn(draw(st.integers(1, 30)), rows.shape[1], generator=generator(seed), dtype=dtype)
    first = draw(st.none() | st.integers(0, size - 1))
    return rows, draw(st.integers(1, size)), centers, first, draw(st.sampled_from([1, 2, 3, 7, 20]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cases())
@example((torch.zeros(9, 3), 9, None, None, 2))
@example((torch.eye(40), 40, None, None, 3))
@example((torch.ones(70, 3), 70, torch.ones(9, 3), None, 4))
def test_chooses_what_the_plain_loop_chooses(case: tuple[Tensor, int, Tensor | None, int | None, int]) -> None:
    rows, k, centers, first, block_rows = case
    before = rows.clone()
    assert choose(rows, k, centers, first, block_rows=block_rows).tolist() == plain(rows, k, centers, first)
    assert torch.equal(rows, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chooses_what_the_plain_loop_chooses_of_many_rows(kind: str, dtype: torch.dtype) -> None:
    rows = make_rows(kind, 900, 20, 3, dtype)
    assert choose(rows, 150, block_rows=32).tolist() == plain(rows, 150)


def test_rows_that_are_not_contiguous_give_the_same_choice() -> None:
    rows = make_rows("normal", 300, 65, 5, torch.float32)
    strided = torch.empty(65, 300).t().copy_(rows)
    assert not strided.is_contiguous()
    assert choose(strided, 60, block_rows=16).tolist() == plain(rows, 60)


def test_centers_of_a_wider_type_are_met_in_that_type() -> None:
    rows = make_rows("normal", 50, 4, 0, torch.float32)
    centers = make_rows("normal", 8, 4, 1, torch.float64)
    assert k_center_greedy(rows, 20, centers).tolist() == plain(rows.double(), 20, centers)


class Count:
    """Counts what is computed: exact distances, new active sets, rows in sweeps over all."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.distances = self.refills = 0
        exact, refill = distances.squared_distances, LazyDistances._refill

        def counting(rows: Tensor, centers: Tensor) -> Tensor:
            self.distances += len(rows)
            return exact(rows, centers)

        def refilling(lazy: LazyDistances) -> None:
            self.refills += 1
            refill(lazy)

        for module in (distances, lazy_distances):
            patch.setattr(module, "squared_distances", counting)
        patch.setattr(LazyDistances, "_refill", refilling)


@pytest.mark.parametrize(
    ("kind", "share"),
    [("heavy-tailed lengths", 0.05), ("equal lengths", 0.05), ("one-hot and zeros", 0.05), ("clusters", 0.3)],
)
def test_laziness_saves_most_distances(monkeypatch: pytest.MonkeyPatch, kind: str, share: float) -> None:
    rows, k = make_rows(kind, 4000, 64, 1, torch.float32), 200
    count = Count(monkeypatch)
    chosen = choose(rows, k, block_rows=100).tolist()
    assert count.distances < share * k * len(rows)
    assert count.refills >= 2, "a second active set was needed"
    assert chosen == plain(rows, k)


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows_take_much_more_than_the_plain_loop(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    rows, k = make_rows(kind, 1500, 4, 2, torch.float32), 120
    count = Count(monkeypatch)
    choose(rows, k, block_rows=50)
    assert count.distances < 1.3 * (k + 1) * len(rows)


def test_every_row_is_kept_exact_for_ever_longer_where_laziness_does_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, k = make_rows("normal", 200, 5, 0, torch.float32), 100
    monkeypatch.setattr(lazy_distances, "SCAN_COST", 10**6)
    count = Count(monkeypatch)
    assert choose(rows, k, block_rows=10).tolist() == plain(rows, k)
    assert 5 <= count.refills < 2 * math.log2(k), "twice as long each time"


def test_centers_are_kept_for_an_eighth_of_the_rows_at_most() -> None:
    rows = make_rows("low rank", 200, 6, 0, torch.float32)
    assert len(LazyDistances(rows, rows.dtype, (), True, 200, block_rows=5).recent) == 25
    assert choose(rows, 200, block_rows=5).tolist() == plain(rows, 200)


@pytest.mark.parametrize("block_rows", [2, 20])
def test_the_farthest_row_is_told_with_its_squared_distance(block_rows: int) -> None:
    rows = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0], [-3.0, 4.0], [6.0, 8.0]])
    lazy = LazyDistances(rows, rows.dtype, (), True, 3, block_rows)
    assert lazy.farthest() == (100.0, 4)
    lazy.add(lazy.row(4), 4)
    assert lazy.farthest() == (25.0, 1), "the lowest position among equals"
    assert LazyDistances(rows[:0], rows.dtype, (), True, 3, block_rows).farthest() == (-math.inf, None)


@pytest.mark.parametrize(("width", "block_rows"), [(64, 8192), (1000, 524), (100_000, 256)])
def test_a_block_holds_half_a_million_numbers_but_no_fewer_than_256_rows(width: int, block_rows: int) -> None:
    lazy = LazyDistances(torch.zeros(1, width), torch.float32, (), True, 1)
    assert lazy.block_rows == block_rows


def test_leading_takes_the_lowest_positions_among_equals() -> None:
    values = torch.tensor([1.0, 3.0, 2.0, 3.0, 2.0, 2.0, -1.0])
    assert leading(values, 1).tolist() == [1]
    assert leading(values, 4).tolist() == [1, 2, 3, 4]
    assert leading(values, 7).tolist() == leading(values, 9).tolist() == list(range(7))
