"""Noise stability: perturb the weights a little, see whose outputs move, choose movements large and different."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from ..observables import Observable, check_observable
from ..perturbation import check_noise_scale, full_precision, log_choice, perturbed
from ..selection import (
    SelectionName,
    check_finite,
    check_size,
    check_whole_number,
    k_center_greedy,
    row_norms,
    select_rows,
)
from .base import Acquisition, Candidates, Query


@dataclass(frozen=True)
class NoiseStability(Acquisition):
    """Deep Active Learning with Noise Stability (AAAI 2024, arXiv 2205.13340), by finite differences.

    A query costs ``num_perturbations + 1`` forward passes of the candidates, in float32 whatever the training
    precision is, and holds ``size * num_perturbations * D`` numbers, D the width of the observable.
    """

    noise_scale: float = 1e-3
    """Length of the noise on each tensor relative to the tensor's."""
    num_perturbations: int = 30
    """How many perturbations each candidate is seen under."""
    parameter_filter: str = "weight"
    """Which parameters are perturbed, see `hf_noise_al.perturbation.perturbed_tensors`."""
    observable: Observable | None = None
    """What to look at; None takes the task's."""
    selection: SelectionName = "k_center"
    """How the batch is chosen; "top_k" is magnitude without direction."""
    normalize_rows: bool = False
    """Scale every candidate's deviations to length one: direction without magnitude."""
    labeled_as_centers: bool = False
    """Also keep away from what is labeled already, at the price of observing it."""

    def __post_init__(self) -> None:
        check_noise_scale(self.noise_scale)
        check_whole_number("num_perturbations", self.num_perturbations)
        if self.observable is not None:
            check_observable(self.observable)
        if self.selection not in get_args(SelectionName):
            raise ValueError(f"Unknown selection {self.selection!r}. Use one of {', '.join(get_args(SelectionName))}.")
        if self.labeled_as_centers and self.selection not in ("k_center", "k_means_plus_plus"):
            raise ValueError(
                f"`labeled_as_centers` has no meaning with selection {self.selection!r}: it takes no centers. "
                "Use 'k_center' or 'k_means_plus_plus'."
            )

    def select(self, candidates: Candidates, query_size: int, generator: torch.Generator) -> Query:
        """Return the candidates whose outputs move most and most differently; scores are lengths of deviations."""
        check_size(query_size, candidates.size)
        log_choice(candidates.model, self.parameter_filter)
        seen = [candidates]
        if self.labeled_as_centers and candidates.labeled is not None:
            seen.append(candidates.labeled)
        rows, *others = self._deviations(seen, generator)
        centers = others[0] if others else None
        scores = row_norms(rows)
        if self.normalize_rows:
            rows, centers = _unit_rows(rows), None if centers is None else _unit_rows(centers)
            if self.selection == "k_center":  # all are equally far from the origin: start where the score is highest
                first = int(scores.argmax())
                rows = torch.where(scores[:, None] > 0, rows, rows[first])  # what does not move has no new direction
                return Query(k_center_greedy(rows, query_size, centers, first), scores)
        return Query(select_rows(self.selection, rows, query_size, generator, centers), scores)

    def deviations(self, candidates: Candidates, generator: torch.Generator) -> Tensor:
        """Return ``(o_k - o) / ||o||`` for every perturbation k, side by side: (size, num_perturbations * D)."""
        return self._deviations([candidates], generator)[0]

    def _deviations(self, seen: list[Candidates], generator: torch.Generator) -> list[Tensor]:
        model, count = seen[0].model, self.num_perturbations
        with full_precision(model):
            clean = [self._observe(group, "clean pass") for group in seen]
            norms = [torch.where((norm := row_norms(rows)) > 0, norm, 1)[:, None] for rows in clean]
            features = [rows.new_empty(len(rows), count, rows.shape[1]) for rows in clean]
            for k in range(count):
                with perturbed(model, self.noise_scale, generator, self.parameter_filter):
                    for group, rows, norm, feature in zip(seen, clean, norms, features, strict=True):
                        moved = self._observe(group, f"perturbation {k + 1}/{count}")
                        torch.div(moved - rows, norm, out=feature[:, k])
        return [feature.flatten(1) for feature in features]

    def _observe(self, group: Candidates, description: str) -> Tensor:
        rows = group.observe(self.observable or group.observable, description)
        check_finite(rows)
        return rows


def _unit_rows(rows: Tensor) -> Tensor:
    norms = row_norms(rows)[:, None]
    return rows / torch.where(norms > 0, norms, 1)
