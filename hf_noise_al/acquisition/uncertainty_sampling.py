"""Uncertainty sampling: the candidates whose class probabilities are the least certain."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..observables.base import Observable, is_multi_label, probabilities
from ..observables.parts import ProbabilitiesOfParts, mean_over_parts
from ..selection.checks import check_finite, check_size
from ..selection.choosing import top_k
from .base import Acquisition, Candidates, Choice
from .uncertainty import entropy, least_confidence, margin


@dataclass(frozen=True)
class UncertaintySampling(Acquisition):
    """Take the highest scores of one forward pass.

    They are the mean over labels where the task is multi-label, and over words or pixels where each is classified.
    """

    def looks_at(self, observable: Observable) -> Observable:
        """Return the class probabilities, of each part of an example where the task has parts."""
        return observable if isinstance(observable, ProbabilitiesOfParts) else probabilities

    def select(self, candidates: Candidates, query_size: int, generator: torch.Generator) -> Choice:
        """Return the `query_size` most uncertain candidates."""
        check_size(query_size, candidates.size)
        scores = self._scores(candidates)
        return Choice(top_k(scores, query_size), scores)

    def _scores(self, candidates: Candidates) -> Tensor:
        if isinstance(candidates.observable, ProbabilitiesOfParts):
            means = candidates.observe(mean_over_parts(candidates.observable, self.score), "uncertainty")
            check_finite(means)
            return means[:, 0]
        rows = candidates.observe(probabilities, "probabilities")
        check_finite(rows)
        if is_multi_label(candidates.model):
            return self.score(torch.stack([rows, 1 - rows], dim=-1)).mean(dim=-1)
        return self.score(rows)

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
