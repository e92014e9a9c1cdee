"""Rank-one Gaussian noise: the mean and the covariance of full Gaussian noise, at the price of two thin products."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...processes.generators import named_generator
from .layer_rules import LayerGradient, Vectors

BLOCK = 4
"""Noises come in blocks of BLOCK x BLOCK: each of BLOCK row vectors with each of BLOCK column vectors."""


@dataclass
class RankOneNoise:
    """Gaussian noise: ``r sᵀ`` for matrices, dense for vectors; a tensor's depends on the seed and its name alone."""

    seed: int
    _drawn: dict[tuple[str, int], tuple[Tensor, ...]] = field(default_factory=dict)

    def project(self, name: str, shape: torch.Size, gradient: LayerGradient, direction: int, width: int) -> Tensor:
        """Return the products of each example's gradient of the tensor `name` with `width` noises: (B, width)."""
        if isinstance(gradient, Vectors):
            values = gradient.values
            (noise,) = self._draw(name, direction, [(shape.numel(), width)], values)
            return values.to(noise.dtype) @ noise
        groups = -(-width // BLOCK**2)
        sizes = [(shape[0], groups * BLOCK), (shape[1:].numel(), groups * BLOCK)]
        rows, columns = self._draw(name, direction, sizes, gradient.like)
        left, right = (side.unflatten(-1, (groups, BLOCK)) for side in gradient.products(rows, columns))
        return torch.einsum("btgi,btgj->bgij", left, right).flatten(1)[:, :width].to(rows.dtype)

    def _draw(self, name: str, direction: int, sizes: list[tuple[int, int]], like: Tensor) -> tuple[Tensor, ...]:
        if (name, direction) not in self._drawn:
            generator = named_generator(self.seed, f"{name}/{direction}")
            wide = like.dtype if like.dtype == torch.float64 else torch.float32
            drawn = (torch.randn(size, generator=generator) for size in sizes)
            self._drawn[name, direction] = tuple(noise.to(like.device, wide) for noise in drawn)
        return self._drawn[name, direction]
