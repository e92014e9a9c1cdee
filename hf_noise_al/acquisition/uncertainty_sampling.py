"""Uncertainty sampling: the candidates whose class probabilities are the least certain."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..observables import is_multi_label, mean_over_pixels, probabilities, segmentation_map
from ..selection import check_finite, check_size, top_k
from ..uncertainty import entropy, least_confidence, margin
from .base import Acquisition, Candidates, Query


@dataclass(frozen=True)
class UncertaintySampling(Acquisition):
    """Take the highest scores of one forward pass; the mean over labels or pixels where there are several."""

    def select(self, candidates: Candidates, query_size: int, generator: torch.Generator) -> Query:
        """Return the `query_size` most uncertain candidates."""
        check_size(query_size, candidates.size)
        if candidates.observable is segmentation_map:
            scores = candidates.observe(mean_over_pixels(self.score), "uncertainty of pixels")[:, 0]
            check_finite(scores[:, None])
            return Query(top_k(scores, query_size), scores)
        rows = candidates.observe(probabilities, "probabilities")
        check_finite(rows)
        if is_multi_label(candidates.model):
            scores = self.score(torch.stack([rows, 1 - rows], dim=-1)).mean(dim=-1)
        else:
            scores = self.score(rows)
        return Query(top_k(scores, query_size), scores)

    @abstractmethod
    def score(self, probabilities: Tensor) -> Tensor:
        """Return the uncertainty of class probabilities: (..., C) -> (...,)."""


@dataclass(frozen=True)
class EntropySampling(UncertaintySampling):
    """Highest entropy of the class probabilities."""

    def score(self, probabilities: Tensor) -> Tensor:
        """Return the entropy in nats: (..., C) -> (...,)."""
        return entropy(probabilities)


@dataclass(frozen=True)
class MarginSampling(UncertaintySampling):
    """Smallest gap between the two most likely classes."""

    def score(self, probabilities: Tensor) -> Tensor:
        """Return one minus the gap: (..., C) -> (...,)."""
        return margin(probabilities)


@dataclass(frozen=True)
class LeastConfidence(UncertaintySampling):
    """Lowest probability of the most likely class."""

    def score(self, probabilities: Tensor) -> Tensor:
        """Return one minus the highest probability: (..., C) -> (...,)."""
        return least_confidence(probabilities)
