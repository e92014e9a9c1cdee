"""Noise of the right length on the right tensors, and not a bit of it left behind."""

import copy
import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from hf_noise_al.noise import perturbation
from hf_noise_al.noise.full_precision import full_precision
from hf_noise_al.noise.parameter_filter import perturbed_tensors
from hf_noise_al.noise.perturbation import check_noise_scale, perturbed

SCALE = 0.05


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bits(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer as raw bytes, so that -0.0, NaN and the dtype count."""
    return {name: tensor.detach().clone().contiguous().view(torch.uint8) for name, tensor in named_tensors(model)}


def named_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tensor if tensor.ndim else tensor[None]) for name, tensor in tensors]


def assert_same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def noise_of(model: nn.Module, parameter_filter: str = "weight", seed: int = 0) -> dict[str, Tensor]:
    """What `perturbed` adds to each parameter, in double precision."""
    before = {name: tensor.detach().clone().double() for name, tensor in model.named_parameters()}
    with perturbed(model, SCALE, generator(seed), parameter_filter):
        return {name: tensor.detach().double() - before[name] for name, tensor in model.named_parameters()}


def moved(model: nn.Module, parameter_filter: str = "weight") -> set[str]:
    return {name for name, noise in noise_of(model, parameter_filter).items() if noise.abs().max() > 0}


def small_bert(**changes: Any) -> BertForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(**sizes, intermediate_size=32, max_position_embeddings=16, **changes)
    return BertForSequenceClassification(config).eval()


def small_gpt2(cls: type = GPT2ForSequenceClassification) -> nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=16, num_labels=3, pad_token_id=0)
    return cls(config).eval()


class Mixed(nn.Module):
    """One of each: convolution, embedding, norms with and without weight, a zero row, a bare parameter, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 3, 3)
        self.embedding = nn.Embedding(7, 5, padding_idx=0)
        self.norm = nn.LayerNorm(5)
        self.bare_norm = nn.LayerNorm(5, elementwise_affine=False)
        self.batch_norm = nn.BatchNorm2d(3)
        self.linear = nn.Linear(5, 4, bias=False)
        self.loss = nn.CrossEntropyLoss()
        self.scale = nn.Parameter(torch.ones(4))
        nn.init.zeros_(self.linear.weight[1])


# ---- the noise ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [Mixed, small_bert, small_gpt2], ids=["mixed", "bert", "gpt2"])
def test_noise_of_each_tensor_has_the_asked_share_of_its_length(build: Callable[[], nn.Module]) -> None:
    model = build()
    noises = noise_of(model)
    chosen = perturbed_tensors(model)
    assert chosen
    for name, tensor in chosen.items():
        expected = SCALE * tensor.detach().double().norm()
        assert noises[name].norm().item() == pytest.approx(expected.item(), rel=1e-5), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_noise_has_the_asked_length_in_every_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Linear(64, 64).to(dtype)
    noise = noise_of(model)["weight"]
    tolerance = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 0.02, torch.float16: 0.002}[dtype]
    assert noise.norm().item() == pytest.approx(SCALE * model.weight.detach().double().norm().item(), rel=tolerance)


def test_noise_is_gaussian() -> None:
    model = nn.Linear(300, 300, bias=False)
    noise = noise_of(model)["weight"].flatten()
    standard = noise / noise.std()
    assert standard.mean().abs() < 0.02
    assert (standard.abs() < 1).double().mean().item() == pytest.approx(math.erf(math.sqrt(0.5)), abs=0.01)
    assert standard.pow(4).mean().item() == pytest.approx(3, abs=0.1)


def test_noise_is_the_same_from_equal_generators_and_differs_from_draw_to_draw() -> None:
    model, source = small_bert(), generator(3)
    with perturbed(model, SCALE, source):
        first = bits(model)
    with perturbed(model, SCALE, source):
        second = bits(model)
    with perturbed(model, SCALE, generator(3)):
        assert_same_bits(bits(model), first)
    name = "classifier.weight"
    assert not torch.equal(first[name], second[name])


def test_every_tensor_and_every_draw_has_noise_of_its_own() -> None:
    model = nn.Sequential(*(nn.Linear(3, 2, bias=False) for _ in range(4)))
    drawn = [noise for seed in range(6) for noise in noise_of(model, seed=seed).values()]
    unit = torch.stack([(noise / noise.norm()).flatten() for noise in drawn])
    assert len(drawn) == 24
    assert float((unit @ unit.T - torch.eye(24)).abs().max()) < 0.999


def test_one_number_is_drawn_from_the_generator_whatever_the_filter() -> None:
    states = []
    for parameter_filter in ("weight", "all", "head"):
        source = generator()
        with perturbed(small_bert(), SCALE, source, parameter_filter):
            pass
        states.append(source.get_state())
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])
    alone = generator()
    torch.randint(2**63 - 1, (), generator=alone)
    assert torch.equal(alone.get_state(), states[0])


def test_noise_of_a_tensor_depends_on_its_name_and_not_on_what_else_is_perturbed() -> None:
    model = small_bert()
    everything, head = noise_of(model, "all"), noise_of(model, "head")
    assert torch.equal(everything["classifier.weight"], head["classifier.weight"])
    first, second = (noise_of(model)[f"bert.encoder.layer.{i}.attention.self.query.weight"] for i in (0, 1))
    cosine = torch.nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0)
    assert cosine.abs() < 0.3


def test_noise_is_the_same_for_any_memory_layout() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, 3)
    channels_last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    assert not channels_last.weight.is_contiguous()
    before = channels_last.weight.data_ptr(), channels_last.weight.stride()
    with perturbed(plain, SCALE, generator()), perturbed(channels_last, SCALE, generator()):
        torch.testing.assert_close(channels_last.weight, plain.weight, rtol=1e-6, atol=1e-7)
    assert (channels_last.weight.data_ptr(), channels_last.weight.stride()) == before
    assert torch.equal(plain.weight, channels_last.weight)


def test_noise_of_a_compiled_wrapper_is_that_of_the_model() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    compiled = torch.compile(model, backend="eager")
    assert perturbed_tensors(compiled).keys() == perturbed_tensors(model).keys()
    assert set(perturbed_tensors(compiled, r"^1\.")) == {"1.weight", "1.bias"}
    plain, wrapped = noise_of(model), noise_of(compiled)
    assert torch.equal(plain["0.weight"], wrapped["_orig_mod.0.weight"])


def test_zero_and_single_entry_and_empty_weights_are_safe() -> None:
    zero, single, empty = nn.Linear(3, 3, bias=False), nn.Linear(1, 1, bias=False), nn.Linear(3, 1, bias=False)
    nn.init.zeros_(zero.weight)
    nn.init.constant_(single.weight, -2.0)
    empty.weight = nn.Parameter(torch.empty(0, 3))
    noises = noise_of(nn.ModuleDict({"zero": zero, "single": single, "empty": empty}))
    assert noises["zero.weight"].abs().max() == 0
    assert noises["single.weight"].abs().item() == pytest.approx(2 * SCALE, rel=1e-6)
    assert noises["empty.weight"].numel() == 0


# ---- putting back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("build", [Mixed, small_bert], ids=["mixed", "bert"])
def test_restores_every_bit(build: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    model = build().to(dtype)
    before = bits(model)
    pointers = {name: tensor.data_ptr() for name, tensor in model.named_parameters()}
    first = next(iter(perturbed_tensors(model)))
    with perturbed(model, SCALE, generator()):
        assert not torch.equal(bits(model)[first], before[first])
    assert_same_bits(bits(model), before)
    assert {name: tensor.data_ptr() for name, tensor in model.named_parameters()} == pointers


@pytest.mark.parametrize("special", [float("nan"), float("inf"), -0.0])
def test_restores_special_values(special: float) -> None:
    model = nn.Linear(3, 3)
    with torch.no_grad():
        model.weight[0, 0] = special
    before = bits(model)
    with perturbed(model, SCALE, generator()):
        pass
    assert_same_bits(bits(model), before)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_restores_parameters_when_the_body_raises(error: type[BaseException], dtype: torch.dtype) -> None:
    model = small_bert().to(dtype)
    before = bits(model)
    with pytest.raises(error), perturbed(model, SCALE, generator()):
        raise error
    assert_same_bits(bits(model), before)


def test_restores_parameters_when_interrupted_while_noise_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = small_bert(), []
    before, add_noise = bits(model), perturbation._add_noise

    def interrupted(*args: Any) -> None:
        calls.append(args)
        add_noise(*args)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(perturbation, "_add_noise", interrupted)
    with pytest.raises(KeyboardInterrupt), perturbed(model, SCALE, generator()):
        pytest.fail("the body must not run")
    assert len(calls) == 3
    assert_same_bits(bits(model), before)


def test_restores_what_the_body_itself_changed() -> None:
    model = nn.Linear(3, 3)
    before = bits(model)
    with perturbed(model, SCALE, generator()), torch.no_grad():
        model.weight.zero_()
    assert_same_bits(bits(model), before)


def test_nested_blocks_add_up_and_come_off_one_by_one() -> None:
    model = nn.Linear(8, 8)
    before = bits(model)
    with perturbed(model, SCALE, generator(0)):
        outer = bits(model)
        with perturbed(model, SCALE, generator(1)):
            assert not torch.equal(bits(model)["weight"], outer["weight"])
        assert_same_bits(bits(model), outer)
    assert_same_bits(bits(model), before)


def test_the_global_random_state_is_left_alone() -> None:
    model, before = small_bert(), torch.get_rng_state()
    with full_precision(model), perturbed(model, SCALE, generator()):
        pass
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_and_training_mode_and_requires_grad_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)).train()
    model[0].weight.requires_grad_(False)
    model(torch.ones(1, 3)).sum().backward()
    gradient = model[1].weight.grad
    assert gradient is not None
    copied = gradient.clone()
    with perturbed(model, SCALE, generator()):
        assert model[0].training and not model[0].weight.requires_grad and model[1].weight.requires_grad
    assert model[1].weight.grad is gradient and torch.equal(gradient, copied)


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise_scale", [0, -1e-3, math.nan, math.inf, "big", None, True])
def test_a_noise_scale_out_of_range_is_refused(noise_scale: Any) -> None:
    with pytest.raises(ValueError, match="`noise_scale` must be a positive finite number, got"):
        check_noise_scale(noise_scale)
    with pytest.raises(ValueError), perturbed(nn.Linear(2, 2), noise_scale, generator()):
        pytest.fail("the body must not run")


# ---- memory ------------------------------------------------------------------------------------------------------


class PeakBytes(TorchDispatchMode):
    """Count the bytes of the storages that operations make, while they live."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for _, tensor in named_tensors(model)}
        self.live: dict[int, tuple[int, list[weakref.ref[Tensor]]]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                storage = tensor.untyped_storage()
                _size, holders = self.live.get(storage.data_ptr(), (0, []))
                holders = [holder for holder in holders if holder() is not None]
                self.live[storage.data_ptr()] = (storage.nbytes(), [*holders, weakref.ref(tensor)])
        self.peak = max(self.peak, self.held())
        return result

    def held(self) -> int:
        self.live = {key: value for key, value in self.live.items() if any(holder() is not None for holder in value[1])}
        return sum(size for size, _ in self.live.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_extra_memory_is_one_copy_of_the_perturbed_tensors(dtype: torch.dtype) -> None:
    model = nn.ModuleList(nn.Linear(50, 40) for _ in range(8)).to(dtype)
    chosen = perturbed_tensors(model).values()
    copies = sum(tensor.nbytes for tensor in chosen)
    largest = max(tensor.numel() for tensor in chosen)
    temporaries = {torch.float32: 0, torch.float64: 12 * largest}.get(dtype, 4 * largest)
    gc.collect()
    counter = PeakBytes(model)
    with counter, perturbed(model, SCALE, generator()):
        held = counter.held()
    numbers = 64  # norms and seeds
    assert copies <= counter.peak <= copies + temporaries + numbers
    assert held <= copies + numbers


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_noise_on_a_gpu_is_that_of_a_cpu() -> None:
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 2))
    before = [p.clone() for p in model.parameters()]
    with perturbed(model, 0.1, torch.Generator().manual_seed(0)):
        expected = [p.clone() for p in model.parameters()]
    with perturbed(model.cuda(), 0.1, torch.Generator().manual_seed(0)):
        torch.testing.assert_close([p.detach().cpu() for p in model.parameters()], [p.detach() for p in expected])
    assert all(map(torch.equal, before, [p.cpu() for p in model.parameters()]))
