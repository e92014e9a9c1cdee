"""Taps on the outputs of layers: what comes back to each layer in a backward pass, apart for every example."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...refusals import Refusal
from .layer_rules import layer_input
from .weight_use import Held

See: TypeAlias = Callable[[nn.Module, dict[str, str], Tensor, Tensor], None]
"""Told of each layer on the way back: the module, its tensors' names, its `layer_input`, its output's gradient."""


class UnsupportedModuleError(Refusal):
    """A perturbed weight is used in a way that the gradient sketch has no rule for."""


class LayerTaps:
    """Taps on the outputs of modules for the time of a `with` block.

    An anchor that needs a gradient joins at every tap, so that gradients flow to each of them, whether or not weights
    are frozen, and stop there.

    Args:
        held: The modules, with what their parameters are called in the model.
        size: Examples in the batch.
    """

    def __init__(self, held: Held, size: int) -> None:
        self.held, self.size = held, size
        self.called: set[nn.Module] = set()
        """Modules that were called."""
        self.seen: set[nn.Module] = set()
        """Modules that `check_that_rows_are_apart` found a gradient at."""
        self.expanded: list[str] = []
        """Tables that were called once for all examples and whose output was made one for each."""
        self.expands = True
        self.anchor = torch.zeros((), requires_grad=True)
        self.see: See = ignore
        self.handles: list[RemovableHandle] = []

    def __enter__(self) -> LayerTaps:
        try:
            for module, names in self.held:
                hook = partial(self._tap, names)
                self.handles.append(module.register_forward_hook(hook, with_kwargs=True))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
        self.see = ignore

    def backward(self, scalars: Tensor, see: See, tensors: Sequence[Tensor] = ()) -> Sequence[Tensor | None]:
        """Differentiate the sum of `scalars`, show `see` every tapped layer, and return the gradients of `tensors`.

        Raises:
            UnsupportedModuleError: the model changed a layer's input in place after the layer had used it.
        """
        self.see = see
        try:
            return torch.autograd.grad(scalars.sum(), [self.anchor, *tensors], retain_graph=True, allow_unused=True)[1:]
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
            raise _changed_in_place("a layer") from error

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
            self.backward((outputs * weights)[chosen.to(outputs.device)], see)
        if mixed:
            raise cannot_tell_apart(list(mixed))

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


def ignore(module: nn.Module, names: dict[str, str], inputs: Tensor, gradient: Tensor) -> None:
    """Do nothing: a backward pass that looks for something else goes through the taps, too."""


def cannot_tell_apart(names: list[str]) -> UnsupportedModuleError:
    """Return the error for layers that do not keep examples in their first dimension."""
    return UnsupportedModuleError(
        f"The gradient sketch cannot tell examples apart at {', '.join(names[:5])}: what the module returns is shared "
        "by the examples of a batch, or they are not its first dimension. Use one_by_one=True or "
        "estimator='finite_difference', or leave it out by `parameter_filter`."
    )


def _changed_in_place(whose: str) -> UnsupportedModuleError:
    return UnsupportedModuleError(
        f"The gradient sketch needs the input of {whose}, which the model changes in place afterwards. Use "
        "estimator='finite_difference', or let the model change a copy."
    )
