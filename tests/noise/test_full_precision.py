"""Float32 inside the block, and everything as it was afterwards."""

import copy
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from test_perturbation import (
    SCALE,
    assert_same_bits,
    bits,
    generator,
    small_bert,
)
from torch import Tensor, nn

from hf_noise_al.noise.full_precision import full_precision
from hf_noise_al.noise.perturbation import perturbed


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    return {"input_ids": torch.randint(5, 40, (4, 9), generator=generator()), "attention_mask": torch.ones(4, 9).long()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_full_precision_computes_as_a_float32_copy(dtype: torch.dtype, inputs: dict[str, Tensor]) -> None:
    model = small_bert().to(dtype)
    before = bits(model)
    objects = {name: (id(p), p.data_ptr(), p.dtype) for name, p in [*model.named_parameters(), *model.named_buffers()]}
    expected = copy.deepcopy(model).float()(**inputs).logits
    with full_precision(model):
        found = model(**inputs).logits
        assert found.dtype == torch.float32 and torch.equal(found, expected)
    found = {name: (id(p), p.data_ptr(), p.dtype) for name, p in [*model.named_parameters(), *model.named_buffers()]}
    assert found == objects
    assert_same_bits(bits(model), before)


def test_full_precision_keeps_ties_and_casts_buffers_and_flat_weights() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"lstm": nn.LSTM(3, 4), "norm": nn.BatchNorm1d(4)})
    model.update({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    model["b"].weight = model["a"].weight
    model.to(torch.bfloat16).eval()
    x = torch.randn(5, 3)
    expected = copy.deepcopy(model["lstm"]).float()(x)[0]
    with full_precision(model):
        assert model["a"].weight is model["b"].weight
        assert model["norm"].running_mean.dtype == torch.float32
        assert torch.equal(model["lstm"](x)[0], expected)
    assert model["a"].weight is model["b"].weight
    assert model["norm"].running_mean.dtype == torch.bfloat16
    assert model["lstm"](x.bfloat16())[0].dtype == torch.bfloat16


def test_full_precision_restores_when_the_body_raises() -> None:
    model = small_bert().to(torch.bfloat16)
    before = bits(model)
    with pytest.raises(KeyboardInterrupt), full_precision(model), perturbed(model, SCALE, generator()):
        raise KeyboardInterrupt
    assert_same_bits(bits(model), before)


def test_full_precision_leaves_the_hooks_that_distributed_training_puts_on_gradients() -> None:
    """DistributedDataParallel hooks the node that accumulates a gradient; a cast would make a new node without it."""
    model, calls = nn.Linear(3, 2).to(torch.bfloat16), []
    node = model.weight.expand_as(model.weight).grad_fn.next_functions[0][0]
    node.register_hook(lambda *_: calls.append(1))
    with full_precision(model):
        pass
    model(torch.ones(1, 3, dtype=torch.bfloat16)).sum().backward()
    assert calls == [1]


def test_full_precision_switches_autocast_off() -> None:
    model = nn.Linear(8, 8)
    x = torch.randn(2, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full_precision(model):
            assert torch.equal(model(x), nn.functional.linear(x, model.weight, model.bias))
            assert model(x).dtype == torch.float32
        assert model(x).dtype == torch.bfloat16


@pytest.fixture
def accelerator() -> Accelerator:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(mixed_precision="bf16", cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_full_precision_takes_off_the_autocast_that_accelerate_put_on(
    accelerator: Accelerator, inputs: dict[str, Tensor]
) -> None:
    model = small_bert()
    expected = model(**inputs).logits
    prepared = accelerator.prepare_model(model, evaluation_mode=True)
    rounded, wrapped = prepared(**inputs).logits, prepared.__dict__["forward"]
    assert not torch.equal(rounded, expected)
    with full_precision(prepared):
        assert torch.equal(prepared(**inputs).logits, expected)
    assert prepared.__dict__["forward"] is wrapped
    assert torch.equal(prepared(**inputs).logits, rounded)


def test_full_precision_keeps_a_forward_that_the_user_put_on_the_model(accelerator: Accelerator) -> None:
    model = nn.Linear(3, 2)
    model.forward = lambda x: 2 * nn.functional.linear(x, model.weight, model.bias)
    with full_precision(model):
        expected = model(torch.ones(1, 3))
    prepared = accelerator.prepare_model(model, evaluation_mode=True)
    with full_precision(prepared):
        assert torch.equal(prepared(torch.ones(1, 3)), expected)


def tf32_switches() -> list[tuple[Any, str]]:
    backends = torch.backends
    if not hasattr(backends.cuda.matmul, "fp32_precision"):
        return [(backends.cuda.matmul, "allow_tf32"), (backends.cudnn, "allow_tf32")]
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    places = [backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]
    return [(place, "fp32_precision") for place in places]


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_full_precision_switches_tf32_off_and_on_again(precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        flags = [getattr(place, name) for place, name in tf32_switches()]
        with pytest.raises(RuntimeError, match="body"), full_precision(nn.Linear(2, 2)):
            assert {getattr(place, name) for place, name in tf32_switches()} <= {"ieee", False}
            raise RuntimeError("body")
        assert [getattr(place, name) for place, name in tf32_switches()] == flags
        assert torch.get_float32_matmul_precision() == precision
        assert torch.backends.cudnn.allow_tf32 is True  # torch raises here if old and new switches disagree
    finally:
        torch.set_float32_matmul_precision(before)


def test_full_precision_of_a_model_without_tensors() -> None:
    with full_precision(nn.ReLU()) as nothing:
        assert nothing is None
