"""Gradient sketch: the features of noise stability for the price of a backward pass.

A deviation under small weight noise is the Jacobian of the outputs times the noise. Reverse mode gives its product with
hundreds of noises at once: Deep Active Learning with Noise Stability (AAAI 2024), to first order in the noise scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...observables.base import Observable, is_multi_label, probabilities
from ...processes.generators import named_generator
from ...processes.sharded_weights import global_norms, global_numel, global_shape, is_sharded, is_zero3, settle
from ..parameter_filter import perturbed_tensors
from ..perturbation import check_noise_scale
from .first_batch import check_alone, check_together, require_row_per_example
from .followed import Followed, refuse_one_by_one_of_shards, refuse_unsupported_tensors, without_rule
from .layer_rules import LayerGradient, Matrices, Vectors, layer_gradient
from .layer_taps import LayerTaps, cannot_tell_apart
from .rank_one_noise import RankOneNoise
from .weight_use import requiring_gradients


def num_backward_passes(model: nn.Module, observable: Observable, num_output_projections: int) -> int:
    """Return how many backward passes a sketch of `model` takes at most."""
    num_labels = getattr(getattr(model, "config", None), "num_labels", None)
    if observable is not probabilities or num_labels is None:
        return num_output_projections
    return max(1, min(int(num_labels) - (not is_multi_label(model)), num_output_projections))


class GradientSketch:
    """An observable: each example's scaled Jacobian, projected on rank-one Gaussian noise.

    A row approximates what ``num_projections`` perturbations would move one output by, divided by the length of the
    clean row. The mean of its products with another row is that of the examples' scaled Jacobians. It costs a forward
    pass and a backward pass through activations for every output direction: C - 1 of them for class probabilities, or
    ``num_output_projections`` random sign combinations of the outputs where those are fewer; the noises are dealt to
    them. Weights get no gradient. Rows must be computed each on its own by the model; the first batch is checked,
    a single example beside itself. Where weights are sharded, a use of a weight outside of its module is not noticed.

    One by one, the examples of a batch pass through the model alone. Layers may then share work between examples, and
    tensors without a rule, or used outside of their module, are differentiated as they are.

    Args:
        model: In the precision that it is to run in.
        noise_scale: Length of the noise on each tensor relative to the tensor's.
        generator: CPU generator; exactly one number is drawn.
        parameter_filter: Which tensors, see `hf_noise_al.noise.parameter_filter.perturbed_tensors`.
        observable: What is differentiated: ``(model, inputs) -> (B, D)``.
        num_projections: Width of a row.
        num_output_projections: Most output directions.
        one_by_one: Pass examples through the model one at a time.

    Raises:
        UnsupportedModuleError: a perturbed tensor belongs to a module without a rule, or the model uses it outside of
            a call of that module, detaches what comes of it, or changes the module's input in place. One by one the
            first two are no obstacle, but sharded weights are, and examples whose outputs depend on others.
    """

    passes = 1
    """How often it sees every row, for the estimate of time (`Observer`)."""

    def __init__(
        self,
        model: nn.Module,
        noise_scale: float,
        generator: torch.Generator,
        parameter_filter: str = "weight",
        observable: Observable = probabilities,
        num_projections: int = 512,
        num_output_projections: int = 8,
        one_by_one: bool = False,
    ) -> None:
        check_noise_scale(noise_scale)
        if one_by_one:
            refuse_one_by_one_of_shards(is_sharded(model))
        else:
            refuse_unsupported_tensors(model, parameter_filter)
        settle(model)
        tensors = perturbed_tensors(model, parameter_filter)
        self.seed = int(torch.randint(2**63 - 1, (), generator=generator))
        self.noise = RankOneNoise(self.seed)
        norms = dict(zip(tensors, global_norms(list(tensors.values())), strict=True))
        self.scales = {name: noise_scale * norms[name] / math.sqrt(global_numel(t)) for name, t in tensors.items()}
        self.shapes = {name: torch.Size(global_shape(tensor)) for name, tensor in tensors.items()}
        self.followed = Followed(model, tensors)
        if one_by_one:  # else they were refused above
            self.followed.take_directly(without_rule(model, parameter_filter))
        self.observable, self.one_by_one = observable, one_by_one
        self.num_projections, self.num_output_projections = num_projections, num_output_projections
        self.backward_once = any(map(is_zero3, model.parameters()))
        self._directions: Tensor | None = None
        self._checked = False

    def __call__(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return one row per example: (B, num_projections)."""
        size = max((len(value) for value in inputs.values() if isinstance(value, Tensor) and value.ndim), default=0)
        examples = [_example(inputs, number, size) for number in range(size)] if self.one_by_one else []
        # hooks of a compiled model may be compiled away
        with torch.compiler.set_stance("force_eager"), torch.enable_grad():
            if size and not self._checked:
                self._check(model, inputs, size, examples)
                self._checked = True
            if examples:
                return torch.cat([self._rows(model, example, 1) for example in examples])
            return self._rows(model, inputs, size)

    def _check(self, model: nn.Module, inputs: Mapping[str, Any], size: int, examples: list[dict[str, Any]]) -> None:
        observable = partial(self.observable, model)
        if examples:
            check_alone(self.followed, observable, inputs, examples, next(model.parameters()).device.type)
            return
        batch = _twice(inputs) if size == 1 else inputs
        graphs = partial(self._graphs, model, batch)
        check_together(self.followed, partial(observable, batch), max(size, 2), graphs, is_sharded(model))

    def _rows(self, model: nn.Module, inputs: Mapping[str, Any], size: int) -> Tensor:
        with requiring_gradients(self.followed.direct.values()), LayerTaps(self.followed.tapped, size) as taps:
            outputs = self.observable(model, inputs)
            require_row_per_example(outputs, size)
            if not size or not outputs.requires_grad:  # no perturbed tensor changes them
                return outputs.new_zeros(size, self.num_projections)
            graphs = self._graphs(model, inputs, outputs)
            directions = self._directions_for(model, outputs)
            widths = [len(part) for part in torch.arange(self.num_projections).tensor_split(len(directions))]
            parts = [
                self._project(taps, next(graphs), direction, number, width) * math.sqrt(self.num_projections / width)
                for number, (direction, width) in enumerate(zip(directions, widths, strict=True))
            ]
        rows = torch.cat(parts, dim=1)
        lengths = torch.linalg.vector_norm(outputs.detach(), dim=1, keepdim=True, dtype=rows.dtype)
        return rows / torch.where(lengths > 0, lengths, 1)

    def _project(self, taps: LayerTaps, outputs: Tensor, vector: Tensor, direction: int, width: int) -> Tensor:
        """Differentiate ``outputs @ vector`` and project every tensor's gradient on `width` noises: (B, width)."""
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        total = torch.zeros(taps.size, width, dtype=dtype, device=outputs.device)

        def add(name: str, found: LayerGradient) -> None:
            total.add_(self.noise.project(name, self.shapes[name], found, direction, width), alpha=self.scales[name])

        def see(module: nn.Module, names: dict[str, str], inputs: Tensor, gradient: Tensor) -> None:
            if inputs.shape[0] % taps.size or gradient.shape[0] % taps.size:
                raise cannot_tell_apart(list(names.values()))
            if not gradient.numel():
                return
            for parameter, name in names.items():
                if self.scales[name]:
                    add(name, layer_gradient(module, parameter, inputs, gradient, taps.size))

        direct = self.followed.direct
        gradients = taps.backward(outputs @ vector, see, list(direct.values()))
        for name, gradient in zip(direct, gradients, strict=True):
            if gradient is not None and self.scales[name]:
                whole = gradient[None].flatten(2) if gradient.ndim > 1 else gradient.reshape(1, -1)
                add(name, Matrices(whole) if gradient.ndim > 1 else Vectors(whole))
        return total

    def _graphs(self, model: nn.Module, inputs: Mapping[str, Any], outputs: Tensor) -> Iterator[Tensor]:
        """Yield outputs for one backward pass after another: the same, unless weights are gathered for one alone."""
        while True:
            yield outputs
            if self.backward_once:
                outputs = self.observable(model, inputs)

    def _directions_for(self, model: nn.Module, outputs: Tensor) -> Tensor:
        """Return the directions (M, D) that outputs are differentiated in, whose outer products add up to one."""
        if self._directions is None:
            width = outputs.shape[1]
            constant_sum = self.observable is probabilities and not is_multi_label(model)
            most = min(self.num_output_projections, self.num_projections)
            if width - constant_sum <= most:
                directions = _orthogonal_to_ones(width) if constant_sum else torch.eye(width, dtype=torch.float64)
            else:
                source = named_generator(self.seed, "output directions")
                signs = torch.randint(0, 2, (most, width), generator=source)
                directions = (2.0 * signs.double() - 1) / math.sqrt(most)
            self._directions = directions.to(outputs.device, outputs.dtype)
        return self._directions


def _example(inputs: Mapping[str, Any], number: int, size: int) -> dict[str, Any]:
    """Return example `number` of a batch of `size` as a batch of its own; what is not per example stays."""

    def take(value: Any) -> Any:
        of_each = isinstance(value, list | Tensor) and (isinstance(value, list) or value.ndim) and len(value) == size
        return value[number : number + 1] if of_each else value

    return {name: take(value) for name, value in inputs.items()}


def _twice(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch of one example as a batch of two equal ones."""

    def take(value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.cat([value, value]) if value.ndim and len(value) == 1 else value
        return [*value, *value] if isinstance(value, list) and len(value) == 1 else value

    return {name: take(value) for name, value in inputs.items()}


def _orthogonal_to_ones(width: int) -> Tensor:
    """Return an orthonormal basis of what sums to zero: (width - 1, width); class probabilities move nowhere else."""
    rows = []
    for k in range(1, width):
        row = torch.zeros(width, dtype=torch.float64)
        row[:k], row[k] = 1, -k
        rows.append(row / math.sqrt(k * (k + 1)))
    return torch.stack(rows)
