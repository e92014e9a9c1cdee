"""Images to one class of several, or to any number of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
from datasets import Array3D, Dataset, Features, Image
from transformers import AutoModelForImageClassification

from ...augmentation import ImageAugmentation
from ...loading.processors import load_image_processor
from ...observables.base import probabilities
from ...pool.problem_type import MULTI_LABEL
from ...refusals import Refusal
from ...settings.arguments import DataArguments, ModelArguments
from ..base import Collator, Prepared, Task, stack_column
from ..label_kinds import CLASSES
from ..pictures import as_image, as_stored, image_columns, image_mode, in_mode, process_images, require_images
from ..targets import SINGLE_LABEL
from . import (
    small_convnets,  # noqa: F401  # recipes name their types
    small_resnet,  # noqa: F401  # recipes name their types
)


def image_processor(model: ModelArguments, arguments: DataArguments, pool: Dataset) -> Any:
    """Return the image processor of the model, or a plain one for images of `image_size`."""
    return load_image_processor(model, arguments.image_size)


def encode_images(dataset: Dataset, columns: Sequence[str], processor: Any, arguments: DataArguments) -> Dataset:
    """Return `dataset` with ``pixel_values``, read as float32 arrays (C, H, W).

    A processor whose ``do_convert_rgb`` is False gets gray images, any other one gets RGB.

    Raises:
        ValueError: an image cannot be decoded, or the processor leaves it in another size than the first.
    """
    name, mode = columns[0], image_mode(processor)
    feature, stored = dataset.features[name], as_stored(dataset, name)

    def encode(rows: Mapping[str, Sequence[Any]], numbers: Sequence[int], shape: tuple[int, ...] = ()) -> Any:
        images = [
            read_image(value, feature, mode, f"Column `{name}`, row {number}")
            for value, number in zip(rows[name], numbers, strict=True)
        ]
        pixels = [np.asarray(found, dtype=np.float32) for found in process_images(processor, images)]
        for number, found in zip(numbers, pixels, strict=True):
            if found.shape != (shape or pixels[0].shape):
                raise Refusal(
                    f"Column `{name}`, row {number}: the image processor makes an array of {found.shape} of it, and "
                    f"one of {shape} of row 0. Use a processor that resizes or crops all images to one size."
                )
        return {"pixel_values": pixels}

    shape = encode(stored[:1], [0])["pixel_values"][0].shape
    features = Features({**dataset.features, "pixel_values": Array3D(shape, "float32")})
    encoded = stored.map(
        encode,
        batched=True,
        with_indices=True,
        batch_size=100,
        fn_kwargs={"shape": shape},
        features=features,
        desc="Reading images",
    )
    return encoded.with_format("numpy", columns=["pixel_values"], output_all_columns=True)


def read_image(value: Any, feature: Any, mode: str, where: str) -> PIL.Image.Image:
    """Return what a column of type `feature` stores as an image of `mode`, as Pillow names modes: "L", "RGB".

    Raises:
        ValueError: it cannot be found or decoded, or is no image; the message starts with `where`.
    """
    if isinstance(feature, Image):
        try:
            value = Image(mode=feature.mode).decode_example(value)
        except Exception as error:  # decoders raise what they like: OSError, SyntaxError, struct.error ...
            reason = str(error).split(" <_io")[0] or type(error).__name__
            raise Refusal(
                f"{where}: cannot read the image ({reason}). Remove the row, or put a whole image file in its place."
            ) from error
    return in_mode(as_image(value, where), mode)


def image_augmentation(arguments: DataArguments, prepared: Prepared) -> ImageAugmentation | None:
    """Return the augmentation that the arguments ask for, or None.

    Raises:
        ValueError: so much padding that a crop may show nothing of its image.
    """
    asked = arguments.augmentation or ()
    padding = arguments.crop_padding if "crop" in asked else 0
    height, width = prepared.pool.features["pixel_values"].shape[1:]
    if padding >= min(height, width):
        raise Refusal(
            f"`crop_padding: {padding}` can move images of {height} x {width} pixels out of sight. Lower it; 4 is "
            "usual for 32 x 32."
        )
    return ImageAugmentation(flip="flip" in asked, crop_padding=padding) if asked else None


def stack_images(processor: Any) -> Collator:
    """Return what stacks images to a batch, with their labels where they have some."""
    return stack_column("pixel_values")


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
    augmentation=image_augmentation,
    default_metrics={SINGLE_LABEL: ("accuracy", "f1"), MULTI_LABEL: ("f1", "accuracy")},
)
