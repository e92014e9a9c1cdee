"""Mean IoU and its like from a confusion matrix that grows batch by batch: no prediction is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import EvalPrediction

from ...measuring.intervals import Interval
from ...refusals import Refusal
from ...settings.recipe import did_you_mean
from ..metrics import diverged
from ..score_intervals import draw_counts, interval_of, interval_of_mean, iou, recall
from ..targets import Targets
from .mask_arrays import VOID, unflatten_masks

SUMMARIES = ("mean_iou", "mean_accuracy", "overall_accuracy")
_DIVERGED = -1


def segmentation_logits(outputs: Any) -> Tensor:
    """Return the logits of a model's outputs in any form: (B, C, h, w), float32."""
    logits = outputs if isinstance(outputs, Tensor) else outputs["logits"] if hasattr(outputs, "keys") else outputs[0]
    return logits.float()


def at_size(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the logits of one image at the size of its mask: (C, h, w) and (H, W) -> (1, C, H, W)."""
    return F.interpolate(logits[None], size=tuple(mask.shape), mode="bilinear", align_corners=False)


def segmentation_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Return the mean cross-entropy over pixels that are not void; 0 where all are.

    Args:
        outputs: Of the model, with logits (B, C, h, w); they are brought to the size of each mask.
        labels: Masks, see `hf_noise_al.tasks.masks.mask_arrays.flatten_masks`.
        num_items_in_batch: Labels in all batches of an optimizer step: the batch counts by its share of them.
    """
    total, count = [], torch.zeros((), device=labels.device)
    for logits, mask in zip(segmentation_logits(outputs), unflatten_masks(labels), strict=True):
        total.append(F.cross_entropy(at_size(logits, mask), mask[None], ignore_index=VOID, reduction="sum"))
        count = count + (mask != VOID).sum()
    mean = torch.stack(total).sum() / count.clamp(min=1)
    if num_items_in_batch is None:
        return mean
    return mean * ((labels != VOID).sum() / num_items_in_batch)


@torch.no_grad()
def count_pixels(outputs: Any, labels: Tensor) -> Tensor:
    """Return how often each class was taken for each: (B, C, C), true class by predicted one, for every image.

    `Trainer`'s ``preprocess_logits_for_metrics``: predictions end here, on the device. An image whose logits are not
    finite has -1 everywhere.
    """
    logits = segmentation_logits(outputs)
    classes, counts = logits.shape[1], []
    for image, mask in zip(logits, unflatten_masks(labels), strict=True):
        known = mask != VOID
        pairs = mask[known] * classes + at_size(image, mask)[0].argmax(dim=0)[known]
        found = torch.bincount(pairs, minlength=classes * classes)
        counts.append(found if bool(image.isfinite().all()) else torch.full_like(found, _DIVERGED))
    return torch.stack(counts).view(-1, classes, classes)


@dataclass
class SegmentationMetrics:
    """The numbers of ``evaluate``'s ``mean_iou``, for `Trainer`'s ``compute_metrics`` with ``batch_eval_metrics``."""

    class_names: tuple[str, ...]
    matrix: Tensor | None = field(default=None, init=False)
    """(C, C), true class by predicted one: the pixels of the batches so far."""
    images: list[Tensor] = field(default_factory=list, init=False)
    """(B, 3, C) of each batch: the pixels of a class that are right, those that are its own, those taken for it."""

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        """Add the counts of a batch, (B, C, C); return every metric of all batches after the last one."""
        counts = torch.as_tensor(prediction.predictions)
        if self.matrix is None:
            self.images = []
        if bool((counts == _DIVERGED).any()):
            self.matrix = None
            raise diverged("an evaluation image")
        added = counts.sum(dim=0).cpu()
        self.matrix = added if self.matrix is None else self.matrix + added
        parts = [counts.diagonal(dim1=1, dim2=2), counts.sum(dim=2), counts.sum(dim=1)]
        self.images.append(torch.stack(parts, dim=1).cpu())
        if not compute_result:
            return {}
        matrix, self.matrix = self.matrix, None
        return segmentation_scores(matrix, self.class_names)

    def intervals(self, prediction: EvalPrediction, values: Mapping[str, float]) -> dict[str, Interval]:
        """Return the 95 % intervals of `values`, the metrics that were returned last; images are weighed whole.

        See `hf_noise_al.tasks.score_intervals`. `prediction` is the last batch alone, and is not looked at.
        """
        right, true, predicted = torch.cat(self.images).numpy().transpose(1, 0, 2)
        by_class, whole = draw_counts(right, true, predicted), true.sum(axis=1, keepdims=True)
        overall = draw_counts(right.sum(axis=1, keepdims=True), whole, whole)
        found = {"overall_accuracy": interval_of(values["overall_accuracy"], recall(overall)[:, 0])}
        for kind, measure, known in (
            ("iou", iou, (true + predicted).sum(axis=0) > 0),
            ("accuracy", recall, true.sum(axis=0) > 0),
        ):
            draws = measure(by_class)
            for position, name in enumerate(f"{kind}_{name}" for name in self.class_names):
                if name in values:
                    found[name] = interval_of(values[name], draws[:, position])
            if known.any():
                weight = 1 / max(int(known.sum()), 2)
                means = measure(draw_counts(right[:, known], true[:, known], predicted[:, known], weight))
                found[f"mean_{kind}"] = interval_of_mean(values[f"mean_{kind}"], means)
        return found

    def names(self) -> tuple[str, ...]:
        """Return the names of the numbers."""
        per_class = [f"{kind}_{name}" for kind in ("iou", "accuracy") for name in self.class_names]
        return (*SUMMARIES, *per_class)


def segmentation_scores(matrix: Tensor, class_names: Sequence[str]) -> dict[str, float]:
    """Return IoU and accuracy of a confusion matrix (C, C), overall and per class.

    As in ``evaluate``'s ``mean_iou``, means are over the classes that occur; a class that is neither in the masks nor
    predicted has no IoU, one that is not in the masks no accuracy: their numbers are left out.
    """
    exact = matrix.double()
    right, true, predicted = exact.diagonal(), exact.sum(dim=1), exact.sum(dim=0)
    iou = (right / (true + predicted - right)).tolist()
    accuracy = (right / true).tolist()
    per_class = {
        f"{kind}_{name}": value
        for kind, values in (("iou", iou), ("accuracy", accuracy))
        for name, value in zip(class_names, values, strict=True)
        if value == value  # 0 / 0 is NaN
    }
    overall = float(right.sum() / true.sum().clamp(min=1))
    return {"mean_iou": _mean(iou), "mean_accuracy": _mean(accuracy), "overall_accuracy": overall, **per_class}


def load_segmentation_metrics(names: Sequence[str], targets: Targets) -> SegmentationMetrics:
    """Return the metrics of segmentation; all of them are computed together.

    Raises:
        ValueError: another metric is asked for.
    """
    for name in names:
        if name not in SUMMARIES:
            raise Refusal(
                f"Unknown metric {name} for segmentation.{did_you_mean(name, SUMMARIES)} There are: "
                f"{', '.join(SUMMARIES)}, and IoU and accuracy of each class; `metric_for_curve` takes one of them."
            )
    return SegmentationMetrics(targets.class_names)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else 0.0
