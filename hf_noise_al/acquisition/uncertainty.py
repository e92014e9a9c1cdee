"""Uncertainty of class probabilities: probabilities -> scores, higher = more uncertain. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..refusals import Refusal


def entropy(probabilities: Tensor) -> Tensor:
    """Return the Shannon entropy in nats: (..., C) -> (...,)."""
    terms: Tensor = torch.special.entr(probabilities)
    return terms.sum(dim=-1)


def margin(probabilities: Tensor) -> Tensor:
    """Return one minus the gap between the two most likely classes: (..., C) -> (...,)."""
    best, second = probabilities.topk(2, dim=-1).values.unbind(dim=-1)
    return 1 - (best - second)


def least_confidence(probabilities: Tensor) -> Tensor:
    """Return one minus the probability of the most likely class: (..., C) -> (...,)."""
    return 1 - probabilities.amax(dim=-1)


def bald(probabilities: Iterable[Tensor]) -> Tensor:
    """Return the mutual information between class and weights in nats: S samples of (..., C) -> (...,).

    Entropy of the mean prediction less the mean entropy of the predictions (Houlsby et al. 2011, equation 2), each
    sample being the prediction of one draw of the weights. Samples are taken one at a time, from an (S, ..., C) tensor
    or from a generator: memory does not grow with S. Sums are in double precision, the result in that of the samples.

    Raises:
        ValueError: there is no sample.

    Example:
        >>> agree, disagree = torch.tensor([[0.5, 0.5], [0.5, 0.5]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> bald(torch.stack([agree, disagree], dim=1)).tolist()
        [0.0, 0.6931471824645996]
    """
    count = 0
    total = entropies = torch.zeros((), dtype=torch.float64)
    for count, sample in enumerate(probabilities, start=1):  # noqa: B007
        wide = sample.double()
        total, entropies = total + wide, entropies + entropy(wide)
    if not count:
        raise Refusal("The mutual information needs at least one sample of class probabilities, got none.")
    return (entropy(total / count) - entropies / count).clamp(min=0).to(sample.dtype)
