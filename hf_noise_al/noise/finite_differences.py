"""Deviations as published: outputs under perturbed weights minus the clean ones, one pass for each perturbation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..observables.base import Observable, Observe
from ..processes.sharded_weights import local
from ..selection.checks import row_norms
from .full_precision import full_precision
from .memory import refuse_beyond_memory
from .parameter_filter import perturbed_tensors
from .perturbation import perturbed
from .projection import CountSketch

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

    @property
    def name(self) -> str:
        """What log lines call it."""
        return "finite differences"

    def cost(self, model: nn.Module) -> int:
        """Return the number of forward passes."""
        return self.num_perturbations + 1

    def why_not(self, model: nn.Module) -> None:
        """Return None: any model will do."""

    def check_memory(self, num_rows: int) -> None:
        """Do nothing: the width is known, and checked, once the model has returned its first outputs."""

    def rows(self, model: nn.Module, groups: list[Observe], generator: torch.Generator, num_rows: int) -> list[Tensor]:
        """Return the deviations of the examples that each of `groups` observes: (N, at most max_feature_dim)."""
        count = self.num_perturbations
        seed = generator.initial_seed()

        def announce(dimension: int) -> None:
            width = min(count * dimension, self.max_feature_dim)
            refuse_beyond_memory(
                num_rows, width, "Lower `max_feature_dim` in `acquisition_kwargs`, or `candidate_size`."
            )
            copy = sum(local(tensor).nbytes for tensor in perturbed_tensors(model, self.parameter_filter).values())
            logger.info(
                f"Finite differences: {count + 1} forward passes. Features take {num_rows * width * 4 / 1e6:.1f} MB "
                f"on this process ({num_rows} x {width}), the copy of the perturbed tensors {copy / 1e6:.1f} MB."
            )

        observable = _Narrowed(self.observable, self.max_feature_dim, seed, count + 1, announce)
        with full_precision(model):
            clean = [observe(observable, "clean pass") for observe in groups]
            dimension = clean[0].shape[1] - 1  # the last number is the length of the whole row
            width = min(count * dimension, self.max_feature_dim)
            found = [rows.new_zeros(len(rows), width) for rows in clean]
            for k in range(count):
                project = None if width == count * dimension else CountSketch(dimension, width, seed + k)
                with perturbed(model, self.noise_scale, generator, self.parameter_filter):
                    for observe, rows, features in zip(groups, clean, found, strict=True):
                        moved = observe(observable, f"perturbation {k + 1}/{count}")
                        deviation = (moved[:, :-1] - rows[:, :-1]) / torch.where(rows[:, -1:] > 0, rows[:, -1:], 1)
                        if project is None:
                            features[:, k * dimension : (k + 1) * dimension] = deviation
                        else:
                            features += project(deviation)
        return found


@dataclass
class _Narrowed:
    """An observable whose rows are projected to `width` where they are wider; the length of the whole comes last."""

    observable: Observable
    width: int
    seed: int
    passes: int
    """How often it will see every row, for the estimate of time (`Observer`)."""
    announce: Callable[[int], None] | None
    """Called once with the width of the rows, after the first batch."""
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
        if self.announce is not None:
            self.announce(rows.shape[1])
            self.announce = None
        return torch.cat([rows, lengths[:, None]], dim=1)
