"""The scale of numeric targets: part of the model, set in each round from the labels that are known by then."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...pool.columns import LABEL_COLUMNS


class TargetScale(nn.Module):
    """Mean and scale of the targets, saved with the model: its loss is on scaled targets, its output is not scaled."""

    mean: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def set(self, labels: Tensor) -> None:
        """Take mean and standard deviation of `labels`, (n,) or (n, size); where all are equal the scale is 1."""
        values = labels.detach().to("cpu", torch.float64).reshape(len(labels), -1)
        mean, deviation = values.mean(dim=0), values.std(dim=0, correction=0)
        varies = (values.amax(dim=0) > values.amin(dim=0)) & (deviation > 0)
        with torch.no_grad():
            self.mean.copy_(mean)
            self.scale.copy_(torch.where(varies, deviation, torch.ones_like(deviation)))

    def scaled(self, labels: Tensor) -> Tensor:
        """Return `labels`, (B, size), as the loss sees them."""
        return (labels.to(self.mean.dtype) - self.mean) / self.scale

    def forward(self, outputs: Tensor) -> Tensor:
        """Return `outputs`, (B, size), in the units of the labels."""
        return outputs.to(self.mean.dtype) * self.scale + self.mean


class ScaleTargets(TrainerCallback):
    """Set a model's `TargetScale` before each training, from the labels in the training data and from no others."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take mean and scale of the labeled split, which is whole on every process."""
        rows = kwargs["train_dataloader"].dataset
        column = next(name for name in LABEL_COLUMNS if name in rows.column_names)
        labels = torch.tensor(rows.with_format(None)[column][:], dtype=torch.float64)
        for module in kwargs["model"].modules():
            if isinstance(module, TargetScale):
                module.set(labels)
