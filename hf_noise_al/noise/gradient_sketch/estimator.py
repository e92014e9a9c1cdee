"""The gradient sketch as an estimator: a backward pass for each output direction."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...observables.base import Observable, Observe
from ..full_precision import full_precision
from ..memory import refuse_beyond_memory
from .followed import unsupported_tensors
from .sketch import GradientSketch, num_backward_passes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SketchedGradients:
    """Rows of a `GradientSketch`, in float32 or in a lower precision that is asked for."""

    noise_scale: float
    parameter_filter: str
    observable: Observable
    num_projections: int
    num_output_projections: int
    one_by_one: bool
    lower_precision: torch.dtype | None = None

    @property
    def name(self) -> str:
        """What log lines call it."""
        return f"the gradient sketch{', one example at a time' if self.one_by_one else ''}"

    def cost(self, model: nn.Module) -> int:
        """Return the number of backward passes."""
        return num_backward_passes(model, self.observable, self.num_output_projections)

    def why_not(self, model: nn.Module) -> str | None:
        """Return which perturbed tensors have no rule; one by one none is needed."""
        unsupported = [] if self.one_by_one else unsupported_tensors(model, self.parameter_filter)
        if not unsupported:
            return None
        return f"the gradient sketch has no rule for {', '.join(unsupported[:5])}, unless one_by_one=True"

    def check_memory(self, num_rows: int) -> None:
        """Raise ValueError where `num_rows` rows cannot fit into memory."""
        remedy = "Lower `num_projections` in `acquisition_kwargs`, or `candidate_size`."
        refuse_beyond_memory(num_rows, self.num_projections, remedy)

    def rows(self, model: nn.Module, groups: list[Observe], generator: torch.Generator, num_rows: int) -> list[Tensor]:
        """Return the rows of the examples that each of `groups` observes: (N, num_projections)."""
        self.check_memory(num_rows)
        width = self.num_projections
        logger.info(
            f"{self.name.removeprefix('the ').capitalize()}: features take {num_rows * width * 4 / 1e6:.1f} MB on this "
            f"process ({num_rows} x {width}), and a batch's activations are kept for its backward pass, as in training."
        )
        with full_precision(model, gathered_as=self.lower_precision):
            sketch = GradientSketch(
                model,
                self.noise_scale,
                generator,
                self.parameter_filter,
                self.observable,
                self.num_projections,
                self.num_output_projections,
                self.one_by_one,
            )
            device_type, lower = next(model.parameters()).device.type, self.lower_precision
            with nullcontext() if lower is None else torch.autocast(device_type, lower):
                return [observe(sketch, "gradient sketch") for observe in groups]
