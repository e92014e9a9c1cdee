"""Scores of class probabilities: by hand, at the corners, and in order."""

import math

import pytest
import torch
from torch import Tensor

from hf_noise_al.uncertainty import entropy, least_confidence, margin

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
