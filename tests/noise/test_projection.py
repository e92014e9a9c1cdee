"""Count sketches keep inner products on average, sum up what they must, and are the same for the same seed."""

import pytest
import torch

from hf_noise_al.noise.projection import CountSketch


def rows(width: int) -> torch.Tensor:
    return torch.randn(3, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("dimension", "width"), [(50, 8), (8, 8), (7, 3), (40, 1)])
def test_keeps_inner_products_on_average(dimension: int, width: int) -> None:
    found = rows(dimension)
    products = torch.stack([(p := CountSketch(dimension, width, seed)(found)) @ p.T for seed in range(200)])
    mean, error = products.mean(dim=0), products.std(dim=0) / 200**0.5
    assert ((mean - found @ found.T).abs() <= 4.5 * error + 1e-9).all()


@pytest.mark.parametrize(("dimension", "width"), [(4, 9), (8, 8), (1, 5)])
def test_keeps_every_product_exactly_where_there_is_room(dimension: int, width: int) -> None:
    found = rows(dimension)
    projected = CountSketch(dimension, width, 3)(found)
    assert projected.shape == (3, width)
    torch.testing.assert_close(projected @ projected.T, found @ found.T)


def test_every_place_gets_its_share() -> None:
    projection = CountSketch(103, 10, 0)
    used = torch.stack([projection(unit[None])[0].abs() for unit in torch.eye(103)])
    assert torch.equal(used.sum(dim=1), torch.ones(103)), "each number goes to one place, with weight one"
    assert set(used.sum(dim=0).tolist()) == {10.0, 11.0}


def test_is_the_same_for_the_same_seed_only() -> None:
    found = rows(30)
    first, again, other = (CountSketch(30, 6, seed)(found) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_leaves_the_rows_and_the_random_state_alone() -> None:
    found = rows(30)
    before, state = found.clone(), torch.get_rng_state()
    CountSketch(30, 6, 1)(found)
    assert torch.equal(found, before) and torch.equal(torch.get_rng_state(), state)
