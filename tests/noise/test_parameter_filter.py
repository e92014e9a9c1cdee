"""Which tensors are perturbed, and what the log says of the others."""

import logging
from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from test_perturbation import SCALE, Mixed, assert_same_bits, bits, generator, moved, noise_of, small_bert, small_gpt2
from torch import nn
from transformers import (
    GPT2LMHeadModel,
    MixtralConfig,
    MixtralForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.pytorch_utils import Conv1D

from hf_noise_al.noise.parameter_filter import log_choice, perturbed_tensors
from hf_noise_al.noise.perturbation import perturbed


def test_weight_chooses_the_weight_of_every_module_and_no_bias() -> None:
    expected = {"conv.weight", "embedding.weight", "norm.weight", "batch_norm.weight", "linear.weight"}
    model = Mixed()
    before = bits(model)
    assert set(perturbed_tensors(model)) == moved(model) == expected
    with perturbed(model, SCALE, generator()):
        inside = bits(model)
    for name in before.keys() - expected:
        assert torch.equal(inside[name], before[name]), name


def test_weight_of_the_model_itself_has_no_dot_in_front() -> None:
    assert list(perturbed_tensors(nn.Linear(2, 2))) == ["weight"]


def test_weight_chooses_conv1d_of_gpt2() -> None:
    model = small_gpt2()
    convolutions = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}
    assert len(convolutions) == 8
    assert convolutions <= moved(model)


def test_a_tied_tensor_is_perturbed_once() -> None:
    model = small_gpt2(GPT2LMHeadModel)
    assert model.lm_head.weight is model.transformer.wte.weight
    chosen = perturbed_tensors(model)
    assert "transformer.wte.weight" in chosen and "lm_head.weight" not in chosen
    length = SCALE * model.lm_head.weight.detach().double().norm().item()
    assert noise_of(model)["transformer.wte.weight"].norm().item() == pytest.approx(length, rel=1e-5)


def test_a_tied_tensor_can_be_named_by_either_name() -> None:
    model = small_gpt2(GPT2LMHeadModel)
    (tensor,) = perturbed_tensors(model, "lm_head").values()
    assert tensor is model.transformer.wte.weight
    assert len(perturbed_tensors(model, "lm_head|wte")) == 1


def test_a_module_used_twice_is_perturbed_once() -> None:
    layer = nn.Linear(4, 4)
    model = nn.ModuleList([layer, layer, nn.Linear(4, 4)])
    assert list(perturbed_tensors(model)) == ["0.weight", "2.weight"]


def test_filters_by_name() -> None:
    model = small_bert()
    model.bert.embeddings.requires_grad_(False)
    names = {name for name, _ in model.named_parameters()}
    assert moved(model, "all") | {n for n in names if n.endswith("bias")} == names  # zero biases get zero noise
    assert set(perturbed_tensors(model, "all")) == names
    assert set(perturbed_tensors(model, "trainable")) == {n for n in names if "embeddings" not in n}
    assert set(perturbed_tensors(model, "head")) == {"classifier.weight", "classifier.bias"}
    assert set(perturbed_tensors(model, r"layer\.1\.output\.dense")) == {
        "bert.encoder.layer.1.output.dense.weight",
        "bert.encoder.layer.1.output.dense.bias",
    }


@pytest.mark.parametrize("parameter_filter", ["no_such_name", "trainable"])
def test_a_filter_that_matches_nothing_is_refused(parameter_filter: str) -> None:
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match=f"parameter_filter='{parameter_filter}'` matches no parameter of Linear"):
        perturbed_tensors(model, parameter_filter)
    source = generator()
    before = source.get_state()
    with pytest.raises(ValueError), perturbed(model, SCALE, source, parameter_filter):
        pytest.fail("the body must not run")
    assert torch.equal(source.get_state(), before)


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="matches no parameter of ReLU"):
        perturbed_tensors(nn.ReLU())


def test_a_filter_that_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`parameter_filter='\['` is not a regular expression .*weight, all"):
        perturbed_tensors(nn.Linear(2, 2), "[")


def test_head_of_a_plain_module_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a model with a `base_model`, Linear has none"):
        perturbed_tensors(nn.Linear(2, 2), "head")


class Packed(nn.Parameter):
    """As torchao and bitsandbytes do: a subclass that may report any dtype."""


@pytest.mark.parametrize("kind", ["int8", "float8", "subclass"])
def test_quantized_weights_are_refused(kind: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    weight = {
        "int8": lambda: nn.Parameter(torch.zeros(2, 2, dtype=torch.int8), requires_grad=False),
        "float8": lambda: nn.Parameter(torch.zeros(2, 2).to(torch.float8_e4m3fn), requires_grad=False),
        "subclass": lambda: Packed(torch.zeros(2, 2)),
    }[kind]()
    model[1].weight = weight
    with pytest.raises(ValueError, match=r"Cannot perturb 1\.weight: .*without quantization"):
        perturbed_tensors(model)
    assert list(perturbed_tensors(model, "^0")) == ["0.weight", "0.bias"]


def lora_bert(**changes: Any) -> nn.Module:
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=2, target_modules=["query", "value"], **changes)
    model = get_peft_model(small_bert(), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return model.eval()


@pytest.mark.parametrize("use_dora", [False, True])
def test_peft_base_weights_are_perturbed_once(use_dora: bool) -> None:
    model = lora_bert(use_dora=use_dora)
    chosen = perturbed_tensors(model)
    base = [name for name in chosen if "query" in name and "layer.0" in name]
    assert [name.rpartition("query.")[2] for name in base][:3] == [
        "base_layer.weight",
        "lora_A.default.weight",
        "lora_B.default.weight",
    ]
    name = base[0]
    length = SCALE * chosen[name].detach().double().norm().item()
    assert noise_of(model)[name].norm().item() == pytest.approx(length, rel=1e-5)
    before = bits(model)
    with perturbed(model, SCALE, generator()):
        pass
    assert_same_bits(bits(model), before)


def test_peft_trainable_and_head() -> None:
    model = lora_bert()
    trainable = set(perturbed_tensors(model, "trainable"))
    assert trainable and all("lora_" in name or "modules_to_save" in name for name in trainable)
    head = set(perturbed_tensors(model, "head"))
    assert any("modules_to_save.default" in name for name in head) and all("classifier" in name for name in head)


def test_trainable_works_beside_quantized_weights() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).requires_grad_(False)
    model[0].weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.int8), requires_grad=False)
    model[1].requires_grad_(True)
    assert list(perturbed_tensors(model, "trainable")) == ["1.weight", "1.bias"]


# ---- the log line ------------------------------------------------------------------------------------------------


def logged(model: nn.Module, caplog: pytest.LogCaptureFixture, parameter_filter: str = "weight") -> str:
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="hf_noise_al"):
        log_choice(model, parameter_filter)
    (record,) = caplog.records
    return record.getMessage()


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("hf_noise_al"), "propagate", True)
    return caplog


def test_log_counts_what_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    chosen = 2 * 3 * 9 + 7 * 5 + 5 + 3 + 5 * 4
    expected = (
        f"parameter_filter='weight' perturbs 5 tensors ({chosen} parameters) and leaves out 3 biases and "
        "1 other tensors (4 parameters): scale"
    )
    assert logged(Mixed(), caplog) == expected
    assert logged(Mixed(), caplog, "all").endswith("leaves out 0 biases and 0 other tensors (0 parameters)")


def test_log_names_position_embeddings_of_a_vision_transformer(caplog: pytest.LogCaptureFixture) -> None:
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4
    )
    message = logged(ViTForImageClassification(config), caplog)
    assert "2 other tensors (48 parameters)" in message  # 1 class token + 5 positions, 8 numbers each
    assert message.endswith(": vit.embeddings.cls_token, vit.embeddings.position_embeddings")


def test_log_names_experts_attention_and_parametrized_weights(caplog: pytest.LogCaptureFixture) -> None:
    config = MixtralConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
        pad_token_id=0,
    )
    experts = {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}
    message = logged(MixtralForSequenceClassification(config), caplog)
    if any(name.endswith(tuple(experts)) for name, _ in MixtralForSequenceClassification(config).named_parameters()):
        assert all(name in message for name in experts)  # transformers 5 fuses the experts of a layer
    assert "self_attn.in_proj_weight" not in message
    attention = nn.ModuleDict({"self_attn": nn.MultiheadAttention(4, 2)})
    assert "1 other tensors (48 parameters): self_attn.in_proj_weight" in logged(attention, caplog)
    normed = nn.ModuleDict({"conv": nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), "out": nn.Linear(2, 2)})
    message = logged(normed, caplog)
    assert "perturbs 1 tensors (4 parameters) and leaves out 2 biases and 2 other tensors (8 parameters)" in message
    assert "conv.parametrizations.weight.original0" in message


def test_log_of_many_tensors_is_cut_short(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(2, 2)
    for i in range(7):
        model.register_parameter(f"extra_{i}", nn.Parameter(torch.ones(1)))
    assert logged(model, caplog).endswith(": extra_0, extra_1, extra_2, extra_3, extra_4, ...")
