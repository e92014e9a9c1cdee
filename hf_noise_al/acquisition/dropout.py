"""Dropout outside training: on for one forward pass, with masks that are the same wherever the batch is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..observables.base import Observable
from ..refusals import Refusal

_LAYERS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def with_dropout(observable: Observable, seed: str) -> Observable:
    """Return `observable` with dropout on while it runs.

    What is switched to training mode is each dropout layer, and each module that hands a dropout rate of its own to a
    function, as attention does; nothing below them, so that BatchNorm and all else stay in evaluation mode (and so do
    recurrent layers, whose masks on a GPU cannot be seeded). The masks are drawn from torch's global generators,
    seeded with `seed` and the content of the batch and put back afterwards: they do not depend on which process
    computes the batch, nor on what was drawn before.
    """

    def observe(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        devices = {tensor.device for tensor in (*inputs.values(), *model.parameters()) if isinstance(tensor, Tensor)}
        with _dropout_on(model), _seeded(_digest(seed, inputs), devices):
            return observable(model, inputs)

    return observe


def check_dropout(model: nn.Module) -> None:
    """Raise ValueError unless `model` has dropout with a rate above zero that `with_dropout` can switch on."""
    if not _with_active_dropout(model):
        layers = sum(isinstance(module, _LAYERS) for module in model.modules())
        raise Refusal(
            f"This {type(model).__name__} has no active dropout ({layers} dropout layers, none with a rate above 0), "
            "so every pass would be the same. Set a rate in the model's configuration, such as "
            "`hidden_dropout_prob: 0.1`, and train with it, or use 'noise_stability' or 'entropy'."
        )


def _with_active_dropout(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if _rate(module) > 0]


def _rate(module: nn.Module) -> float:
    """Return the highest dropout rate that the `training` flag of this very module decides about."""
    if isinstance(module, _LAYERS):
        return module.p
    skips_layers = bool(getattr(module, "layerdrop", 0))  # at random, by the same flag: that is not dropout
    if isinstance(module, nn.RNNBase) or skips_layers:
        return 0.0
    rates = [value for name, value in vars(module).items() if "dropout" in name and isinstance(value, float)]
    if isinstance(module, nn.TransformerEncoderLayer) or "Attention" in type(module).__name__:
        rates += [child.p for child in module.children() if isinstance(child, _LAYERS)]
    return max(rates, default=0.0)


@contextmanager
def _dropout_on(model: nn.Module) -> Iterator[None]:
    switched = [module for module in _with_active_dropout(model) if not module.training]
    try:
        for module in switched:
            module.training = True
        yield
    finally:
        for module in switched:
            module.training = False


@contextmanager
def _seeded(seed: int, devices: set[torch.device]) -> Iterator[None]:
    generators = [torch.default_generator, *map(_generator_of, (d for d in devices if d.type != "cpu"))]
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _generator_of(device: torch.device) -> torch.Generator:
    backend = getattr(torch, device.type, None)
    generators: tuple[torch.Generator, ...] = getattr(backend, "default_generators", ())
    if not generators:
        raise Refusal(
            f"Dropout passes need a random generator that can be put back, and torch gives none on {device.type!r}. "
            "Run the query on a CPU (`use_cpu=True`) or a CUDA device."
        )
    return generators[device.index or 0]


def _digest(seed: str, inputs: Mapping[str, Tensor]) -> int:
    hashed = hashlib.blake2b(seed.encode(), digest_size=8)
    for name, value in sorted(inputs.items()):
        hashed.update(name.encode())
        if isinstance(value, Tensor):
            hashed.update(str(tuple(value.shape)).encode())
            hashed.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return int.from_bytes(hashed.digest(), "big") >> 1
