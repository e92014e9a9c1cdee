"""Deviations as published: outputs under perturbed weights minus the clean ones, one pass for each perturbation."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..observables import Observable
from ..perturbation import full_precision, perturbed
from ..projection import CountSketch
from ..selection import row_norms
from .base import Candidates

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FiniteDifferences:
    """Deviations ``(o_k - o) / ||o||`` of every perturbation k, side by side (AAAI 2024, arXiv 2205.13340).

    Rows of more than `max_feature_dim` numbers are projected as they arrive, so that memory grows neither with the
    number of perturbations nor with the width of the outputs. Runs in float32 whatever the training precision is.
    """

    noise_scale: float
    num_perturbations: int
    parameter_filter: str
    observable: Observable
    max_feature_dim: int

    def deviations(self, groups: list[Candidates], generator: torch.Generator) -> list[Tensor]:
        """Return the deviations of each group's candidates: (size, at most max_feature_dim)."""
        model, count = groups[0].model, self.num_perturbations
        seed = generator.initial_seed()
        observable = _Narrowed(self.observable, self.max_feature_dim, seed)
        with full_precision(model):
            started = time.perf_counter()
            clean = [group.observe(observable, "clean pass") for group in groups]
            seconds = time.perf_counter() - started
            dimension = clean[0].shape[1] - 1  # the last number is the length of the whole row
            width = min(count * dimension, self.max_feature_dim)
            self._announce(sum(len(rows) for rows in clean), width, count * seconds)
            found = [rows.new_zeros(len(rows), width) for rows in clean]
            for k in range(count):
                project = None if width == count * dimension else CountSketch(dimension, width, seed + k)
                with perturbed(model, self.noise_scale, generator, self.parameter_filter):
                    for group, rows, features in zip(groups, clean, found, strict=True):
                        moved = group.observe(observable, f"perturbation {k + 1}/{count}")
                        deviation = (moved[:, :-1] - rows[:, :-1]) / torch.where(rows[:, -1:] > 0, rows[:, -1:], 1)
                        if project is None:
                            features[:, k * dimension : (k + 1) * dimension] = deviation
                        else:
                            features += project(deviation)
        return found

    def _announce(self, size: int, width: int, seconds: float) -> None:
        logger.info(
            f"Finite differences: {self.num_perturbations + 1} forward passes of {size} candidates; by the first, "
            f"the others take about {seconds:.0f} s; features take {size * width * 4 / 1e6:.0f} MB ({size} x {width})."
        )


@dataclass
class _Narrowed:
    """An observable whose rows are projected to `width` where they are wider; the length of the whole comes last."""

    observable: Observable
    width: int
    seed: int
    _projection: CountSketch | None = None

    def __call__(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        rows = self.observable(model, inputs)
        if rows.ndim != 2:
            return rows  # `observe` says what is wrong
        lengths = row_norms(rows)
        if rows.shape[1] > self.width:
            if self._projection is None:
                self._projection = CountSketch(rows.shape[1], self.width, self.seed)
            rows = self._projection(rows)
        return torch.cat([rows, lengths[:, None]], dim=1)
