"""Numbers among the settings of transformers that no training can work with, refused before one starts."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING

from .selection import check_whole_number

if TYPE_CHECKING:
    from transformers import TrainingArguments

WHOLE = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
}
"""Settings that are whole numbers, and the least that each may be."""

WHOLE_OR_UNSET = {"eval_accumulation_steps": 1, "dataloader_prefetch_factor": 1, "data_seed": -(2**63)}
"""The same for settings that may be None."""

NOT_NEGATIVE = ("learning_rate", "weight_decay", "warmup_steps", "warmup_ratio", "neftune_noise_alpha")
"""Settings that are finite numbers of at least 0, where they are set and this version of transformers has them."""

BELOW_ONE = ("adam_beta1", "adam_beta2", "label_smoothing_factor")
INTERVALS = {"logging_strategy": "logging_steps", "eval_strategy": "eval_steps", "save_strategy": "save_steps"}
MOST_SEED = 2**32 - 1
"""The largest seed that NumPy takes."""


def check_numbers(arguments: TrainingArguments) -> None:
    """Raise ValueError for a number that would stop a training, let it do nothing, or leave weights that are NaN."""
    values = vars(arguments)
    for name, least in WHOLE.items():
        check_whole_number(name, _whole(values[name]), least)
    for name, least in WHOLE_OR_UNSET.items():
        if values[name] is not None:
            check_whole_number(name, _whole(values[name]), least)
    check_whole_number("seed", values["seed"], 0, MOST_SEED)
    _check_length(values)
    for name in NOT_NEGATIVE:
        if values.get(name) is not None:
            _check(name, values[name], 0 <= _number(values[name]) < math.inf, "a finite number of at least 0")
    for name in BELOW_ONE:
        _check(name, values[name], 0 <= _number(values[name]) < 1, "at least 0 and below 1")
    epsilon = _number(values["adam_epsilon"])
    _check("adam_epsilon", values["adam_epsilon"], 0 < epsilon < math.inf, "a finite number above 0, such as 1e-8")
    norm = values["max_grad_norm"]
    if norm is not None:
        _check("max_grad_norm", norm, _number(norm) >= 0, "at least 0, which stands for gradients of any length")
    for strategy, name in INTERVALS.items():
        if getattr(values[strategy], "value", values[strategy]) == "steps" and values[name] is not None:
            _check(name, values[name], math.isfinite(_number(values[name])), "a finite number")
    if values["dataloader_persistent_workers"] and not values["dataloader_num_workers"]:
        raise ValueError(
            "`dataloader_persistent_workers` is set, and `dataloader_num_workers` is 0: there are no workers to keep. "
            "Raise `dataloader_num_workers`, or leave the setting out."
        )


def _check_length(values: Mapping[str, object]) -> None:
    steps, epochs = _whole(values["max_steps"]), values["num_train_epochs"]
    check_whole_number("max_steps", steps, -math.inf)
    if steps == 0:
        raise ValueError(
            "`max_steps` is 0, and a round must train. Set the steps of a round, or -1 to go by `num_train_epochs`."
        )
    if isinstance(steps, int) and steps < 0:
        _check("num_train_epochs", epochs, 0 < _number(epochs) < math.inf, "a finite number above 0")


def _whole(value: object) -> object:
    """Return an integer of NumPy as Python's, and anything else as it is."""
    return operator.index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else value


def _number(value: object) -> float:
    """Return `value` as a float, and what is no number as NaN."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan


def _check(name: str, value: object, fits: bool, wanted: str) -> None:
    if not fits:
        raise ValueError(f"`{name}` must be {wanted}, got {value!r}. Correct it, or leave it out for the default.")
