"""A small network of doubles and rows for it, for tests of what noise does to outputs."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hf_noise_al.acquisition import Candidates, NoiseStability
from hf_noise_al.testing import generator

finite_differences = partial(NoiseStability, estimator="finite_difference")


def outputs(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """The outputs themselves."""
    result: Tensor = model(**inputs)
    return result


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 3)).double()


def inputs(size: int = 8, width: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(size, width, generator=generator(seed), dtype=torch.float64)


def log_of(caplog: pytest.LogCaptureFixture, candidates: Candidates, **settings: Any) -> str:
    """What the library logs while noise stability chooses two of `candidates`."""
    with caplog.at_level(logging.INFO, logger="hf_noise_al"):
        NoiseStability(**settings).select(candidates, 2, generator())
    return caplog.text
