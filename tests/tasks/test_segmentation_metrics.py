"""Metrics and loss of segmentation: void does not count, batches add up, the numbers are those of `mean_iou`."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import EvalPrediction
from transformers.modeling_outputs import SemanticSegmenterOutput

from hf_noise_al.tasks.masks.mask_arrays import VOID, flatten_masks
from hf_noise_al.tasks.masks.mask_targets import MaskTargets
from hf_noise_al.tasks.masks.segmentation_metrics import (
    SegmentationMetrics,
    count_pixels,
    load_segmentation_metrics,
    segmentation_loss,
    segmentation_scores,
)

NAMES = ("a", "b", "c")
SIZES = [(6, 8), (5, 3), (4, 4), (7, 2), (3, 9)]


def batch(rows: slice = slice(None)) -> tuple[Tensor, Tensor, list[np.ndarray]]:
    """Return logits (B, 3, 4, 5), flat labels and the masks of some of five images."""
    generator = np.random.default_rng(0)
    masks = [generator.choice([VOID, 0, 1, 2], size=size, p=[0.2, 0.5, 0.2, 0.1]) for size in SIZES]
    logits = torch.randn(5, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    return logits[rows], flatten_masks(masks[rows]), masks[rows]


def reference(logits: Tensor, masks: list[np.ndarray]) -> dict[str, float]:
    """Return the numbers of `mean_iou` by its definition: areas per class, from histograms of each image."""
    overlap, union, true = (np.zeros(3) for _ in range(3))
    for image, mask in zip(logits, masks, strict=True):
        scaled = F.interpolate(image[None], size=mask.shape, mode="bilinear", align_corners=False)
        predicted = scaled[0].argmax(0).numpy()[mask != VOID]
        known = mask[mask != VOID]
        for c in range(3):
            overlap[c] += ((predicted == c) & (known == c)).sum()
            union[c] += ((predicted == c) | (known == c)).sum()
            true[c] += (known == c).sum()
    return {
        "mean_iou": float(np.nanmean(overlap / union)),
        "mean_accuracy": float(np.nanmean(overlap / true)),
        "overall_accuracy": float(overlap.sum() / true.sum()),
        **{f"iou_{name}": overlap[c] / union[c] for c, name in enumerate(NAMES)},
        **{f"accuracy_{name}": overlap[c] / true[c] for c, name in enumerate(NAMES)},
    }


def test_numbers_are_those_of_mean_iou_however_the_images_are_batched() -> None:
    logits, labels, masks = batch()
    expected = reference(logits, masks)
    metrics = SegmentationMetrics(NAMES)
    whole = metrics(EvalPrediction(count_pixels(logits, labels), labels), compute_result=True)
    assert whole == pytest.approx(expected) and set(whole) == set(metrics.names())
    parts = [slice(0, 2), slice(2, 4), slice(4, 5)]  # the last one is short
    for number, part in enumerate(parts):
        logits, labels, _ = batch(part)
        found = metrics(EvalPrediction(count_pixels(logits, labels), labels), compute_result=number == 2)
        assert bool(found) == (number == 2)
    assert found == whole
    assert metrics.matrix is None, "the next evaluation starts with nothing"


def test_void_pixels_count_neither_in_the_loss_nor_in_the_metrics() -> None:
    mask = np.array([[0, 1], [VOID, 2]])
    logits = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    other = logits.clone()
    other[0, :, 1, 0] = torch.tensor([50.0, -50.0, 3.0])
    labels = flatten_masks([mask])
    assert torch.equal(count_pixels(logits, labels), count_pixels(other, labels))
    assert torch.equal(segmentation_loss((logits,), labels), segmentation_loss((other,), labels))
    assert int(count_pixels(logits, labels).sum()) == 3


def test_loss_is_the_mean_over_all_pixels_of_masks_of_any_size() -> None:
    logits, labels, masks = batch()
    pixels = []
    for image, mask in zip(logits, masks, strict=True):
        scaled = F.interpolate(image[None], size=mask.shape, mode="bilinear", align_corners=False)
        pixels.append(F.cross_entropy(scaled, torch.from_numpy(mask)[None], reduction="none", ignore_index=VOID))
    count = sum(int((mask != VOID).sum()) for mask in masks)
    expected = sum(each.sum() for each in pixels) / count
    torch.testing.assert_close(segmentation_loss(SemanticSegmenterOutput(logits=logits), labels), expected)


def test_batches_of_one_step_count_by_their_share_of_its_labels() -> None:
    logits, labels, _ = batch()
    items = (labels != VOID).sum()
    whole = segmentation_loss((logits,), labels, num_items_in_batch=items)
    torch.testing.assert_close(whole, segmentation_loss((logits,), labels))
    parts = [batch(rows)[:2] for rows in (slice(0, 2), slice(2, 5))]
    summed = sum(segmentation_loss((each,), those, num_items_in_batch=items) for each, those in parts)
    torch.testing.assert_close(summed, whole, rtol=0.02, atol=0)


def test_a_batch_of_void_alone_has_no_loss_and_no_gradient() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = segmentation_loss((logits,), flatten_masks([np.full((3, 3), VOID)]))
    loss.backward()
    assert float(loss.detach()) == 0 and logits.grad is not None and float(logits.grad.abs().sum()) == 0


def test_classes_that_do_not_occur_are_left_out_of_the_means() -> None:
    found = segmentation_scores(torch.tensor([[6, 2, 0], [0, 2, 0], [0, 0, 0]]), NAMES)
    assert found["mean_iou"] == pytest.approx((6 / 8 + 2 / 4) / 2)
    assert found["mean_accuracy"] == pytest.approx((6 / 8 + 1) / 2)
    assert "iou_c" not in found and "accuracy_c" not in found
    assert segmentation_scores(torch.zeros(2, 2), NAMES[:2])["mean_iou"] == 0


def test_outputs_that_are_not_finite_are_refused_and_forgotten() -> None:
    logits, labels, _ = batch()
    logits[3, 0, 0, 0] = torch.nan
    metrics = SegmentationMetrics(NAMES)
    with pytest.raises(ValueError, match="not finite: the training diverged. Lower `learning_rate`"):
        metrics(EvalPrediction(count_pixels(logits, labels), labels))
    assert metrics.matrix is None


def test_another_metric_is_refused() -> None:
    targets = MaskTargets(class_names=NAMES, values=(0, 1, 2))
    assert load_segmentation_metrics(["mean_iou"], targets).names()[:4] == (
        *("mean_iou", "mean_accuracy", "overall_accuracy"),
        "iou_a",
    )
    with pytest.raises(ValueError, match="Unknown metric mean_iuo for segmentation. Did you mean `mean_iou`?"):
        load_segmentation_metrics(["mean_iuo"], targets)
