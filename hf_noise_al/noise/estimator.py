"""Estimators of how outputs move under noise: what each costs, why it cannot be used, and the rows that it gives."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ..observables.base import Observe
from .gradient_sketch.layer_taps import UnsupportedModuleError

logger = logging.getLogger(__name__)


class Estimator(Protocol):
    """One way to find how far and where to the outputs for each example move."""

    @property
    def name(self) -> str:
        """What log lines call it."""
        ...

    def cost(self, model: nn.Module) -> int:
        """Return how many passes it takes: forward ones, or backward ones where it takes a single forward pass."""
        ...

    def why_not(self, model: nn.Module) -> str | None:
        """Return why it cannot be used with `model`, as far as that is known before a batch is seen; else None."""
        ...

    def check_memory(self, num_rows: int) -> None:
        """Raise ValueError where `num_rows` rows cannot fit into memory, as far as their width is known."""
        ...

    def rows(self, model: nn.Module, groups: list[Observe], generator: torch.Generator, num_rows: int) -> list[Tensor]:
        """Return the rows of the examples that each of `groups` observes: (N, W).

        Args:
            model: The model; it is as before afterwards.
            groups: Observe one group of examples each.
            generator: Source of randomness.
            num_rows: How many examples these are together, on this process.

        Raises:
            UnsupportedModuleError: it cannot be used with `model`, as the first batch shows.
        """
        ...


def first_that_can(
    estimators: Sequence[Estimator], model: nn.Module, groups: list[Observe], generator: torch.Generator, num_rows: int
) -> list[Tensor]:
    """Return the rows of the first of `estimators` that can be used with `model`; each starts from the same generator.

    Raises:
        UnsupportedModuleError: the last one cannot be used either.
    """
    state = generator.get_state()
    *others, last = estimators
    refusal: UnsupportedModuleError | None = None
    for estimator in others:
        try:
            return estimator.rows(model, groups, generator, num_rows)
        except UnsupportedModuleError as error:
            refusal = error
            logger.info(f"estimator='auto' cannot take {estimator.name}: {error}")
            generator.set_state(state)
    if refusal is not None:
        logger.warning(f"estimator='auto' takes {last.name}: {refusal}")
    return last.rows(model, groups, generator, num_rows)
