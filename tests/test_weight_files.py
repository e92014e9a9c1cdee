"""Whole weights on the disk and back. Sharded ones are in distributed/test_sharded.py."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import save_file
from tiny_run import make_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from hf_noise_al.weight_files import load_weights, whole_weights


def lora() -> nn.Module:
    return get_peft_model(make_model(), LoraConfig(task_type=TaskType.SEQ_CLS, r=2, target_modules=["query"]))


def other_numbers(model: nn.Module) -> dict[str, torch.Tensor]:
    """Change every parameter; return the state before."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    return before


@pytest.mark.parametrize("max_shard_size", ["5GB", "5KB"])
def test_saved_weights_come_back(tmp_path: Path, max_shard_size: str) -> None:
    model = make_model()
    model.save_pretrained(tmp_path, state_dict=whole_weights(model, keep=True), max_shard_size=max_shard_size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (max_shard_size == "5KB")
    before = other_numbers(model)
    load_weights(model, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_tied_weights_stay_one_tensor(tmp_path: Path) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    state = whole_weights(model, keep=True)
    assert state["lm_head.weight"] is state["transformer.wte.weight"]
    model.save_pretrained(tmp_path, state_dict=state)
    before = other_numbers(model)
    load_weights(model, tmp_path)
    assert torch.equal(model.lm_head.weight, before["lm_head.weight"])
    assert model.lm_head.weight is model.transformer.wte.weight


def test_adapters_come_back_and_the_rest_stays(tmp_path: Path) -> None:
    model = lora()
    model.save_pretrained(tmp_path, state_dict=whole_weights(model, keep=True))
    before = other_numbers(model)
    load_weights(model, tmp_path)
    for name, tensor in model.state_dict().items():
        saved = "lora_" in name or "modules_to_save" in name
        assert torch.equal(tensor, before[name] if saved else before[name] + tensor.is_floating_point()), name


def test_who_does_not_keep_the_weights_gets_none() -> None:
    assert whole_weights(make_model(), keep=False) == {}


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    model = make_model()
    state = whole_weights(model, keep=True)
    del state["classifier.bias"], state["classifier.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"classifier.weight is not there, 2 in all\. Restore the folder"):
        load_weights(model, tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {}}))
    with pytest.raises(ValueError, match="Cannot load the weights in"):
        load_weights(model, tmp_path)
