"""Pictures as data sets store them, read for models: what image classification and segmentation share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
from datasets import Dataset, Image

from ..pool.places import row_at
from ..refusals import Refusal
from ..settings.arguments import DataArguments
from .columns import find_image_column


def image_columns(dataset: Dataset, arguments: DataArguments, label_column: str) -> tuple[str, ...]:
    """Return the column of the image."""
    return (find_image_column(dataset, arguments.image_column),)


def require_images(dataset: Dataset, columns: Sequence[str], place: str) -> None:
    """Refuse the first missing image; what is in it shows when it is encoded."""
    column = dataset.data.column(columns[0])
    if column.null_count:
        row = next(row for row, value in enumerate(dataset.select_columns(columns[0])) if value[columns[0]] is None)
        raise Refusal(f"Column `{columns[0]}` of {place} has no image in {row_at(place, row)}. Remove such rows.")


def as_stored(dataset: Dataset, column: str) -> Dataset:
    """Return `dataset` with the images of `column` as bytes and paths, not decoded; other columns stay as they are."""
    if isinstance(dataset.features[column], Image):
        return dataset.cast_column(column, Image(decode=False))
    return dataset


def image_mode(processor: Any) -> str:
    """Return the mode of the images that `processor` is made for, as Pillow names modes: "L" or "RGB"."""
    return "L" if getattr(processor, "do_convert_rgb", None) is False else "RGB"


def process_images(processor: Any, images: Sequence[PIL.Image.Image]) -> Any:
    """Return what `processor` makes of each image: (C, H, W)."""
    arrays = [np.asarray(image).reshape(image.height, image.width, -1) for image in images]
    return processor(arrays, input_data_format="channels_last")["pixel_values"]


def in_mode(image: PIL.Image.Image, mode: str) -> PIL.Image.Image:
    """Return `image` in `mode`, "L" or "RGB"; 16 bits of gray become 8."""
    if image.mode.startswith("I;16"):  # converted, everything above 255 would be white
        image = PIL.Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    return image.convert(mode)


def as_image(value: Any, where: str) -> PIL.Image.Image:
    """Return `value`, an image or an array (H, W) or (H, W, C) of bytes or of fractions from 0 to 1, as an image."""
    if isinstance(value, PIL.Image.Image):
        return value
    try:
        given = np.asarray(value)
        array = given.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise Refusal(f"{where} is no image: found {type(value).__name__}. Store images, or arrays.") from error
    if array.ndim == 3 and array.shape[2] not in (1, 3) and array.shape[0] in (1, 3):
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or not array.size or not bool(((array >= 0) & (array <= 255)).all()):
        raise Refusal(
            f"{where} is no image: an array of shape {array.shape} or values that are no pixels. "
            "Store arrays (height, width) or (height, width, 3) with values from 0 to 255, or from 0 to 1."
        )
    scale = 255 if given.dtype.kind == "f" and array.max() <= 1 else 1
    return PIL.Image.fromarray(np.round(array * scale).astype(np.uint8))


PNG_TEXT = "iVBORw0KGgo"
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, PIL.Image.DecompressionBombError)


def open_image(value: Any, where: str) -> PIL.Image.Image:
    """Return `value` as an image that need not be decoded yet: a picture, its bytes or path, or an array of pixels."""
    if not isinstance(value, (PIL.Image.Image, Mapping)):
        return as_image(value, where)
    try:
        image = value if isinstance(value, PIL.Image.Image) else _opened(value)
        # cameras turn JPEG images by a note; to look for one in a PNG is to decode it
        return image if image.format == "PNG" else PIL.ImageOps.exif_transpose(image)
    except UNREADABLE as error:
        raise _does_not_decode(where, error) from error


def decoded_image(value: Any, where: str) -> PIL.Image.Image:
    """Return `value` as an image, decoded to its last pixel.

    Raises:
        ValueError: it is none, or damaged.
    """
    image = open_image(value, where)
    try:
        image.load()
    except UNREADABLE as error:
        raise _does_not_decode(where, error) from error
    return image


def place_of(value: Any, column: str, place: str, row: int) -> str:
    """Return where `value` stands, for messages: column, data, row, and the file where there is one."""
    path = value.get("path") if isinstance(value, Mapping) else value if isinstance(value, str) else None
    named = f" ({path})" if path and not path.startswith(PNG_TEXT) else ""
    return f"Column `{column}` of {place}, {row_at(place, row)}{named}"


def _opened(value: Mapping[str, Any]) -> PIL.Image.Image:
    if value.get("bytes") is not None:
        return PIL.Image.open(BytesIO(value["bytes"]))
    if Path(str(value["path"])).is_file():
        return PIL.Image.open(value["path"])
    image: PIL.Image.Image = Image().decode_example(dict(value))  # in an archive, or remote
    return image


def _does_not_decode(where: str, error: BaseException) -> Refusal:
    reason = str(error).split(" <_io")[0]  # what follows is where the bytes were in memory
    return Refusal(f"{where}: the image does not decode ({reason}). Replace the file, or remove the row.")
