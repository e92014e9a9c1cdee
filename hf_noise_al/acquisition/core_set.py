"""Core-set: cover the pool in feature space."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..observables.base import Observable, check_observable, features
from ..selection.checks import check_finite, check_size
from ..selection.k_center import k_center_greedy
from .base import Acquisition, Candidates, Choice


@dataclass(frozen=True)
class CoreSet(Acquisition):
    """Greedy k-center on the penultimate features, labeled examples as centers (Sener and Savarese, ICLR 2018)."""

    observable: Observable = field(default=features, metadata={"help": "Where distances are measured, a function."})

    def __post_init__(self) -> None:
        check_observable(self.observable)

    def looks_at(self, observable: Observable) -> Observable:
        """Return the observable of the settings, the features."""
        return self.observable

    def select(self, candidates: Candidates, query_size: int, generator: torch.Generator) -> Choice:
        """Return the candidates farthest from what is labeled and from each other; scores are distances to it."""
        check_size(query_size, candidates.size)
        rows = candidates.observe(self.observable, "features")
        check_finite(rows)
        if candidates.labeled is None:
            centers, origin = None, rows.new_zeros(rows.shape[1])
        else:
            centers = candidates.labeled.observe(self.observable, "features of labeled examples")
            check_finite(centers)
            origin = centers[0]
        # k_center_greedy starts from the origin; move the origin onto a center so that it adds nothing.
        indices = k_center_greedy(rows - origin, query_size, None if centers is None else centers - origin)
        reference = origin[None] if centers is None else centers
        nearest = [torch.cdist(block, reference).amin(dim=1) for block in torch.split(rows, 4096)]
        return Choice(indices, torch.cat(nearest))
