"""Numbers that no training can work with are refused when the arguments are made."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import make_arguments

NOT_NEGATIVE = "must be a finite number of at least 0, got {}. Correct it, or leave it out for the default"
BELOW_ONE = "must be at least 0 and below 1, got {}"
WORKERS = {"dataloader_num_workers": 1}
STEPS = {name: "steps" for name in ("logging_strategy", "eval_strategy", "save_strategy")}


@pytest.mark.parametrize(
    ("name", "values", "message", "others"),
    [
        ("learning_rate", (math.nan, math.inf, -1e-3), NOT_NEGATIVE, {}),
        ("weight_decay", (math.nan, math.inf, -0.1), NOT_NEGATIVE, {}),
        ("warmup_steps", (math.nan, math.inf, -1), NOT_NEGATIVE, {}),
        ("neftune_noise_alpha", (math.nan, math.inf, -1.0), NOT_NEGATIVE, {}),
        ("adam_beta1", (math.nan, math.inf, -0.1, 1.0), BELOW_ONE, {}),
        ("adam_beta2", (math.nan, math.inf, -0.1, 1.0), BELOW_ONE, {}),
        ("label_smoothing_factor", (math.nan, math.inf, -0.1, 1.0), BELOW_ONE, {}),
        ("adam_epsilon", (math.nan, math.inf, -1e-8, 0.0), "must be a finite number above 0, such as 1e-8, got {}", {}),
        ("max_grad_norm", (math.nan, -1.0), "must be at least 0, which stands for gradients of any length, got {}", {}),
        ("num_train_epochs", (math.nan, math.inf, -1.0, 0), "must be a finite number above 0, got {}", {}),
        ("max_steps", (0,), "is {}, and a round must train. Set the steps of a round, or -1 to go by", {}),
        ("max_steps", (2.5, math.nan, True), "must be a whole number, got {}. Set it to an int.", {}),
        ("gradient_accumulation_steps", (0, -1), "must be at least 1, got {}", {}),
        ("gradient_accumulation_steps", (2.5,), "must be a whole number, got {}", {}),
        ("dataloader_num_workers", (-1,), "must be at least 0, got {}", {}),
        ("dataloader_prefetch_factor", (0, -1), "must be at least 1, got {}", WORKERS),
        ("eval_accumulation_steps", (0, -1), "must be at least 1, got {}", {}),
        ("seed", (-1,), "must be at least 0, got {}", {}),
        ("seed", (2**32,), "must be at most 4,294,967,295, got 4,294,967,296. Lower it", {}),
        ("data_seed", (2.5,), "must be a whole number, got {}", {}),
        ("logging_steps", (math.nan, math.inf), "must be a finite number, got {}", STEPS),
        ("eval_steps", (math.nan, math.inf), "must be a finite number, got {}", STEPS),
        ("save_steps", (math.nan, math.inf), "must be a finite number, got {}", STEPS),
        (
            "dataloader_persistent_workers",
            (True,),
            "is set, and `dataloader_num_workers` is 0: there are",
            {},
        ),
    ],
)
def test_numbers_that_cannot_work_are_refused(
    tmp_path: Path, name: str, values: tuple[Any, ...], message: str, others: dict[str, Any]
) -> None:
    for value in values:
        with pytest.raises(ValueError) as refused:
            make_arguments(tmp_path, **{name: value}, **others)
        assert f"`{name}` {message.format(repr(value))}" in str(refused.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"learning_rate": 0.0, "max_grad_norm": 0.0, "weight_decay": 0, "adam_beta1": 0.0, "label_smoothing_factor": 0},
        {"max_grad_norm": math.inf, "warmup_steps": 1, "neftune_noise_alpha": None, "save_steps": 0.5},
        {"max_steps": 2, "num_train_epochs": 0},
        {"max_steps": -1, "num_train_epochs": 0.5},
        {"logging_steps": math.inf, "logging_strategy": "no"},
        {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 1, "dataloader_persistent_workers": True},
        {"max_steps": np.int64(2), "gradient_accumulation_steps": np.int32(1), "weight_decay": np.float32(0.5)},
        {"seed": 2**32 - 1, "data_seed": -1, "eval_accumulation_steps": 1},
    ],
)
def test_numbers_that_work_are_left_alone(tmp_path: Path, arguments: dict[str, Any]) -> None:
    made = make_arguments(tmp_path, **arguments)
    assert {name: getattr(made, name) for name in arguments if name != "logging_strategy"} == {
        name: value for name, value in arguments.items() if name != "logging_strategy"
    }
