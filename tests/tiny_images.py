"""Small images that can be learned, and networks and trainers small enough to be run many times."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from datasets import ClassLabel, Dataset, Features, Image
from tiny_run import make_trainer
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel

from hf_noise_al import ActiveTrainer
from hf_noise_al.loading.processors import load_image_processor
from hf_noise_al.settings.arguments import DataArguments, ModelArguments
from hf_noise_al.tasks import TASKS, Prepared

TASK = TASKS["image_classification"]
COLUMNS = ("image", "label")
SMALL: dict[str, dict[str, Any]] = {
    "small_resnet": {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1]},
    "small_vgg": {"hidden_sizes": [4, 6], "depths": [2, 1], "dense_sizes": [8, 6], "dropout": 0.1},
    "small_cnn": {"hidden_sizes": [3, 4], "kernel_size": 3, "padding": 1, "dense_sizes": [8], "dropout": 0.1},
}
"""What makes each of our networks small: model type -> fields of its configuration."""


def make_pixels(label: int, size: int, generator: np.random.Generator) -> np.ndarray[Any, Any]:
    """Return a noisy image of grays that is bright in the half that `label` names, (size, size)."""
    pixels = generator.integers(0, 120, (size, size))
    half = slice(None, size // 2) if label % 2 else slice(size // 2, None)
    pixels[half] += 100
    return pixels.astype(np.uint8)


def make_images(
    rows: int, size: int = 8, mode: str = "L", classes: int = 2, seed: int = 0, columns: tuple[str, str] = COLUMNS
) -> Dataset:
    """Return images of `mode`, stored as PNG files, with their classes."""
    image, label = columns
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=rows).tolist()
    images = [PIL.Image.fromarray(make_pixels(value, size, generator)).convert(mode) for value in labels]
    features = Features({image: Image(), label: ClassLabel(num_classes=classes)})
    return Dataset.from_dict({image: images, label: labels}, features=features)


def make_small(model_type: str = "small_cnn", size: int = 8, channels: int = 1, **fields: Any) -> PreTrainedModel:
    """Return one of our networks, small and always the same, with batch norm statistics as after a training."""
    settings = {**SMALL[model_type], "num_channels": channels, "num_labels": 3, **fields}
    if model_type != "small_resnet":
        settings["image_size"] = size
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **settings)
        model: PreTrainedModel = AutoModelForImageClassification.from_config(config).eval()
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                buffer.normal_()
    return model


def prepare_images(pool: Dataset, evaluation: Dataset, size: int = 8, channels: int = 1, **settings: Any) -> Prepared:
    """Return what the task makes of images for one of our networks."""
    processor = load_image_processor(
        ModelArguments(model_config={"model_type": "small_cnn", "num_channels": channels}), size
    )
    return TASK.prepare(pool, evaluation, processor, DataArguments(dataset_name="x", **settings))


def image_trainer(folder: Path, augmentation: Any = None, **settings: Any) -> ActiveTrainer:
    """Return a trainer over 40 images; it learns a network of a hundred weights without dropout."""
    ready = prepare_images(make_images(40), make_images(12, seed=1))
    given = {
        "model": make_small("small_cnn", num_labels=2, dropout=0.0, problem_type="single_label_classification"),
        "eval_dataset": ready.eval_dataset,
        "data_collator": TASK.collator(None),
        "augmentation": augmentation,
    }
    return make_trainer(folder, pool=ready.pool, trainer=given, **settings)
