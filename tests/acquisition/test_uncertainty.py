"""Scores of class probabilities: by hand, at the corners, and in order."""

import math
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from hf_noise_al.acquisition.uncertainty import bald, entropy, least_confidence, margin

SCORES = [entropy, margin, least_confidence]
ROWS = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]])


def test_by_hand() -> None:
    expected = {
        entropy: [0.0, 1.5 * math.log(2), math.log(3)],
        margin: [0.0, 0.75, 1.0],
        least_confidence: [0.0, 0.5, 2 / 3],
    }
    for score, values in expected.items():
        torch.testing.assert_close(score(ROWS), torch.tensor(values))


@pytest.mark.parametrize("score", SCORES)
def test_the_most_even_row_is_the_most_uncertain(score: object) -> None:
    values: Tensor = score(ROWS)  # type: ignore[operator]
    assert values.argsort(descending=True).tolist() == [2, 1, 0]
    assert torch.isfinite(values).all() and (values >= 0).all()


@pytest.mark.parametrize("score", SCORES)
def test_order_of_classes_does_not_matter_and_leading_dimensions_stay(score: object) -> None:
    torch.manual_seed(0)
    rows = torch.randn(4, 3, 5).softmax(dim=-1)
    values: Tensor = score(rows)  # type: ignore[operator]
    assert values.shape == (4, 3)
    torch.testing.assert_close(score(rows.flip(-1)), values)  # type: ignore[operator]
    torch.testing.assert_close(score(rows[2]), values[2])  # type: ignore[operator]


@pytest.mark.parametrize("score", SCORES)
def test_two_classes_agree_on_the_order(score: object) -> None:
    p = torch.tensor([0.9, 0.45, 0.2, 0.7])
    values: Tensor = score(torch.stack([p, 1 - p], dim=1))  # type: ignore[operator]
    assert values.argsort(descending=True).tolist() == [1, 3, 2, 0]


@pytest.mark.parametrize("score", SCORES)
def test_nan_stays_nan(score: object) -> None:
    assert torch.isnan(score(torch.tensor([[float("nan"), 0.5]]))).all()  # type: ignore[operator]


# ---- mutual information ------------------------------------------------------------------------------------------


def mutual_information(samples: Tensor) -> Tensor:
    """By the other formula: the mean divergence of the samples from their mean; (S, N, C) -> (N,)."""
    mean = samples.mean(dim=0)
    return torch.special.xlogy(samples, samples / mean).nan_to_num(0).sum(dim=-1).mean(dim=0)


def test_bald_is_the_mean_divergence_from_the_mean_prediction() -> None:
    torch.manual_seed(0)
    samples = (3 * torch.randn(7, 11, 4)).softmax(dim=-1).double()
    samples[:, 0, 1] = 0
    samples[:, 0] /= samples[:, 0].sum(dim=-1, keepdim=True)
    torch.testing.assert_close(bald(samples), mutual_information(samples))
    assert bald(samples.float()).dtype == torch.float32 and bald(samples).dtype == torch.float64
    torch.testing.assert_close(bald(samples.float()).double(), mutual_information(samples), atol=1e-6, rtol=1e-5)


def test_bald_by_hand() -> None:
    sure = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(bald(torch.stack([sure, sure.flip(0)])), torch.full((2,), math.log(2)))
    assert bald(torch.full((5, 3, 4), 0.25)).tolist() == [0, 0, 0], "unsure in the same way: nothing to learn"
    same = torch.rand(1, 50, 3, generator=torch.Generator().manual_seed(0)).softmax(dim=-1).expand(9, -1, -1)
    assert (bald(same) >= 0).all() and (bald(same) < 1e-6).all()


def test_bald_keeps_leading_dimensions_and_the_order_of_samples_does_not_matter() -> None:
    torch.manual_seed(0)
    samples = torch.randn(6, 4, 3, 2).softmax(dim=-1)
    assert bald(samples).shape == (4, 3)
    torch.testing.assert_close(bald(samples.flip(0)), bald(samples), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(bald(samples)[2], bald(samples[:, 2]))


def test_bald_takes_samples_one_at_a_time_and_leaves_them_as_they_were() -> None:
    torch.manual_seed(0)
    samples = torch.randn(6, 4, 3, dtype=torch.float64).softmax(dim=-1)
    before = samples.clone()
    given: list[weakref.ref[Tensor]] = []

    def one_by_one() -> Iterator[Tensor]:
        for sample in samples.clone().unbind():
            copy = sample.clone()
            given.append(weakref.ref(copy))
            yield copy
            del copy
            assert sum(reference() is not None for reference in given) <= 1, "holds on to the samples"

    torch.testing.assert_close(bald(one_by_one()), bald(samples))
    assert len(given) == 6
    assert torch.equal(samples, before)


def test_bald_needs_a_sample_and_keeps_nan() -> None:
    with pytest.raises(ValueError, match="needs at least one sample of class probabilities, got none"):
        bald(iter(()))
    assert torch.isnan(bald(torch.full((3, 1, 2), float("nan")))).all()
