"""How a model uses weights otherwise than through calls of the modules that hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

Held = Sequence[tuple[nn.Module, dict[str, str]]]
"""Modules, each with those of its parameters that matter: what the module calls one -> its name in the model."""


def used_directly(held: Held, run: Callable[[], Tensor]) -> list[str]:
    """Name the weights that reach the outputs of ``run()`` otherwise than through a call of a module that holds them.

    While a module is called its weights are replaced by copies that share their storage and take no gradient.
    """
    tensors = {name: module.get_parameter(parameter) for module, known in held for parameter, name in known.items()}
    hidden = {name: nn.Parameter(tensor.detach(), requires_grad=False) for name, tensor in tensors.items()}

    def put(there: Mapping[str, nn.Parameter], known: dict[str, str], module: nn.Module, *_: object) -> None:
        module._parameters.update({parameter: there[name] for parameter, name in known.items()})

    handles: list[RemovableHandle] = []
    with requiring_gradients(tensors.values()):
        try:
            for module, known in held:
                handles.append(module.register_forward_pre_hook(partial(put, hidden, known)))
                handles.append(module.register_forward_hook(partial(put, tensors, known)))
            outputs = run()
            found: Sequence[Tensor | None] = [None] * len(tensors)
            if tensors and outputs.requires_grad:
                found = torch.autograd.grad(outputs.square().sum(), list(tensors.values()), allow_unused=True)
        finally:
            for handle in handles:
                handle.remove()
            for module, known in held:
                put(tensors, known, module)
    return [name for name, gradient in zip(tensors, found, strict=True) if gradient is not None]


def detached(tensors: Mapping[str, Tensor], run: Callable[[], Tensor], outputs: Tensor) -> list[str]:
    """Name the tensors that values depend on which ``run()``, which gave `outputs`, detaches and goes on with.

    Noise is added to whatever is detached; where it does not reach the outputs, nothing is named.
    """
    with requiring_gradients(tensors.values()):
        with _NoiseWhereDetached() as mode:
            changed = run()
        if not mode.lost or not _differ(changed, outputs):
            return []
        named: dict[str, None] = {}
        for value in mode.lost:
            found = torch.autograd.grad(value.sum(), list(tensors.values()), retain_graph=True, allow_unused=True)
            named.update({name: None for name, gradient in zip(tensors, found, strict=True) if gradient is not None})
    return list(named)


class _NoiseWhereDetached(TorchFunctionMode):
    """Adds noise to what is detached of a tensor that has a gradient, and keeps that tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # within `torch.no_grad` are the insides of functions that have a gradient of their own
        loses = func in _DETACHING and torch.is_grad_enabled() and args[0].requires_grad
        value = args[0] * 1 if loses else None  # a node of the graph that no change in place reaches
        output = func(*args, **(kwargs or {}))
        if value is not None:
            self.lost.append(value)
            output = output + _noise_like(output)
        return output


_DETACHING = (Tensor.detach, Tensor.data.__get__)  # type: ignore[attr-defined]


@contextmanager
def requiring_gradients(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Let leaf tensors require gradients for the time of the block."""
    before = [(tensor, tensor.requires_grad) for tensor in tensors]
    try:
        for tensor, _ in before:
            tensor.requires_grad_(True)
        yield
    finally:
        for tensor, required in before:
            tensor.requires_grad_(required)


def decisive(held: Held, run: Callable[[], Tensor], outputs: Tensor) -> list[str]:
    """Name the weights of modules such that another output of the module changes ``run()``, which gave `outputs`."""

    def change(module: nn.Module, args: object, output: Tensor) -> Tensor:
        return output + _noise_like(output)

    names: list[str] = []
    for module, known in held:
        handle = module.register_forward_hook(change)
        try:
            if _differ(run(), outputs):
                names.extend(known.values())
        finally:
            handle.remove()
    return names


def decisive_tensors(tensors: Mapping[str, Tensor], run: Callable[[], Tensor], outputs: Tensor) -> list[str]:
    """Name the tensors such that other entries change ``run()``, which gave `outputs`; they are put back."""
    names: list[str] = []
    for name, tensor in tensors.items():
        before = tensor.detach().clone()
        try:
            tensor.detach().add_(_noise_like(tensor))
            if _differ(run(), outputs):
                names.append(name)
        finally:
            tensor.detach().copy_(before)
    return names


def _noise_like(tensor: Tensor) -> Tensor:
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)).to(tensor)


def _differ(changed: Tensor, outputs: Tensor) -> bool:
    """Return whether outputs changed by more than rounding; those that are not finite tell nothing."""
    if not bool(outputs.isfinite().all()):
        return False
    return not torch.allclose(changed, outputs, rtol=0, atol=1e-5 * float(outputs.abs().max()))
