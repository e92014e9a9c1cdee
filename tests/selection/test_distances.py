"""Distances by filter and exact arithmetic against every distance computed, where rounding decides."""

import pytest
import torch
from torch import Tensor

from hf_noise_al.selection import distances
from hf_noise_al.selection.distances import FEW_CENTERS, largest_entry, lower, scale_factors, scaled, squared_distances


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def near_duplicates(dtype: torch.dtype, spread: float) -> tuple[Tensor, Tensor]:
    """Rows and centers around a few points far from the origin, some of them the same to the last bit."""
    source = generator(1)
    points = 3 + torch.randn(4, 33, generator=source, dtype=dtype)
    rows, centers = points.repeat(10, 1), points.repeat(5, 1)
    rows[4:] += spread * torch.randn(36, 33, generator=source, dtype=dtype)
    centers[4:] += spread * torch.randn(16, 33, generator=source, dtype=dtype)
    return rows, centers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6, 1e-9, 1e-15])
@pytest.mark.parametrize("start", ["nothing", "the origin", "a center", "the nearest center"])
def test_lower_is_the_least_of_all_distances_to_the_last_bit(dtype: torch.dtype, spread: float, start: str) -> None:
    rows, centers = near_duplicates(dtype, spread)
    every = torch.stack([(rows - center).square().sum(dim=1) for center in centers], dim=1)
    bounds = {
        "nothing": torch.full((len(rows),), torch.inf, dtype=dtype),
        "the origin": rows.square().sum(dim=1),
        "a center": every[:, 0],
        "the nearest center": every.amin(dim=1),
    }[start]
    before = bounds.clone()
    lowered, _ = lower(bounds, rows, centers)
    assert torch.equal(lowered, torch.minimum(before, every.amin(dim=1)))
    assert torch.equal(bounds, before)


@pytest.mark.parametrize("spread", [1e-16, 1e-15, 3e-15])
def test_lower_leaves_room_for_the_rounding_of_wide_products(spread: float) -> None:
    source = generator(1)
    points = 3 + torch.randn(2, 20_000, generator=source, dtype=torch.float64)
    rows, centers = (
        many + spread * torch.randn(many.shape, generator=source, dtype=torch.float64)
        for many in (points.repeat(10, 1), points.repeat(5, 1))
    )
    every = torch.stack([squared_distances(rows, center) for center in centers], dim=1)
    assert torch.equal(lower(every[:, 0], rows, centers)[0], every.amin(dim=1))


def test_lower_leaves_the_marks_of_chosen_rows_and_zeros() -> None:
    rows = torch.zeros(3, 2)
    assert lower(torch.tensor([-1.0, 0.0, 5.0]), rows, torch.ones(20, 2))[0].tolist() == [-1, 0, 2]


def test_lower_of_rows_wider_than_their_type_can_sum_skips_nothing() -> None:
    """256 terms of eight bits each: no distance of bfloat16 can be told from less by a relative margin."""
    rows = torch.randn(6, 256, generator=generator()).bfloat16()
    centers = torch.randn(9, 256, generator=generator(1)).bfloat16()
    every = torch.stack([squared_distances(rows, center) for center in centers], dim=1)
    assert torch.equal(lower(every[:, 0], rows, centers)[0], every.amin(dim=1))


def test_lower_computes_few_of_the_distances_between_rows_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []

    def counting(rows: Tensor, centers: Tensor) -> Tensor:
        computed.append(len(rows))
        return squared_distances(rows, centers)

    monkeypatch.setattr(distances, "squared_distances", counting)
    rows, centers = torch.randn(200, 16, generator=generator()), torch.randn(300, 16, generator=generator(1))
    lowered, _ = lower(rows.square().sum(dim=1), rows, centers)
    assert sum(computed) < 2 * len(rows)
    assert (lowered < rows.square().sum(dim=1)).any()


@pytest.mark.parametrize("num_centers", [1, FEW_CENTERS, FEW_CENTERS + 1, 30])
def test_lower_says_what_it_took_with_half_a_distance_for_each_pair_of_its_filter(
    monkeypatch: pytest.MonkeyPatch, num_centers: int
) -> None:
    computed = []

    def counting(rows: Tensor, centers: Tensor) -> Tensor:
        computed.append(len(rows))
        return squared_distances(rows, centers)

    monkeypatch.setattr(distances, "squared_distances", counting)
    rows, centers = torch.randn(50, 3, generator=generator()), torch.randn(num_centers, 3, generator=generator(1))
    _, took = lower(rows.square().sum(dim=1), rows, centers)
    assert took == sum(computed) + (50 * num_centers // 2 if num_centers > FEW_CENTERS else 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_distance_does_not_depend_on_the_rows_beside_it(dtype: torch.dtype, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for width in (1, 2, 3, 7, 8, 9, 31, 64, 65, 130, 513, 40_000):
            rows = torch.randn(9, width, generator=generator(width), dtype=dtype)
            center = torch.randn(width, generator=generator(width + 1), dtype=dtype)
            together = squared_distances(rows, center)
            alone = [squared_distances(rows[i : i + 1], center) for i in range(9)]
            some = squared_distances(rows[[6, 1, 4]], center.expand(3, -1))
            assert torch.equal(together, torch.cat(alone)) and torch.equal(together[[6, 1, 4]], some)
    finally:
        torch.set_num_threads(before)


def test_scaling_is_exact_and_makes_the_largest_entry_about_one() -> None:
    for size in (1e-45, 1e-30, 0.7, 1.0, 24.0, 3e38):
        rows = torch.tensor([[size, -size / 2]], dtype=torch.float64)
        factors = scale_factors(largest_entry(rows))
        assert 0.5 <= float(scaled(rows, factors).max()) < 1
        assert float(scaled(rows, factors)[0, 0]) / size in {2.0**e for e in range(-130, 160)}
    assert scale_factors(0.0) == ()


def test_the_largest_entry_is_a_magnitude() -> None:
    assert largest_entry(torch.tensor([[1.0, -3.0], [2.0, 0.0]])) == 3
    assert largest_entry(torch.zeros(0, 4)) == largest_entry(torch.zeros(4, 0)) == 0
    assert largest_entry(torch.tensor([[1.0, float("nan")]])) != largest_entry(torch.tensor([[1.0, float("nan")]]))
    assert largest_entry(torch.tensor([[1.0, -float("inf")]])) == float("inf")
