"""Rank-one noise has the mean and the covariance of full Gaussian noise."""

import pytest
import torch
from torch import Tensor

from hf_noise_al.noise.gradient_sketch.layer_rules import LayerGradient, Matrices, OuterProducts, Vectors
from hf_noise_al.noise.gradient_sketch.rank_one_noise import RankOneNoise

SHAPE = torch.Size([5, 3])


def gradients() -> tuple[LayerGradient, Tensor]:
    source = torch.Generator().manual_seed(1)
    left, right = (torch.randn(2, 4, n, generator=source, dtype=torch.float64) for n in SHAPE)
    return OuterProducts(left, right), torch.einsum("bti,btj->bij", left, right)


def projected(gradient: LayerGradient, width: int, shape: torch.Size = SHAPE) -> Tensor:
    return RankOneNoise(0).project("w", shape, gradient, 0, width)


@pytest.mark.parametrize("form", ["outer products", "matrices", "vectors"])
def test_mean_products_are_those_of_the_gradients(form: str) -> None:
    gradient, whole = gradients()
    shape = SHAPE
    if form == "matrices":
        gradient = Matrices(whole)
    elif form == "vectors":
        gradient, shape = Vectors(whole.flatten(1)), torch.Size([15])
    width = 40_000
    found = projected(gradient, width, shape)
    assert found.shape == (2, width)
    expected = whole.flatten(1) @ whole.flatten(1).T
    torch.testing.assert_close(found @ found.T / width, expected, rtol=0.05, atol=0.05 * float(expected.diag().max()))
    assert float(found.mean().abs()) < 5 * float(found.std()) / width**0.5 * 4  # blocks share their vectors


def test_every_projection_is_the_product_with_one_rank_one_matrix() -> None:
    _, whole = gradients()
    units = torch.eye(15, dtype=torch.float64).reshape(15, *SHAPE)
    noise = projected(Matrices(units), 32)  # (15, 32): the noises themselves
    torch.testing.assert_close(projected(Matrices(whole), 32), whole.flatten(1) @ noise)
    ranks = [int(torch.linalg.matrix_rank(noise[:, k].reshape(SHAPE))) for k in range(32)]
    assert ranks == [1] * 32
    assert int(torch.linalg.matrix_rank(noise)) == 15


@pytest.mark.parametrize(("width", "groups"), [(1, 1), (16, 1), (17, 2), (40, 3)])
def test_sixteen_projections_share_four_vectors_on_each_side(width: int, groups: int) -> None:
    gradient, _ = gradients()
    noise = RankOneNoise(0)
    assert noise.project("w", SHAPE, gradient, 0, width).shape == (2, width)
    assert [drawn.shape for drawn in noise._drawn["w", 0]] == [(5, 4 * groups), (3, 4 * groups)]


def test_forms_of_the_same_gradient_give_the_same() -> None:
    gradient, whole = gradients()
    torch.testing.assert_close(projected(gradient, 20), projected(Matrices(whole), 20))


def test_indices_stand_for_one_hot_vectors() -> None:
    ids = torch.tensor([[0, 4, 4], [1, 0, 2]])
    values = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    one_hot = torch.nn.functional.one_hot(ids, 5).double()
    torch.testing.assert_close(projected(OuterProducts(ids, values), 20), projected(OuterProducts(one_hot, values), 20))


def test_noise_depends_on_seed_name_and_direction_alone() -> None:
    gradient, _ = gradients()

    def found(seed: int = 0, name: str = "w", direction: int = 0) -> Tensor:
        return RankOneNoise(seed).project(name, SHAPE, gradient, direction, 20)

    assert torch.equal(found(), found())
    assert not any(torch.equal(found(), other) for other in (found(seed=1), found(name="v"), found(direction=1)))
    one = RankOneNoise(0)
    one.project("v", SHAPE, gradient, 0, 20)
    assert torch.equal(one.project("w", SHAPE, gradient, 0, 20), found())
