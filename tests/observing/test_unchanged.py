"""What an observation leaves as it was."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from test_observer import first_tokens, make_observer
from tiny_run import make_model, make_pool
from torch import Tensor, nn

from hf_noise_al.observing.unchanged import untouched_random_state


def test_the_model_is_in_evaluation_mode_meanwhile_and_each_module_as_before_after() -> None:
    model = make_model()
    model.train()
    model.bert.encoder.eval()
    before = [module.training for module in model.modules()]
    seen = []

    def observable(module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        seen.append((any(m.training for m in module.modules()), torch.is_grad_enabled()))
        return first_tokens(module, inputs)

    make_observer(make_pool(8), model)(observable)
    assert seen == [(False, False)]
    assert [module.training for module in model.modules()] == before


def test_random_states_are_put_back_also_after_an_error() -> None:
    def state() -> tuple[Any, ...]:
        return random.getstate(), torch.get_rng_state().tolist(), [*map(str, np.random.get_state())]

    before = state()
    with pytest.raises(RuntimeError), untouched_random_state():
        torch.rand(3), np.random.rand(3), random.random()
        assert state() != before
        raise RuntimeError
    assert state() == before
