"""Seeded random projections of wide rows to a fixed width that keep inner products on average."""

from __future__ import annotations

import torch
from torch import Tensor

from ..processes.generators import named_generator


class CountSketch:
    """Add up the numbers of a row, each with a random sign, in `width` places: (N, D) -> (N, width).

    Every place gets the same number of them, give or take one; where D is smaller than `width` each number has a place
    of its own. Inner products of projected rows are those of the rows on average over seeds (Charikar, Chen and
    Farach-Colton 2002). Equal seeds and sizes give equal projections on every device.

    Args:
        dimension: D.
        width: Of the projected rows.
        seed: Chooses places and signs.
    """

    def __init__(self, dimension: int, width: int, seed: int) -> None:
        generator = named_generator(seed, f"count sketch {dimension} {width}")
        places = torch.randperm(max(dimension, width), generator=generator)
        depth = -(-max(dimension, width) // width)
        padded = torch.full((depth * width,), dimension)  # index `dimension` is a zero
        padded[: len(places)] = torch.where(places < dimension, places, dimension)
        self.sources = padded.view(depth, width)
        signs = 2.0 * torch.randint(0, 2, (depth, width), generator=generator) - 1
        self.signs = signs * (self.sources < dimension)

    def __call__(self, rows: Tensor) -> Tensor:
        """Project (N, D) `rows`: (N, width)."""
        sources, signs = self.sources.to(rows.device), self.signs.to(rows.device, rows.dtype)
        padded = torch.cat([rows, rows.new_zeros(len(rows), 1)], dim=1)
        total = padded[:, sources[0]] * signs[0]
        for source, sign in zip(sources[1:], signs[1:], strict=True):
            total.addcmul_(padded[:, source], sign)
        return total
