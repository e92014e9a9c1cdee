"""Relative Gaussian noise on weights, for the time of a ``with`` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real

import torch
from torch import Tensor, nn

from ..processes.generators import named_generator
from ..processes.sharded_weights import global_norms, global_shape, local, local_part, settle
from ..refusals import Refusal
from .parameter_filter import perturbed_tensors

MOST_NOISE = 1.0
"""The largest `noise_scale`: noise as long as the weights that it is added to."""


@contextmanager
def perturbed(
    model: nn.Module, noise_scale: float, generator: torch.Generator, parameter_filter: str = "weight"
) -> Iterator[None]:
    """Add Gaussian noise to the weights of `model` inside the block; restore them bit for bit afterwards.

    Each tensor W gets ``noise_scale * ||W|| * V / ||V||``, V standard Gaussian of W's shape, Frobenius norms
    (Deep Active Learning with Noise Stability, AAAI 2024). The noise of a tensor depends on one draw from `generator`
    and on the tensor's name, and is made on the CPU, so it is the same on every device. Only one copy of the
    perturbed tensors is kept, and it is what restores them, also when the body raises. Of sharded weights each process
    changes and keeps its own part, by the norms and the noise of the whole; every process must enter the block.

    Args:
        model: The model; its parameters change in place.
        noise_scale: Length of the noise relative to that of the tensor, finite and positive.
        generator: CPU generator; exactly one number is drawn.
        parameter_filter: Which tensors, see `perturbed_tensors`.

    Raises:
        ValueError: the filter matches nothing, a matched tensor is quantized, or `noise_scale` is out of range.
    """
    check_noise_scale(noise_scale)
    settle(model)
    tensors = perturbed_tensors(model, parameter_filter)
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    norms = dict(zip(tensors, global_norms(list(tensors.values())), strict=True))
    originals = {name: local(tensor).clone() for name, tensor in tensors.items()}
    try:
        with torch.no_grad():
            for name, tensor in tensors.items():
                _add_noise(tensor, originals[name], noise_scale * norms[name], named_generator(seed, name))
        yield
    finally:
        settle(model)
        with torch.no_grad():
            for name, tensor in tensors.items():
                local(tensor).copy_(originals[name])


def check_noise_scale(noise_scale: float) -> None:
    """Raise ValueError unless `noise_scale` is a positive number of at most `MOST_NOISE`."""
    number = isinstance(noise_scale, Real) and not isinstance(noise_scale, bool)
    if not number or not 0 < noise_scale < float("inf"):
        raise Refusal(f"`noise_scale` must be a positive finite number, got {noise_scale!r}. The paper uses 1e-3.")
    if noise_scale > MOST_NOISE:
        raise Refusal(
            f"`noise_scale` must be at most {MOST_NOISE}, got {noise_scale!r}: it is relative, and at {MOST_NOISE} the "
            "noise on a weight tensor is as long as the tensor, so that outputs would depend on the noise alone. "
            "The paper uses 1e-3."
        )


def _add_noise(parameter: Tensor, original: Tensor, length: float, generator: torch.Generator) -> None:
    """Write `original` plus noise of `length`, made whole, to the part of `parameter` that this process holds."""
    tensor, shape = local(parameter), global_shape(parameter)
    wide = original.dtype == torch.float64
    whole = tuple(tensor.shape) == shape
    in_place = whole and tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()
    noise = tensor.normal_(generator=generator) if in_place else torch.randn(shape, generator=generator)
    noise.mul_(length / max(float(torch.linalg.vector_norm(noise)), torch.finfo(torch.float32).tiny))
    if in_place:
        tensor.add_(original)
    else:
        noise = local_part(parameter, noise).to(tensor.device)
        tensor.copy_(original + noise if wide else noise.add_(original))
