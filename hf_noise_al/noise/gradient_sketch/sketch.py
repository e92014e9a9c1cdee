"""Gradient sketch: the features of noise stability for the price of a backward pass.

A deviation under small weight noise is the Jacobian of the outputs times the noise. Reverse mode gives its product with
hundreds of noises at once: Deep Active Learning with Noise Stability (AAAI 2024), to first order in the noise scale.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...observables.base import Observable, is_multi_label, probabilities
from ...processes.generators import named_generator
from ...processes.sharded_weights import global_norms, global_numel, global_shape, is_sharded, is_zero3, settle
from ..parameter_filter import perturbed_tensors
from ..perturbation import check_noise_scale
from .layer_rules import LayerGradient, Matrices, Vectors, layer_gradient, why_unsupported
from .layer_taps import LayerTaps, UnsupportedModuleError, cannot_tell_apart, ignore
from .rank_one_noise import RankOneNoise
from .weight_use import decisive, decisive_tensors, detached, requiring_gradients, used_directly

MOST_CHECKS = 6
"""Backward passes that show at most whether the model computes each example on its own; always, where it is sharded."""

ALONE_TOLERANCE = 1e-3
"""What the outputs of an example may differ by, alone and in a batch, relative to the largest."""


def unsupported_tensors(model: nn.Module, parameter_filter: str = "weight") -> list[str]:
    """Name the perturbed tensors of `model` that the gradient sketch cannot project, each with the reason."""
    return [f"{name} ({why})" for name, why in _without_rule(model, parameter_filter).items()]


def refuse_unsupported_tensors(model: nn.Module, parameter_filter: str) -> None:
    """Raise UnsupportedModuleError where `unsupported_tensors` names any."""
    if unsupported := unsupported_tensors(model, parameter_filter):
        raise UnsupportedModuleError(
            f"The gradient sketch has no rule for {len(unsupported)} of the perturbed tensors: "
            f"{', '.join(unsupported[:5])}{', ...' if len(unsupported) > 5 else ''}. "
            "Use one_by_one=True or estimator='finite_difference', or leave them out by `parameter_filter`."
        )


def refuse_one_by_one_of_shards(sharded: bool) -> None:
    """Raise UnsupportedModuleError where weights are `sharded`: each pass of an example would need every process."""
    if sharded:
        raise UnsupportedModuleError(
            "The gradient sketch cannot take examples one by one where weights are sharded: processes would need as "
            "many passes as the one with most. Use one_by_one=False, estimator='finite_difference' or "
            "DistributedDataParallel."
        )


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
        names = {id(tensor): name for name, tensor in tensors.items()}
        held = [(module, _names_held(module, names)) for module in model.modules()]
        self.modules = [(module, known) for module, known in held if known]
        self.direct: dict[str, Tensor] = {}
        """Tensors that are differentiated themselves, in the place of the outputs of the modules that hold them."""
        if one_by_one:  # else they were refused above
            self._take_directly(tensors, _without_rule(model, parameter_filter))
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
                if examples:
                    self._check_alone(model, inputs, examples)
                else:
                    self._check(model, _twice(inputs) if size == 1 else inputs, max(size, 2))
                self._checked = True
            if examples:
                return torch.cat([self._rows(model, example, 1) for example in examples])
            return self._rows(model, inputs, size)

    def _rows(self, model: nn.Module, inputs: Mapping[str, Any], size: int) -> Tensor:
        with requiring_gradients(self.direct.values()), LayerTaps(self.modules, size) as taps:
            outputs = self.observable(model, inputs)
            _check_size(outputs, size)
            if not size or not outputs.requires_grad:  # no perturbed tensor has a say in them
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

        gradients = taps.backward(outputs @ vector, see, list(self.direct.values()))
        for name, gradient in zip(self.direct, gradients, strict=True):
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

    def _tensors(self) -> dict[str, Tensor]:
        """Return the perturbed tensors that the taps see, by name."""
        return {name: module.get_parameter(p) for module, known in self.modules for p, name in known.items()}

    def _take_directly(self, tensors: Mapping[str, Tensor], names: Iterable[str]) -> None:
        self.direct.update({name: tensors[name] for name in names})
        left = [(module, {p: n for p, n in known.items() if n not in self.direct}) for module, known in self.modules]
        self.modules = [(module, known) for module, known in left if known]

    def _check(self, model: nn.Module, inputs: Mapping[str, Any], size: int) -> None:
        """Refuse a model in which perturbed weights reach the outputs on ways that the taps do not see.

        Where weights are sharded they are followed through their modules alone: every process has to pass the model as
        often as the others.
        """
        with LayerTaps(self.modules, size) as taps:
            outputs = self._checked_outputs(model, inputs, taps)
            if not taps.called:
                raise UnsupportedModuleError(
                    "The gradient sketch saw none of the perturbed modules called. Use one_by_one=True or "
                    "estimator='finite_difference'."
                )
            if outputs.requires_grad:
                codes = _codes(size, MOST_CHECKS if is_sharded(model) else None)
                taps.check_that_rows_are_apart(self._graphs(model, inputs, outputs), codes)
        if is_sharded(model):
            return
        run = partial(self.observable, model, inputs)
        if used := used_directly(self.modules, run):
            raise _cannot_follow(used, "otherwise than through a call of its module", "one_by_one=True or ")
        self._refuse_detached(taps, run, outputs, {})

    def _check_alone(self, model: nn.Module, inputs: Mapping[str, Any], examples: list[dict[str, Any]]) -> None:
        """Refuse a model whose outputs for an example depend on others, and find what must be differentiated itself."""
        with torch.no_grad(), torch.autocast(_device_type(model), enabled=False):
            together = self.observable(model, inputs)
            _check_size(together, len(examples))
            alone = torch.cat([self.observable(model, example) for example in examples])
        most = ALONE_TOLERANCE * float(together.nan_to_num(0, 0, 0).abs().max())
        if alone.shape != together.shape or not torch.allclose(alone, together, rtol=0, atol=most, equal_nan=True):
            raise UnsupportedModuleError(
                "The gradient sketch takes examples one by one, and the outputs of this model for an example depend on "
                "the others of the batch. Use estimator='finite_difference'."
            )
        run = partial(self.observable, model, examples[0])
        self._take_directly(self._tensors(), used_directly(self.modules, run))
        with requiring_gradients(self.direct.values()), LayerTaps(self.modules, 1) as taps:
            outputs = run()
            gradients: Sequence[Tensor | None] = [None] * len(self.direct)
            if outputs.requires_grad:
                taps.check_that_rows_are_apart(itertools.repeat(outputs), torch.ones(1, 1, dtype=torch.bool))
                gradients = taps.backward(outputs.square(), ignore, list(self.direct.values()))
        silent = {name: self.direct[name] for name, found in zip(self.direct, gradients, strict=True) if found is None}
        self._refuse_detached(taps, run, outputs, silent)

    def _refuse_detached(
        self, taps: LayerTaps, run: Callable[[], Tensor], outputs: Tensor, tensors: Mapping[str, Tensor]
    ) -> None:
        """Refuse what decides about outputs without a gradient: modules that the taps saw none of, and `tensors`."""
        silent = [(module, known) for module, known in self.modules if module in taps.called - taps.seen]
        clean, every = outputs.detach(), {**self.direct, **self._tensors()}
        names = decisive(silent, run, clean) or decisive_tensors(tensors, run, clean) or detached(every, run, clean)
        if names:
            raise _cannot_follow(names, "through something that the model detaches (`detach`, `torch.no_grad`)")

    def _checked_outputs(self, model: nn.Module, inputs: Mapping[str, Any], taps: LayerTaps) -> Tensor:
        try:
            outputs = self.observable(model, inputs)
        except RuntimeError as error:
            if not taps.expanded or isinstance(error, torch.OutOfMemoryError):
                raise
            expanded, taps.expands = taps.expanded, False
            self.observable(model, inputs)  # raises where it was not that
            raise cannot_tell_apart(expanded) from error
        _check_size(outputs, taps.size)
        return outputs

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


def _without_rule(model: nn.Module, parameter_filter: str) -> dict[str, str]:
    """Return the names of perturbed tensors that are held by a module without a rule for them, each with the reason."""
    names = {id(tensor): name for name, tensor in perturbed_tensors(model, parameter_filter).items()}
    reasons: dict[str, str] = {}
    for module in model.modules():
        for parameter, name in _names_held(module, names).items():
            if why := why_unsupported(module, parameter):
                reasons[name] = why
    return reasons


def _cannot_follow(names: list[str], how: str, instead: str = "") -> UnsupportedModuleError:
    return UnsupportedModuleError(
        f"The gradient sketch cannot follow {', '.join(names[:5])}: the outputs depend on it {how}. Use "
        f"{instead}estimator='finite_difference', or leave it out by `parameter_filter`."
    )


def _check_size(outputs: Tensor, size: int) -> None:
    if len(outputs) != size:
        raise UnsupportedModuleError(
            f"The observable returns {len(outputs)} rows, and the first dimension of the largest input is {size}: the "
            "gradient sketch needs examples there. Use estimator='finite_difference'."
        )


def _device_type(model: nn.Module) -> str:
    return next(model.parameters()).device.type


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


def _codes(size: int, passes: int | None) -> Tensor:
    """Return in which of `passes` each of `size` examples takes part: bool (passes, size).

    Of any two examples each takes part in a pass that the other does not: half of the passes, another half for each
    (where `MOST_CHECKS` passes have too few halves, they are given again). Without `passes` they are as few as can be.
    """
    if passes is None:
        passes = next((p for p in range(2, MOST_CHECKS) if math.comb(p, p // 2) >= size), MOST_CHECKS)
    halves = itertools.cycle(itertools.combinations(range(passes), passes // 2))
    codes = torch.zeros(passes, size, dtype=torch.bool)
    for example, half in zip(range(size), halves, strict=False):
        codes[list(half), example] = True
    return codes


def _names_held(module: nn.Module, names: dict[int, str]) -> dict[str, str]:
    return {p: names[id(t)] for p, t in module._parameters.items() if t is not None and id(t) in names}


def _orthogonal_to_ones(width: int) -> Tensor:
    """Return an orthonormal basis of what sums to zero: (width - 1, width); class probabilities move nowhere else."""
    rows = []
    for k in range(1, width):
        row = torch.zeros(width, dtype=torch.float64)
        row[:k], row[k] = 1, -k
        rows.append(row / math.sqrt(k * (k + 1)))
    return torch.stack(rows)
