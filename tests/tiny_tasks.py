"""A run of each kind of task, from files as a user has them, small enough to be repeated on several processes."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Sequence as SequenceFeature
from segmentation_data import CONFIGS, NAMES, VALUE_OF_VOID, make_scenes
from tiny_images import SMALL, make_images
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForTokenClassification, BertConfig, PreTrainedTokenizerFast

from hf_noise_al import ActiveTrainer
from hf_noise_al.commands.prepare import prepare
from hf_noise_al.settings.parsing import parse

ROWS, QUERY, STEP = 23, 6, 8
"""Rows of a pool, neither even nor a multiple of the batch, rows asked for, and rows of an optimizer step."""


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as flags of `hf-noise-al run`."""
    words = []
    for name, value in settings.items():
        values = value if isinstance(value, list | tuple) else [json.dumps(value) if isinstance(value, dict) else value]
        words += [f"--{name}", *map(str, values)]
    return words


def save_tables(folder: Path) -> dict[str, Any]:
    generator = np.random.default_rng(0)

    def split(rows: int) -> Dataset:
        area = generator.normal(size=rows)
        street = generator.choice(["paved", "gravel", ""], rows)
        return Dataset.from_dict({"area": area, "street": street, "price": 3 * area + generator.normal(size=rows)})

    DatasetDict({"train": split(ROWS), "validation": split(5)}).save_to_disk(folder / "data")
    return {"label_column": "price", "model_config": {"model_type": "tabular_mlp", "hidden_sizes": [8, 4]}}


def save_words(folder: Path) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    words = ["[PAD]", "[UNK]", "the", "dog", "was", "in", "rome"]
    features = Features(
        {"words": SequenceFeature(Value("string")), "tags": SequenceFeature(ClassLabel(names=["O", "B-LOC"]))}
    )

    def split(rows: int) -> Dataset:
        sentences = [generator.choice(words[2:], length).tolist() for length in generator.integers(1, 9, rows)]
        tags = [[int(word == "rome") for word in sentence] for sentence in sentences]
        return Dataset.from_dict({"words": sentences, "tags": tags}, features=features)

    DatasetDict({"train": split(ROWS), "validation": split(5)}).save_to_disk(folder / "data")
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    wrapped.save_pretrained(folder / "model")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=len(words), num_labels=2, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForTokenClassification.from_config(config).save_pretrained(folder / "model")
    return {"label_column": "tags", "model_name_or_path": folder / "model"}


def save_scenes(folder: Path) -> dict[str, Any]:
    DatasetDict({"train": make_scenes(ROWS), "validation": make_scenes(5, start=50)}).save_to_disk(folder / "data")
    model = {"model_config": {"model_type": "segformer", **CONFIGS["segformer"]}}
    return {"label_column": "mask", "void_label": VALUE_OF_VOID, "class_names": NAMES, "image_size": 16, **model}


def save_images(folder: Path) -> dict[str, Any]:
    DatasetDict({"train": make_images(ROWS), "validation": make_images(5, seed=1)}).save_to_disk(folder / "data")
    model = {"model_config": {"model_type": "small_cnn", **SMALL["small_cnn"], "image_size": 8, "dropout": 0.0}}
    return {"label_column": "label", "image_size": 8, "augmentation": ["flip", "crop"], **model}


TASKS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "tabular_regression": save_tables,
    "token_classification": save_words,
    "segmentation": save_scenes,
    "image_classification": save_images,
}


def save(folder: Path) -> None:
    """Save the data and the settings of every task, in a folder for each."""
    for task, make in TASKS.items():
        (folder / task).mkdir(parents=True)
        settings = make(folder / task)
        (folder / task / "settings.json").write_text(json.dumps(settings, default=str))


def make_trainer(folder: Path, task: str, output: Path, **settings: Any) -> ActiveTrainer:
    """Return the trainer of a run of what `save` left in `folder`, read from there as `hf-noise-al run` does."""
    settings = {
        **json.loads((folder / task / "settings.json").read_text()),
        **{"task": task, "dataset_name": folder / task / "data", "output_dir": output, "use_cpu": "true"},
        **{"initial_size": STEP, "query_size": QUERY, "num_rounds": 2, "max_steps": 1, "max_grad_norm": 1e9},
        **{"per_device_eval_batch_size": 4, "disable_tqdm": "true", "save_strategy": "no", "report_to": "none"},
        **settings,
    }
    return prepare(*parse(None, flags(settings))).trainer
