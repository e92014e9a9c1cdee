"""What is looked at where a model answers for every pixel of an image: one row per image, of one width for all."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..refusals import Refusal
from .base import model_outputs

GRID = 16
"""Cells of the grid that images are observed on, along each side."""


class SegmentationMap:
    """Class probabilities of pixels as means over the cells of a grid of 16 x 16: (B, C * 16 * 16).

    What the paper observes for segmentation is the probabilities of every pixel (AAAI 2024, arXiv 2205.13340). Means
    over cells of equal parts of an image are a linear projection of them that gives rows of one width for images of
    any size, and the same ones on every device. The softmax is taken where the model predicts, before upsampling.
    """

    def __call__(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return one row per image: (B, C * 16 * 16)."""
        maps = _probabilities(model, inputs)
        rows, columns = (_cell_means(size, GRID).to(maps) for size in maps.shape[2:])
        return (rows @ maps @ columns.T).flatten(1)

    def parts(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return class probabilities wherever the model predicts, (B, h * w, C), all of which count, (B, h * w)."""
        pixels = _probabilities(model, inputs).flatten(2).transpose(1, 2)
        return pixels, torch.ones(pixels.shape[:2], dtype=torch.bool, device=pixels.device)


segmentation_map = SegmentationMap()


def _probabilities(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return class probabilities at every place of the model's output: (B, C, h, w)."""
    logits = model_outputs(model, inputs)
    if logits.ndim != 4:
        raise Refusal(
            f"Class probabilities of pixels need logits of shape (batch, classes, height, width), found "
            f"{tuple(logits.shape)}. Use a model for semantic segmentation, or `probabilities` as the observable."
        )
    return logits.softmax(dim=1)


def _cell_means(size: int, cells: int) -> Tensor:
    """Return the weights of `size` pixels in each of `cells` parts of equal length: (cells, size), rows sum to one."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * size / cells
    pixels = torch.arange(size, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return overlap.clamp(min=0) * cells / size
