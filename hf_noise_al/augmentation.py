"""Augmentation: changing what the model trains on, at random, and nothing else.

It happens in the trainer's training step, to a batch that is made already. So it is where training is and nowhere
else: what is observed in a query and what is evaluated go other ways and are the plain inputs, and every epoch and
every round sees other changes although rows are prepared once. The changes of a batch follow from the seed, the round,
the optimizer step and the batch's number within that step alone. No global random state is read or moved, a resumed
run goes on with the changes that an uninterrupted one would have made, and two processes make those that one process
makes of the same batches by gradient accumulation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Augmentation: TypeAlias = Callable[[Mapping[str, Any], torch.Generator], dict[str, Any]]
"""``(inputs of a batch, generator) -> inputs``; the given ones are left as they are."""


@dataclass(frozen=True)
class ImageAugmentation:
    """Mirror images and move them, each by itself: what is usual for small images."""

    flip: bool = False
    """Mirror every second image from left to right, by chance."""
    crop_padding: int = 0
    """Cut images of the old size out of images with so many zeros around them; 0 leaves images where they are."""

    def __call__(self, inputs: Mapping[str, Any], generator: torch.Generator) -> dict[str, Any]:
        """Return `inputs` with other ``pixel_values``, (B, C, H, W)."""
        images: Tensor = inputs["pixel_values"]
        if self.flip:
            images = flip_at_random(images, generator)
        if self.crop_padding:
            images = crop_at_random(images, self.crop_padding, generator)
        return {**inputs, "pixel_values": images}


def flip_at_random(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image from left to right with a chance of one half: (B, C, H, W) -> (B, C, H, W)."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen.to(images.device)[:, None, None, None], images.flip(3), images)


def crop_at_random(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Put `padding` zeros around each image and cut the old size out anywhere: (B, C, H, W) -> (B, C, H, W)."""
    size, _, height, width = images.shape
    top, left = (torch.randint(2 * padding + 1, (2, size), generator=generator)).to(images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    padded = F.pad(images, (padding,) * 4).movedim(1, 3)
    chosen = torch.arange(size, device=images.device)[:, None, None]
    return padded[chosen, rows[:, :, None], columns[:, None, :]].movedim(3, 1).contiguous()
