"""The fingerprint of a run: what must be the same for a resumed run to end as an uninterrupted one would."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import Any

from datasets import Dataset
from torch import nn

from ..acquisition import Acquisition
from ..augmentation import Augmentation
from ..observables.base import Observable
from ..pool.hashes import content_hash, rows_hash
from ..pool.pool_dataset import PoolDataset
from ..processes.sharded_weights import class_name, global_numel
from ..training_args import ActiveTrainingArguments, default_of

ARGUMENTS = (
    *("seed", "data_seed", "full_determinism"),
    *("initial_size", "initial_selection", "query_size", "candidate_size", "warm_start"),
    "eval_folds",
    *("num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "world_size"),
    *("learning_rate", "weight_decay", "max_grad_norm", "label_smoothing_factor", "optim", "optim_args"),
    *("adam_beta1", "adam_beta2", "adam_epsilon"),
    *("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio"),
    *("bf16", "fp16", "tf32", "load_best_model_at_end", "metric_for_best_model"),
    *("train_sampling_strategy", "group_by_length", "dataloader_drop_last", "neftune_noise_alpha"),
)
"""`num_rounds` is not among them: a finished run may be resumed for more rounds."""

OF_SOME_RELEASES = {"train_sampling_strategy": "random", "group_by_length": False, "warmup_ratio": 0.0}
"""Settings that only some releases of transformers have, as they are by default."""


def run_fingerprint(
    data: Mapping[str, object],
    args: ActiveTrainingArguments,
    model: nn.Module,
    acquisition: Acquisition,
    observable: Observable | None,
    augmentation: Augmentation | None = None,
    evaluation: Mapping[str, object] | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, object]:
    """Return the fingerprint as plain JSON, flat, so that a difference can be named."""
    config = getattr(model, "config", None)
    values = {
        **{f"data.{name}": value for name, value in data.items()},
        **({} if evaluation is None else {"evaluation": dict(evaluation)}),
        **({} if classes is None else {"classes": list(classes)}),
        **argument_fingerprint(args, acquisition),
        "observable": None if observable is None else _name(observable),
        "augmentation": repr(augmentation) if is_dataclass(augmentation) else augmentation and _name(augmentation),
        "model": class_name(model),
        "model.num_labels": getattr(config, "num_labels", None),
        "model.parameters": sum(map(global_numel, model.parameters())),
    }
    return _plain(values)


class DataFingerprint:
    """The part of the fingerprint that is of data: the pool, what is set aside, and the evaluation rows.

    Data sets are read once, when it is first asked for.
    """

    def __init__(self, data: PoolDataset, set_aside: Collection[int]) -> None:
        self.data, self.set_aside = data, set_aside
        self._found: tuple[dict[str, object], dict[str, object]] | None = None

    def of(self, eval_dataset: object) -> tuple[dict[str, object], dict[str, object]]:
        """Return what identifies the pool, and what identifies `eval_dataset`."""
        if self._found is None:
            aside = {"set_aside": rows_hash(self.set_aside)} if self.set_aside else {}
            self._found = {**self.data.fingerprint(), **aside}, _rows_of(eval_dataset)
        return self._found


def _rows_of(dataset: object) -> dict[str, object]:
    """Return what identifies the rows of a data set, or of each of several."""
    if isinstance(dataset, Mapping):
        return {str(name): _rows_of(rows) for name, rows in dataset.items()}
    if isinstance(dataset, Dataset):
        return {"rows": len(dataset), "content": content_hash(dataset)}
    return {}  # its rows cannot be looked at without going through them


def argument_fingerprint(args: ActiveTrainingArguments, acquisition: Acquisition) -> dict[str, object]:
    """Return the part of the fingerprint that is known before data and model are loaded."""
    values = {name: getattr(args, name) for name in ARGUMENTS if hasattr(args, name)}
    return _plain({**values, "acquisition": {"class": type(acquisition).__name__, **_settings(acquisition)}})


def fingerprint_defaults(args: ActiveTrainingArguments, acquisition: Acquisition) -> dict[str, object]:
    """Return what an entry of `argument_fingerprint` is where a run did not know of it."""
    known: dict[str, Field[Any]] = {field.name: field for field in fields(args)}
    values = {**OF_SOME_RELEASES, **{name: default_of(known[name]) for name in ARGUMENTS if name in known}}
    return _plain({**values, "acquisition": {field.name: _shown(default_of(field)) for field in _fields(acquisition)}})


def describe(acquisition: Acquisition) -> str:
    """Return the acquisition with its settings, the same in every process: functions by name, not by address."""
    if not is_dataclass(acquisition):
        return type(acquisition).__name__
    return f"{type(acquisition).__name__}({', '.join(f'{k}={v}' for k, v in _settings(acquisition).items())})"


def _settings(acquisition: Acquisition) -> dict[str, str]:
    return {field.name: _shown(getattr(acquisition, field.name)) for field in _fields(acquisition)}


def _fields(acquisition: Acquisition) -> tuple[Field[Any], ...]:
    return fields(acquisition) if is_dataclass(acquisition) else ()


def _shown(value: object) -> str:
    return _name(value) if callable(value) else repr(value)


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    plain: dict[str, object] = json.loads(json.dumps(values, default=str))
    return plain
