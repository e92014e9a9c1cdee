"""Uncertainty of class probabilities: probabilities -> scores, higher = more uncertain. Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor


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
