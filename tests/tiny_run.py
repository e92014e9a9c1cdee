"""A pool of texts, a BERT of a few kilobytes and a trainer over them: a run of three rounds takes about a second."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, EvalPrediction

from hf_noise_al import ActiveTrainer, ActiveTrainingArguments
from hf_noise_al.annotators import Annotator
from hf_noise_al.pool.pool import Label

VOCABULARY = 40


def make_pool(num_rows: int = 60, num_labels: int = 2, seed: int = 0) -> Dataset:
    """Return rows of token numbers, unlike in length; the first token tells the class."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for row in range(num_rows):
        length = int(torch.randint(3, 20, (), generator=generator))
        tokens = torch.randint(10, VOCABULARY, (length,), generator=generator).tolist()
        label = int(torch.randint(num_labels, (), generator=generator))
        tokens[0] = 5 + label
        rows.append({"input_ids": tokens, "attention_mask": [1] * length, "text": f"text {row}", "label": label})
    return Dataset.from_list(rows)


def make_model(num_labels: int = 2, **config: Any) -> BertForSequenceClassification:
    """Return the same small BERT each time, whatever the global random state is; it has dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return BertForSequenceClassification(
            BertConfig(
                vocab_size=VOCABULARY,
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=16,
                max_position_embeddings=32,
                num_labels=num_labels,
                **config,
            )
        )


def init_model() -> BertForSequenceClassification:
    """Initialize a small BERT from the global random state, as a `model_init` does."""
    return BertForSequenceClassification(make_config())


def make_config() -> BertConfig:
    """Return the configuration of `make_model`."""
    return make_model().config


def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad on the right; labels only where there are some."""
    longest = max(len(example["input_ids"]) for example in examples)
    batch = {
        name: torch.tensor([[*example[name], *[0] * (longest - len(example[name]))] for example in examples])
        for name in ("input_ids", "attention_mask")
    }
    found = next((name for name in ("label", "labels") if name in examples[0]), None)
    if found:
        batch["labels"] = torch.tensor([example[found] for example in examples])
    return batch


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return the share of right classes."""
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


class Oracle(Annotator):
    """Knows the labels of `make_pool` and keeps what it was asked."""

    def __init__(self, labels: Sequence[Label]) -> None:
        self.labels_by_row = list(labels)
        self.asked: list[list[int]] = []

    def annotate(self, rows: Sequence[int]) -> list[Label]:
        self.asked.append(list(rows))
        return [self.labels_by_row[row] for row in rows]


def make_arguments(output_dir: Path | str, **arguments: Any) -> ActiveTrainingArguments:
    """Return arguments for three rounds: 8 labels and two queries of 6."""
    defaults = {
        "num_rounds": 3,
        "initial_size": 8,
        "query_size": 6,
        "acquisition_kwargs": {"num_perturbations": 3},
        "num_train_epochs": 1,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 8,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "log_level": "error",
    }
    return ActiveTrainingArguments(output_dir=str(output_dir), **{**defaults, **arguments})


def make_trainer(
    output_dir: Path | str,
    *,
    pool: Dataset | None = None,
    fresh: bool = False,
    trainer: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> ActiveTrainer:
    """Return a trainer over `pool`: with a `model_init` if `fresh`, else with a model.

    Args:
        output_dir: Where the run goes.
        pool: `make_pool()` by default.
        fresh: Use a `model_init`.
        trainer: What `ActiveTrainer` takes, in the place of the defaults.
        arguments: What `ActiveTrainingArguments` takes, in the place of the defaults.
    """
    pool = make_pool() if pool is None else pool
    settings: dict[str, Any] = {
        "train_dataset": pool,
        "eval_dataset": make_pool(20, seed=1),
        "data_collator": collate,
        "compute_metrics": accuracy,
        **({"model_init": init_model} if fresh else {"model": make_model()}),
        **(trainer or {}),
    }
    if "model" in settings and "model_init" in settings:
        del settings["model"]
    return ActiveTrainer(args=make_arguments(output_dir, **arguments), **settings)


def read_state(folder: Path) -> dict[str, Any]:
    """Return what the state of the run in `folder` says, with its labels under ``annotations``."""
    state: dict[str, Any] = json.loads((folder / "active_state.json").read_text())
    journal = folder / "labels.jsonl"
    lines = journal.read_bytes()[: state["labels"]["bytes"]].splitlines() if journal.exists() else []
    return {**state, "annotations": [json.loads(line) for line in lines]}


def outcome(trainer: ActiveTrainer) -> dict[str, Any]:
    """Return all of a run that must not depend on the machine's mood: picks, labels, scores and metrics."""
    return {
        "annotations": trainer.pool.annotations,
        "history": [(r.round, r.num_labeled, r.query_size, r.metrics) for r in trainer.history],
        "weights": {name: value.clone() for name, value in trainer.model.state_dict().items()},
    }


def assert_same_outcome(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Compare two outcomes, bit for bit."""
    assert found["annotations"] == expected["annotations"]
    assert found["history"] == expected["history"]
    assert found["weights"].keys() == expected["weights"].keys()
    for name, value in expected["weights"].items():
        assert torch.equal(found["weights"][name], value), f"{name} differs"
