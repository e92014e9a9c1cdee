"""Masks: read from anything that holds a number for every pixel, kept as text, put into batches of any sizes."""

from io import BytesIO
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from hf_noise_al.tasks.masks.mask_arrays import (
    VOID,
    decode_mask,
    encode_mask,
    flatten_masks,
    read_mask,
    unflatten_masks,
)
from hf_noise_al.tasks.pictures import decoded_image, open_image

MASK = np.array([[0, 1, 2], [2, 1, 9]])


def png(image: PIL.Image.Image) -> dict[str, Any]:
    file = BytesIO()
    image.save(file, "PNG")
    return {"bytes": file.getvalue(), "path": "masks/7.png"}


@pytest.mark.parametrize("highest", [0, 3, 254, 255, 300, 65534])
def test_a_mask_comes_back_from_its_text(highest: int) -> None:
    mask = np.array([[0, highest, VOID], [highest, VOID, 0]])
    text = encode_mask(mask)
    assert text.isascii() and "\n" not in text
    np.testing.assert_array_equal(decode_mask(text), mask)


def test_a_mask_of_void_alone_comes_back_from_its_text() -> None:
    mask = np.full((2, 3), VOID)
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)


@pytest.mark.parametrize(
    "value",
    [
        PIL.Image.fromarray(MASK.astype(np.uint8)),
        PIL.Image.fromarray(MASK.astype(np.uint8)).convert("RGB"),
        png(PIL.Image.fromarray(MASK.astype(np.uint16))),
        png(PIL.Image.fromarray(MASK.astype(np.uint8))),
        MASK.tolist(),
        MASK[:, :, None].astype(np.float32),
    ],
    ids=["gray", "equal channels", "16 bits", "bytes", "lists", "whole floats"],
)
def test_pictures_and_arrays_are_read_as_numbers(value: Any) -> None:
    np.testing.assert_array_equal(read_mask(value, "Row 1"), MASK)


def test_a_palette_is_read_by_its_numbers_not_its_colors() -> None:
    image = PIL.Image.new("P", (3, 2))
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.putdata(MASK.flatten().tolist())
    np.testing.assert_array_equal(read_mask(image, "Row 1"), MASK)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (PIL.Image.new("RGB", (3, 2), (1, 2, 3)), r"Row 1 is no mask: a picture in colors \(mode RGB\).*PNG in gray"),
        ([[0.5, 1.0]], r"Row 1 is no mask: found float64 numbers of shape \(1, 2\)"),
        ([1, 2], r"found int64 numbers of shape \(2,\)\. Store a whole number for each pixel"),
        ([[1, 2], [3]], "Row 1 is no mask: found list. Store a PNG, or rows of whole numbers of equal length"),
        ("hello", "Row 1 is no mask: found str"),
        ({"bytes": b"\x89PNG", "path": "a.png"}, "Row 1: the image does not decode"),
        ({"bytes": b"", "path": None}, r"Row 1: the image does not decode \(cannot identify image file\)\. Replace"),
        ([], r"Row 1 is no mask: found float64 numbers of shape \(0,\)"),
        ([[], []], r"Row 1 is no mask: found float64 numbers of shape \(2, 0\)"),
    ],
)
def test_what_is_no_mask_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_mask(value, "Row 1")


def test_text_that_is_no_png_is_refused() -> None:
    with pytest.raises(ValueError, match="The label is no PNG in base64"):
        decode_mask("iVBORw0KGgo!")


def test_an_image_that_is_cut_short_is_refused_when_it_is_decoded() -> None:
    whole = png(PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50)).astype(np.uint8)))
    short = {**whole, "bytes": whole["bytes"][:-900]}
    assert open_image(short, "Row 1").size == (50, 40)  # the size is known without the pixels
    with pytest.raises(ValueError, match="Row 1: the image does not decode .* Replace the file, or remove the row."):
        decoded_image(short, "Row 1")


def test_batches_hold_masks_of_any_size_and_can_be_padded() -> None:
    masks = [np.array([[0, 1], [VOID, 2]]), np.array([[1, 1, 0]])]
    batch = flatten_masks(masks)
    assert batch.tolist() == [[2, 2, 0, 1, VOID, 2], [1, 3, 1, 1, 0, VOID]]
    padded = torch.nn.functional.pad(batch, (0, 5), value=VOID)  # as on several processes
    for found, mask in zip(unflatten_masks(padded), masks, strict=True):
        assert found.dtype == torch.long and found.tolist() == mask.tolist()
