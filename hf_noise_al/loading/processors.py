"""Tokenizers and image processors, as the arguments name them."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from ..files.shown_text import first_line
from ..refusals import Refusal
from ..settings.arguments import ModelArguments
from .models import load_model_config

logger = logging.get_logger(__name__)


def load_tokenizer(arguments: ModelArguments, **options: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the model, made with `options` beside its own."""
    source = arguments.processor_name_or_path or arguments.model_name_or_path
    if source is None:
        raise Refusal("A model made from `model_config` has no tokenizer. Name one with `processor_name_or_path`.")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, revision=arguments.model_revision, trust_remote_code=arguments.trust_remote_code, **options
        )
    except (OSError, ValueError) as error:
        raise Refusal(f"Cannot load the tokenizer of {source}: {first_line(error)}") from error
    return tokenizer


def load_image_processor(arguments: ModelArguments, image_size: int | None = None) -> Any:
    """Return the image processor of the model; where it has none, one that resizes and scales pixels to 0..1.

    ``do_convert_rgb`` of the result says whether the model looks at three channels.
    """
    config = load_model_config(arguments, {})
    processor = _own_image_processor(arguments, needed=image_size is None)
    if processor is None:
        logger.info(f"No image processor: images are resized to {image_size} x {image_size}, pixels scaled to 0..1.")
        processor = plain_image_processor(image_size, image_size, do_normalize=False)
    processor.do_convert_rgb = getattr(config, "num_channels", 3) == 3
    return processor


def plain_image_processor(height: int | None, width: int | None, **fields: Any) -> Any:
    """Return a processor that resizes and scales pixels, on Pillow; `fields` are others of its settings."""
    plain: Any = getattr(transformers, "ViTImageProcessorPil", None) or transformers.ViTImageProcessor
    return plain(size={"height": height, "width": width}, **fields)


def _own_image_processor(arguments: ModelArguments, needed: bool) -> Any | None:
    source = arguments.processor_name_or_path or arguments.model_name_or_path
    if source is None:
        if needed:
            raise Refusal("A model made from `model_config` has no image processor. Set `image_size`, such as 32.")
        return None
    pillow = {"backend": "pil"} if int(transformers.__version__.split(".")[0]) >= 5 else {"use_fast": False}
    try:
        auto: Any = AutoImageProcessor
        return auto.from_pretrained(
            source, revision=arguments.model_revision, trust_remote_code=arguments.trust_remote_code, **pillow
        )
    except (OSError, ValueError) as error:
        if needed or arguments.processor_name_or_path is not None:
            raise Refusal(
                f"Cannot load the image processor of {source}: {first_line(error)} Set `image_size` to do without one."
            ) from error
        return None
