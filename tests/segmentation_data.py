"""Images of two colors and a mask that tells where each is, models of a few thousand weights, and a run over them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from datasets import Dataset, Features, Image
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
    ConvNextImageProcessor,
    PreTrainedModel,
)

NAMES = ("dark", "red", "green")
VALUE_OF_VOID = 9
SIZES = ((16, 24), (20, 12))
"""Heights and widths, in turn."""

CONFIGS: dict[str, dict[str, Any]] = {
    "mobilenet_v2": {"depth_multiplier": 0.1, "min_depth": 4, "depth_divisible_by": 4, "finegrained_output": True},
    "dpt": {
        **{"hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 8},
        **{"image_size": 16, "patch_size": 8, "neck_hidden_sizes": [4, 4, 8, 8], "fusion_hidden_size": 8},
        **{"backbone_out_indices": [0, 1, 2, 3], "use_auxiliary_head": False, "is_hybrid": False},
        **{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "semantic_classifier_dropout": 0.0},
    },
    "segformer": {
        **{"depths": [1, 1], "num_encoder_blocks": 2, "hidden_sizes": [4, 8], "num_attention_heads": [1, 2]},
        **{"sr_ratios": [2, 1], "patch_sizes": [7, 3], "strides": [4, 2], "mlp_ratios": [2, 2]},
        **{"decoder_hidden_size": 8, "drop_path_rate": 0.0, "classifier_dropout_prob": 0.0},
    },
    "upernet": {
        "backbone_config": {
            **{"model_type": "convnext", "num_stages": 2, "hidden_sizes": [4, 8], "depths": [1, 1]},
            "out_features": ["stage1", "stage2"],
        },
        **{"hidden_size": 8, "pool_scales": [1, 2], "use_auxiliary_head": False},
    },
    "resnet": {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"},
    "convnext": {"num_stages": 2, "hidden_sizes": [4, 8], "depths": [1, 1]},
    "vit": {
        **{"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8},
        **{"image_size": 16, "patch_size": 4},
    },
    "mobilenet_v1": {"depth_multiplier": 0.1, "min_depth": 4, "initializer_range": 0.3},
}
WITH_HEAD = ("mobilenet_v2", "dpt", "segformer", "upernet")


def make_scene(number: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (H, W, 3) with a red and a green part, and a mask (H, W) whose first row is void."""
    generator = np.random.default_rng(number)
    height, width = size
    mask = np.zeros(size, np.uint8)
    mask[:, : int(generator.integers(2, width // 2))] = 1
    mask[int(generator.integers(height // 2, height - 2)) :] = 2
    pixels = generator.integers(0, 60, (height, width, 3)).astype(np.uint8)
    pixels[mask == 1, 0] += 150
    pixels[mask == 2, 1] += 150
    mask[0] = VALUE_OF_VOID
    return pixels, mask


def make_scenes(num_rows: int, sizes: Sequence[tuple[int, int]] = SIZES, start: int = 0) -> Dataset:
    """Return rows with the columns ``image`` and ``mask``."""
    scenes = [make_scene(start + row, sizes[row % len(sizes)]) for row in range(num_rows)]
    columns = {
        name: [PIL.Image.fromarray(scene[part]) for scene in scenes] for part, name in enumerate(("image", "mask"))
    }
    return Dataset.from_dict(columns, features=Features({"image": Image(), "mask": Image()}))


def make_folder(folder: Path, model_type: str) -> Path:
    """Save a pretrained model of this type, as it is found on the Hub; one without head classifies images."""
    auto: Any = AutoModelForSemanticSegmentation if model_type in WITH_HEAD else AutoModelForImageClassification
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = auto.from_config(AutoConfig.for_model(model_type, **CONFIGS[model_type]))
    model.save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 16}, crop_pct=1.0).save_pretrained(folder)
    return folder
