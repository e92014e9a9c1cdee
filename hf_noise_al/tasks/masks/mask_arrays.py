"""Masks: a class number for every pixel, read from pictures and arrays, kept as text, put into batches."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np
import PIL.ImageOps
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...refusals import Refusal
from ..pictures import PNG_TEXT, decoded_image

Mask: TypeAlias = NDArray[np.int64]
"""(height, width): a number for every pixel."""

VOID = -100
"""What a pixel that does not count has in the place of a class."""
_GRAY = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")


def read_mask(value: Any, where: str) -> Mask:
    """Return the numbers in `value`, a picture of gray or palette numbers or an array (H, W) of whole numbers.

    Raises:
        ValueError: it is neither, or does not decode.
    """
    if isinstance(value, (PIL.Image.Image, Mapping)):
        return _numbers_of(decoded_image(value, where), where)
    try:
        given = np.asarray(value)
        array = given.astype(np.int64)
        whole = given.size > 0 and bool((array == given).all())
    except (TypeError, ValueError) as error:
        raise Refusal(
            f"{where} is no mask: found {type(value).__name__}. Store a PNG, or rows of whole numbers of equal length."
        ) from error
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 or not whole:
        raise Refusal(
            f"{where} is no mask: found {given.dtype} numbers of shape {given.shape}. "
            "Store a whole number for each pixel, (height, width)."
        )
    return array


def is_encoded(value: object) -> bool:
    """Return whether `value` is text as `encode_mask` writes it."""
    return isinstance(value, str) and value.startswith(PNG_TEXT)


def encode_mask(classes: Mask) -> str:
    """Return class numbers, `VOID` where there is none, as a PNG in base64: gray, with 255 for void.

    Where a class has a number above 254, the PNG has 16 bits and 65535 for void.
    """
    kind, top = (np.uint8, 255) if classes.max() < 255 else (np.uint16, 65535)
    file = BytesIO()
    PIL.Image.fromarray(np.where(classes == VOID, top, classes).astype(kind)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def decode_mask(text: str, where: str = "The label") -> Mask:
    """Return what `encode_mask` wrote; (H, W) with `VOID` for void pixels."""
    numbers = read_mask(_picture_in(text, where), where)
    return np.where(numbers == (255 if numbers.max() < 256 else 65535), VOID, numbers)


def flatten_masks(masks: list[Mask]) -> Tensor:
    """Return masks of any sizes as one batch: height, width, then the pixels row by row, filled up with `VOID`.

    Returns:
        (B, 2 + the most pixels), int32. In this form batches of several processes can be padded to one length.
    """
    batch = torch.full((len(masks), 2 + max(mask.size for mask in masks)), VOID, dtype=torch.int32)
    for row, mask in zip(batch, masks, strict=True):
        row[0], row[1] = mask.shape
        row[2 : 2 + mask.size] = torch.from_numpy(np.ascontiguousarray(mask)).flatten()
    return batch


def unflatten_masks(batch: Tensor) -> list[Tensor]:
    """Return the masks of a batch as `flatten_masks` made it: (H, W) each, int64."""
    sizes = batch[:, :2].tolist()
    return [row[2 : 2 + h * w].view(h, w).long() for row, (h, w) in zip(batch, sizes, strict=True)]


def _numbers_of(image: PIL.Image.Image, where: str) -> Mask:
    array = np.asarray(image)
    if image.mode not in _GRAY:
        if array.ndim != 3 or array.dtype != np.uint8 or bool((array[..., :3] != array[..., :1]).any()):
            raise Refusal(
                f"{where} is no mask: a picture in colors (mode {image.mode}). "
                "Store class numbers: a PNG in gray or with a palette."
            )
        array = array[..., 0]
    return array.astype(np.int64)


def _picture_in(text: str, where: str) -> dict[str, Any]:
    try:
        return {"bytes": base64.b64decode(text, validate=True), "path": None}
    except binascii.Error as error:
        raise Refusal(f"{where} is no PNG in base64: {error}.") from error
