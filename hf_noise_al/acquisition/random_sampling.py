"""Random sampling: the baseline that every other acquisition has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..selection.checks import check_size
from ..selection.choosing import top_k
from .base import Acquisition, Candidates, Choice


@dataclass(frozen=True)
class RandomSampling(Acquisition):
    """Choose uniformly, without looking at the model."""

    def select(self, candidates: Candidates, query_size: int, generator: torch.Generator) -> Choice:
        """Return `query_size` candidates drawn uniformly; the scores are the random numbers that drew them."""
        check_size(query_size, candidates.size)
        scores = torch.rand(candidates.size, generator=generator, dtype=torch.float64)
        return Choice(top_k(scores, query_size), scores)
