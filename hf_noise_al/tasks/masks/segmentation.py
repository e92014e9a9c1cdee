"""Images to a class for every pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np
import torch
from datasets import Dataset, Features, Image
from transformers.utils import logging

from ...loading.models import load_model_config
from ...loading.processors import load_image_processor, plain_image_processor
from ...observables.pixels import segmentation_map
from ...pool.pool import Label
from ...refusals import Refusal
from ...settings.arguments import DataArguments, ModelArguments
from ..base import ONE_CLASS_EACH, Collator, Prepared, Task
from ..columns import find_image_column
from ..pictures import (
    as_stored,
    decoded_image,
    image_columns,
    image_mode,
    in_mode,
    open_image,
    place_of,
    process_images,
    require_images,
)
from .backbone_segmenter import AutoSegmenter
from .mask_arrays import decode_mask, flatten_masks
from .mask_targets import MASKS, SEMANTIC_SEGMENTATION, answers_as_masks
from .segmentation_metrics import count_pixels, load_segmentation_metrics, segmentation_loss

logger = logging.get_logger(__name__)

Size: TypeAlias = tuple[int, int]
"""Height and width."""


def segmentation_processor(model: ModelArguments, arguments: DataArguments, pool: Dataset) -> Any:
    """Return what brings images to one size and scales their pixels; masks keep theirs.

    The size is `image_size`, else that of the model's own processor, else that of the pool's images.

    Raises:
        ValueError: none of the three is there.
    """
    own = _own_processor(model)
    size = (arguments.image_size,) * 2 if arguments.image_size else None
    size = size or (None if own is None else _size_of(own)) or _common_size(pool, arguments)
    if size is None:
        raise Refusal(
            "The images of the pool differ in size, and the model has no image processor that says which to take. "
            "Set `image_size`, such as 256."
        )
    return (None if own is None else _with_size(own, size)) or _plain_processor(model, size, own)


def require_whole_images(dataset: Dataset, columns: Sequence[str], place: str) -> None:
    """Refuse the first image that is missing or does not decode, with its row and file."""
    name = columns[0]
    require_images(dataset, [name], place)
    view = as_stored(dataset, name).select_columns([name]).with_format(None)
    for row, example in enumerate(view):
        decoded_image(example[name], place_of(example[name], name, place, row))


def keep_images(dataset: Dataset, columns: Sequence[str], processor: Any, arguments: DataArguments) -> Dataset:
    """Return `dataset` with its images, not decoded, as the column ``pixel_values``: batches are made of these.

    Decoded, a data set of large images would be hundreds of times its size.
    """
    name = columns[0]
    if name != "pixel_values" and "pixel_values" in dataset.column_names:
        dataset = dataset.remove_columns("pixel_values")
    if isinstance(dataset.features[name], Image):
        return as_stored(dataset, name).rename_column(name, "pixel_values")

    def encode(row: Mapping[str, Any]) -> dict[str, Any]:
        file = BytesIO()
        open_image(row[name], f"Column `{name}`").save(file, "PNG")
        return {name: {"bytes": file.getvalue(), "path": None}}

    features = Features({**dataset.features, name: Image(decode=False)})
    return dataset.map(encode, features=features, desc="Reading images").rename_column(name, "pixel_values")


def stack_images_and_masks(processor: Any) -> Collator:
    """Return what makes a batch: ``pixel_values`` (B, C, H, W) of one size, and ``labels`` as `flatten_masks` has them.

    What a row becomes depends on no other row.
    """
    mode = image_mode(processor)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        images = [in_mode(decoded_image(row["pixel_values"], "An image"), mode) for row in rows]
        pixels = np.stack([np.asarray(found, dtype=np.float32) for found in process_images(processor, images)])
        batch: dict[str, Any] = {"pixel_values": torch.from_numpy(pixels)}
        if "labels" in rows[0]:
            batch["labels"] = flatten_masks([decode_mask(row["labels"]) for row in rows])
        return batch

    return collate


def read_answers(ready: Prepared, label_file: str | None) -> Callable[[int, object], Label]:
    """Return what turns an annotator's answer for a row into the text of a mask."""
    return answers_as_masks(ready.pool, ready.targets, label_file)


def _own_processor(model: ModelArguments) -> Any | None:
    if model.processor_name_or_path is None and model.model_name_or_path is None:
        return None
    try:
        return load_image_processor(model)
    except ValueError:
        if model.processor_name_or_path is not None:
            raise
        return None  # where it was the model that could not be loaded, that is said when it is


def _size_of(processor: Any) -> Size:
    """Return the size that a processor brings images to, cut or not."""
    fields = processor.to_dict()
    size = (fields.get("do_center_crop") and fields.get("crop_size")) or fields["size"]
    side = size.get("shortest_edge")
    return (side, side) if side else (size["height"], size["width"])


def _common_size(pool: Dataset, arguments: DataArguments) -> Size | None:
    """Return the size of the pool's images where all have one."""
    name = find_image_column(pool, arguments.image_column)
    require_images(pool, [name], "the pool")
    view = as_stored(pool, name).select_columns([name]).with_format(None)
    sizes = set()
    for row, example in enumerate(view):
        sizes.add(open_image(example[name], place_of(example[name], name, "the pool", row)).size)
        if len(sizes) > 1:
            return None
    ((width, height),) = sizes
    return height, width


def _with_size(processor: Any, size: Size) -> Any | None:
    """Return `processor` made to bring whole images to `size`; None where it cannot."""
    wanted = {"size": {"height": size[0], "width": size[1]}, "do_resize": True, "do_center_crop": False}
    changed = type(processor).from_dict({**processor.to_dict(), **wanted, "do_pad": False})
    changed.do_convert_rgb = processor.do_convert_rgb
    channels = 1 if processor.do_convert_rgb is False else 3
    try:  # some know shortest edges alone, and each complains in its own way
        found = changed([np.zeros((9, 7, channels), np.uint8)], input_data_format="channels_last", return_tensors="np")
        fits = np.shape(found["pixel_values"]) == (1, channels, *size)
    except Exception:
        fits = False
    return changed if fits else None


def _plain_processor(model: ModelArguments, size: Size, own: Any | None) -> Any:
    """Return a processor that resizes and scales, and normalizes as the model's `own` does if it has one."""
    logger.info(f"A plain image processor: images are resized to {size[0]} x {size[1]}, pixels scaled to 0..1.")
    kept = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample")
    fields = {"do_normalize": False} if own is None else {name: getattr(own, name) for name in kept}
    processor = plain_image_processor(*size, **fields)
    processor.do_convert_rgb = getattr(load_model_config(model, {}), "num_channels", 3) == 3
    return processor


SEGMENTATION = Task(
    name="segmentation",
    load_processor=segmentation_processor,
    auto_model=AutoSegmenter,
    observable=segmentation_map,
    labels=MASKS,
    find_columns=image_columns,
    check=require_whole_images,
    encode=keep_images,
    collator=stack_images_and_masks,
    default_metrics={SEMANTIC_SEGMENTATION: ("mean_iou",)},
    load_metrics=load_segmentation_metrics,
    preprocess_logits=count_pixels,
    compute_loss=segmentation_loss,
    read_answers=read_answers,
    hub_name="image-segmentation",
    settings={"batch_eval_metrics": True},
    refused_acquisitions=ONE_CLASS_EACH,
)
