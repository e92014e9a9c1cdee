"""Images to one class of several, or to any number of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from datasets import Array3D, Dataset, Features
from transformers import AutoModelForImageClassification

from ..arguments import DataArguments, ModelArguments
from ..loading import load_image_processor
from ..observables import probabilities
from .base import Collator, Task
from .columns import find_image_column
from .targets import CLASSES, MULTI_LABEL, SINGLE_LABEL


def image_columns(dataset: Dataset, arguments: DataArguments, label_column: str) -> tuple[str, ...]:
    """Return the column of the image."""
    return (find_image_column(dataset, arguments.image_column),)


def image_processor(model: ModelArguments, arguments: DataArguments, pool: Dataset) -> Any:
    """Return the image processor of the model, or a plain one for images of `image_size`."""
    return load_image_processor(model, arguments.image_size)


def require_images(dataset: Dataset, columns: Sequence[str], place: str) -> None:
    """Refuse the first missing image; what is in it shows when it is encoded."""
    column = dataset.data.column(columns[0])
    if column.null_count:
        row = next(row for row, value in enumerate(dataset.select_columns(columns[0])) if value[columns[0]] is None)
        raise ValueError(f"Column `{columns[0]}` of {place} has no image in row {row}. Remove such rows.")


def encode_images(dataset: Dataset, columns: Sequence[str], processor: Any, arguments: DataArguments) -> Dataset:
    """Return `dataset` with ``pixel_values``, read as float32 arrays (C, H, W).

    A processor whose ``do_convert_rgb`` is False gets gray images, any other one gets RGB.
    """
    name, gray = columns[0], getattr(processor, "do_convert_rgb", None) is False

    def encode(rows: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        images = [as_image(value, f"Column `{name}`").convert("L" if gray else "RGB") for value in rows[name]]
        arrays = [np.asarray(image).reshape(image.height, image.width, -1) for image in images]
        pixels = processor(arrays, input_data_format="channels_last", return_tensors="np")["pixel_values"]
        return {"pixel_values": np.asarray(pixels, dtype=np.float32)}

    shape = encode(dataset[:1])["pixel_values"].shape[1:]
    features = Features({**dataset.features, "pixel_values": Array3D(shape, "float32")})
    encoded = dataset.map(encode, batched=True, batch_size=100, features=features, desc="Reading images")
    return encoded.with_format("numpy", columns=["pixel_values"], output_all_columns=True)


def as_image(value: Any, where: str) -> PIL.Image.Image:
    """Return `value`, an image or an array (H, W) or (H, W, C) of bytes or of fractions from 0 to 1, as an image."""
    if isinstance(value, PIL.Image.Image):
        return value
    try:
        given = np.asarray(value)
        array = given.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} is no image: found {type(value).__name__}. Store images, or arrays.") from error
    if array.ndim == 3 and array.shape[2] not in (1, 3) and array.shape[0] in (1, 3):
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or not array.size or not bool(((array >= 0) & (array <= 255)).all()):
        raise ValueError(
            f"{where} is no image: an array of shape {array.shape} or values that are no pixels. "
            "Store arrays (height, width) or (height, width, 3) with values from 0 to 255, or from 0 to 1."
        )
    scale = 255 if given.dtype.kind == "f" and array.max() <= 1 else 1
    return PIL.Image.fromarray(np.round(array * scale).astype(np.uint8))


def stack_images(processor: Any) -> Collator:
    """Return what stacks images to a batch, with their labels where they have some."""

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = {"pixel_values": torch.from_numpy(np.stack([np.asarray(row["pixel_values"]) for row in rows]))}
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch

    return collate


IMAGE_CLASSIFICATION = Task(
    name="image_classification",
    load_processor=image_processor,
    auto_model=AutoModelForImageClassification,
    observable=probabilities,
    labels=CLASSES,
    find_columns=image_columns,
    check=require_images,
    encode=encode_images,
    collator=stack_images,
    default_metrics={SINGLE_LABEL: ("accuracy", "f1"), MULTI_LABEL: ("f1", "accuracy")},
)
