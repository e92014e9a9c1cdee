"""Gradient sketch: the features of noise stability for the price of a backward pass.

A deviation under small weight noise is the Jacobian of the outputs times the noise. Reverse mode gives its product with
hundreds of noises at once: Deep Active Learning with Noise Stability (AAAI 2024), to first order in the noise scale.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .layer_gradients import layer_gradient, layer_input, why_unsupported
from .observables import Observable, is_multi_label, probabilities
from .perturbation import check_noise_scale, perturbed_tensors, tensor_generator
from .rank_one_noise import RankOneNoise
from .sharding import global_norms, global_numel, global_shape, is_sharded, is_zero3, settle
from .weight_use import decisive, used_directly

MOST_CHECKS = 6
"""Backward passes that show at most whether the model computes each example on its own; always, where it is sharded."""


class UnsupportedModuleError(ValueError):
    """A perturbed weight is used in a way that the gradient sketch has no rule for."""


def unsupported_tensors(model: nn.Module, parameter_filter: str = "weight") -> list[str]:
    """Name the perturbed tensors of `model` that the gradient sketch cannot project, each with the reason."""
    names = {id(tensor): name for name, tensor in perturbed_tensors(model, parameter_filter).items()}
    reasons: dict[str, str] = {}
    for module in model.modules():
        for parameter, tensor in module._parameters.items():
            if tensor is None or id(tensor) not in names:
                continue
            if why := why_unsupported(module, parameter):
                reasons[names[id(tensor)]] = why
    return [f"{name} ({why})" for name, why in reasons.items()]


def refuse_unsupported_tensors(model: nn.Module, parameter_filter: str) -> None:
    """Raise UnsupportedModuleError where `unsupported_tensors` names any."""
    if unsupported := unsupported_tensors(model, parameter_filter):
        raise UnsupportedModuleError(
            f"The gradient sketch has no rule for {len(unsupported)} of the perturbed tensors: "
            f"{', '.join(unsupported[:5])}{', ...' if len(unsupported) > 5 else ''}. "
            "Use estimator='finite_difference', or leave them out by `parameter_filter`."
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

    Args:
        model: In the precision that it is to run in.
        noise_scale: Length of the noise on each tensor relative to the tensor's.
        generator: CPU generator; exactly one number is drawn.
        parameter_filter: Which tensors, see `hf_noise_al.perturbation.perturbed_tensors`.
        observable: What is differentiated: ``(model, inputs) -> (B, D)``.
        num_projections: Width of a row.
        num_output_projections: Most output directions.

    Raises:
        UnsupportedModuleError: a perturbed tensor belongs to a module without a rule, or the model uses it outside of
            a call of that module, detaches what comes of it, or changes the module's input in place.
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
    ) -> None:
        check_noise_scale(noise_scale)
        refuse_unsupported_tensors(model, parameter_filter)
        settle(model)
        tensors = perturbed_tensors(model, parameter_filter)
        names = {id(tensor): name for name, tensor in tensors.items()}
        self.seed = int(torch.randint(2**63 - 1, (), generator=generator))
        self.noise = RankOneNoise(self.seed)
        norms = dict(zip(tensors, global_norms(list(tensors.values())), strict=True))
        self.scales = {name: noise_scale * norms[name] / math.sqrt(global_numel(t)) for name, t in tensors.items()}
        self.shapes = {name: torch.Size(global_shape(tensor)) for name, tensor in tensors.items()}
        held = [(module, _names_held(module, names)) for module in model.modules()]
        self.modules = [(module, known) for module, known in held if known]
        self.observable = observable
        self.num_projections, self.num_output_projections = num_projections, num_output_projections
        self.backward_once = any(map(is_zero3, model.parameters()))
        self._directions: Tensor | None = None
        self._checked = False

    def __call__(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return one row per example: (B, num_projections)."""
        size = max((len(value) for value in inputs.values() if isinstance(value, Tensor) and value.ndim), default=0)
        # hooks of a compiled model may be compiled away
        with torch.compiler.set_stance("force_eager"), torch.enable_grad():
            if size and not self._checked:
                self._check(model, _twice(inputs) if size == 1 else inputs, max(size, 2))
                self._checked = True
            with _Taps(self, size) as taps:
                outputs = self.observable(model, inputs)
                _check_size(outputs, size)
                if not size or not outputs.requires_grad:  # no perturbed tensor has a say in them
                    return outputs.new_zeros(size, self.num_projections)
                graphs = self._graphs(model, inputs, outputs)
                directions = self._directions_for(model, outputs)
                widths = [len(part) for part in torch.arange(self.num_projections).tensor_split(len(directions))]
                parts = [
                    taps.project(next(graphs), direction, number, width) * math.sqrt(self.num_projections / width)
                    for number, (direction, width) in enumerate(zip(directions, widths, strict=True))
                ]
        rows = torch.cat(parts, dim=1)
        lengths = torch.linalg.vector_norm(outputs.detach(), dim=1, keepdim=True, dtype=rows.dtype)
        return rows / torch.where(lengths > 0, lengths, 1)

    def _graphs(self, model: nn.Module, inputs: Mapping[str, Any], outputs: Tensor) -> Iterator[Tensor]:
        """Yield outputs for one backward pass after another: the same, unless weights are gathered for one alone."""
        while True:
            yield outputs
            if self.backward_once:
                outputs = self.observable(model, inputs)

    def _check(self, model: nn.Module, inputs: Mapping[str, Any], size: int) -> None:
        """Refuse a model in which perturbed weights reach the outputs on ways that the taps do not see.

        Where weights are sharded they are followed through their modules alone: every process has to pass the model as
        often as the others.
        """
        with _Taps(self, size) as taps:
            outputs = self._checked_outputs(model, inputs, taps)
            if not taps.called:
                raise UnsupportedModuleError(
                    "The gradient sketch saw none of the perturbed modules called. Use estimator='finite_difference'."
                )
            if outputs.requires_grad:
                codes = _codes(size, MOST_CHECKS if is_sharded(model) else None)
                taps.check_that_rows_are_apart(self._graphs(model, inputs, outputs), codes)
        if is_sharded(model):
            return
        run = partial(self.observable, model, inputs)
        if used := used_directly(self.modules, run):
            raise _cannot_follow(used, "otherwise than through a call of its module")
        silent = [(module, known) for module, known in self.modules if module in taps.called - taps.seen]
        if detached := decisive(silent, run, outputs.detach()):
            raise _cannot_follow(detached, "through something that the model detaches (`detach`, `torch.no_grad`)")

    def _checked_outputs(self, model: nn.Module, inputs: Mapping[str, Any], taps: _Taps) -> Tensor:
        try:
            outputs = self.observable(model, inputs)
        except RuntimeError as error:
            if not taps.expanded or isinstance(error, torch.OutOfMemoryError):
                raise
            expanded, taps.expands = taps.expanded, False
            self.observable(model, inputs)  # raises where it was not that
            raise _cannot_tell_apart(expanded) from error
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
                source = tensor_generator(self.seed, "output directions")
                signs = torch.randint(0, 2, (most, width), generator=source)
                directions = (2.0 * signs.double() - 1) / math.sqrt(most)
            self._directions = directions.to(outputs.device, outputs.dtype)
        return self._directions


class _Tap(torch.autograd.Function):
    """Hands the gradient of a layer's output to `see` on its way back; changes nothing."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor, see: Callable[[Tensor], None]) -> Tensor:
        ctx.see = see
        return output.data  # neither a copy nor a view: later layers may change it in place

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        ctx.see(gradient)
        return gradient, None, None


class _Taps:
    """Taps on the outputs of every perturbed module for the time of a `with` block.

    An anchor that needs a gradient joins at every tap, so that gradients flow to each of them, whether or not weights
    are frozen, and stop there.
    """

    def __init__(self, sketch: GradientSketch, size: int) -> None:
        self.sketch, self.size = sketch, size
        self.called: set[nn.Module] = set()
        self.seen: set[nn.Module] = set()
        self.expanded: list[str] = []
        self.expands = True
        self.anchor = torch.zeros((), requires_grad=True)
        self.see: Callable[[nn.Module, dict[str, str], Tensor, Tensor], None] = self._ignore
        self.handles: list[RemovableHandle] = []

    def __enter__(self) -> _Taps:
        try:
            for module, names in self.sketch.modules:
                hook = partial(self._tap, names)
                self.handles.append(module.register_forward_hook(hook, with_kwargs=True))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
        self.see = self._ignore

    def project(self, outputs: Tensor, vector: Tensor, direction: int, width: int) -> Tensor:
        """Differentiate ``outputs @ vector`` and project every layer's gradient on `width` noises: (B, width)."""
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        total = torch.zeros(self.size, width, dtype=dtype, device=outputs.device)
        sketch = self.sketch

        def see(module: nn.Module, names: dict[str, str], inputs: Tensor, gradient: Tensor) -> None:
            if inputs.shape[0] % self.size or gradient.shape[0] % self.size:
                raise _cannot_tell_apart(list(names.values()))
            if not gradient.numel():
                return
            for parameter, name in names.items():
                if scale := sketch.scales[name]:
                    shape = sketch.shapes[name]
                    found = layer_gradient(module, parameter, inputs, gradient, self.size)
                    total.add_(sketch.noise.project(name, shape, found, direction, width), alpha=scale)

        self._backward(outputs @ vector, see)
        return total

    def check_that_rows_are_apart(self, graphs: Iterator[Tensor], codes: Tensor) -> None:
        """Refuse layers whose part in an example's outputs is found with others.

        Each of the P (P, B) `codes` says which examples' outputs to differentiate; no other may get a gradient.
        """
        mixed: dict[str, None] = {}
        source = torch.Generator().manual_seed(0)
        for chosen in codes:

            def see(
                module: nn.Module, names: dict[str, str], inputs: Tensor, gradient: Tensor, chosen: Tensor = chosen
            ) -> None:
                self.seen.add(module)
                apart = inputs.shape[0] % self.size == 0 and gradient.shape[0] % self.size == 0
                if apart and gradient.numel():
                    others = gradient.abs().reshape(self.size, -1).amax(dim=1)[~chosen.to(gradient.device)]
                    apart = not bool((others > 0).any())
                if not apart:
                    mixed.update(dict.fromkeys(names.values()))

            outputs = next(graphs)
            # along random directions: the plain sum of an example's outputs may be constant
            weights = torch.randn(outputs.shape, generator=source).to(outputs)
            self._backward((outputs * weights)[chosen.to(outputs.device)], see)
        if mixed:
            raise _cannot_tell_apart(list(mixed))

    def _backward(self, scalars: Tensor, see: Callable[[nn.Module, dict[str, str], Tensor, Tensor], None]) -> None:
        self.see = see
        try:
            torch.autograd.grad(scalars.sum(), [self.anchor], retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
            raise _changed_in_place("a layer") from error

    def _tap(self, names: dict[str, str], module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:
        self.called.add(module)
        inputs = layer_input(module, args, kwargs)
        if self.expands and self.size > 1 and len(output) == 1 and isinstance(module, nn.Embedding):
            # a table of positions, the same for every example and added to what each has of its own
            self.expanded.extend(names.values())
            output = output.expand(self.size, *output.shape[1:]).clone()
            inputs = inputs.expand(self.size, *inputs.shape[1:])
        version = inputs._version

        def see(gradient: Tensor) -> None:
            if inputs._version != version:
                raise _changed_in_place(", ".join(names.values()))
            self.see(module, names, inputs, gradient)

        tapped: Tensor = _Tap.apply(output, self.anchor, see)  # type: ignore[no-untyped-call]
        return tapped

    @staticmethod
    def _ignore(module: nn.Module, names: dict[str, str], inputs: Tensor, gradient: Tensor) -> None:
        """Do nothing: a backward pass that looks for something else goes through the taps, too."""


def _cannot_tell_apart(names: list[str]) -> UnsupportedModuleError:
    return UnsupportedModuleError(
        f"The gradient sketch cannot tell examples apart at {', '.join(names[:5])}: what the module returns is shared "
        "by the examples of a batch, or they are not its first dimension. Use estimator='finite_difference', or leave "
        "it out by `parameter_filter`."
    )


def _cannot_follow(names: list[str], how: str) -> UnsupportedModuleError:
    return UnsupportedModuleError(
        f"The gradient sketch cannot follow {', '.join(names[:5])}: the outputs depend on it {how}. Use "
        "estimator='finite_difference', or leave it out by `parameter_filter`."
    )


def _changed_in_place(whose: str) -> UnsupportedModuleError:
    return UnsupportedModuleError(
        f"The gradient sketch needs the input of {whose}, which the model changes in place afterwards. Use "
        "estimator='finite_difference', or let the model change a copy."
    )


def _check_size(outputs: Tensor, size: int) -> None:
    if len(outputs) != size:
        raise UnsupportedModuleError(
            f"The observable returns {len(outputs)} rows, and the first dimension of the largest input is {size}: the "
            "gradient sketch needs examples there. Use estimator='finite_difference'."
        )


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
