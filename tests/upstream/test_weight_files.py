"""Whole weights on the disk and back. Sharded ones are in distributed/test_sharded.py."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from safetensors.torch import save_file
from tiny_run import make_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from hf_noise_al.files.run_names import WEIGHTS_FILE
from hf_noise_al.upstream.weight_files import load_weights, save_weights, whole_weights


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


def test_values_that_change_on_the_way_to_the_disk_change_back_where_names_and_shapes_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some rotary embeddings of transformers do: the rows of a matrix stand in another order on the disk."""
    loading = pytest.importorskip("transformers.core_model_loading")
    mapping = pytest.importorskip("transformers.conversion_mapping")
    turn = loading.WeightConverter("pooler.dense.weight", "pooler.dense.weight", [loading.Transpose(0, 1)])
    known = mapping.get_checkpoint_conversion_mapping
    monkeypatch.setattr(
        mapping, "get_checkpoint_conversion_mapping", lambda name: {"bert": [turn]}.get(name, known(name))
    )
    model, other = make_model(), make_model()
    model.save_pretrained(tmp_path)
    other_numbers(other)
    load_weights(other, tmp_path)
    assert torch.equal(other.bert.pooler.dense.weight, model.bert.pooler.dense.weight)


def test_a_tied_weight_that_upstream_did_not_tie_does_not_replace_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As transformers 4 leaves the output layer of some models whose names it changes."""
    config = GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8)
    model, other = GPT2LMHeadModel(config), GPT2LMHeadModel(config)
    state = {
        f"old.{name}": tensor for name, tensor in whole_weights(model, keep=True).items() if name != "lm_head.weight"
    }
    save_file(state, tmp_path / "model.safetensors")

    def read(*args: Any, **kwargs: Any) -> tuple[nn.Module, dict[str, list[str]]]:
        found = GPT2LMHeadModel(config)
        found.load_state_dict(model.state_dict())
        found.lm_head.weight = nn.Parameter(torch.zeros(20, 8))
        return found, {"missing_keys": ["lm_head.weight"], "unexpected_keys": [], "mismatched_keys": []}

    monkeypatch.setattr(GPT2LMHeadModel, "from_pretrained", read)
    load_weights(other, tmp_path)
    assert torch.equal(other.lm_head.weight, model.lm_head.weight)


def test_weights_that_would_lose_digits_are_refused(tmp_path: Path) -> None:
    save_weights(make_model(), tmp_path, write=True)
    with pytest.raises(ValueError, match=r"of torch.float32, and the model's, of torch.bfloat16, .*load the model in"):
        load_weights(make_model().to(torch.bfloat16), tmp_path)


def test_weights_of_lower_precision_are_taken_as_they_are(tmp_path: Path) -> None:
    model, other = make_model().to(torch.bfloat16), make_model()
    save_weights(model, tmp_path, write=True)
    load_weights(other, tmp_path)
    assert torch.equal(other.classifier.weight, model.classifier.weight.float())
    assert other.classifier.weight.dtype == torch.float32


def test_weights_of_another_shape_are_refused_and_not_spread(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)
    save_weights(model, tmp_path, write=True)
    with pytest.raises(ValueError, match="(weight|bias) is of another shape in this model, 2 in all"):
        load_weights(nn.Linear(3, 4), tmp_path)


class WithExtraState(nn.Linear):
    extra: Any = torch.tensor([1.0, 2.0])

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


def test_extra_state_of_a_module_comes_back_where_it_is_a_tensor(tmp_path: Path) -> None:
    model = WithExtraState(2, 2)
    save_weights(model, tmp_path, write=True)
    model.extra = torch.zeros(2)
    load_weights(model, tmp_path)
    assert torch.equal(model.extra, torch.tensor([1.0, 2.0]))
    model.extra = {"a": 1}
    with pytest.raises(
        ValueError, match="Cannot keep _extra_state of the model: only tensors can be, and it is a dict"
    ):
        save_weights(model, tmp_path, write=True)


def test_prompts_come_back_from_what_peft_saved(tmp_path: Path) -> None:
    model = get_peft_model(make_model(), PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=2))
    model.save_pretrained(tmp_path)
    before = other_numbers(model)
    load_weights(model, tmp_path)
    changed = {name for name, tensor in model.state_dict().items() if "prompt_encoder" in name}
    assert changed and all(torch.equal(model.state_dict()[name], before[name]) for name in changed)


def test_files_of_torch_are_read_as_transformers_4_may_leave_them(tmp_path: Path) -> None:
    model, other = make_model(), make_model()
    other_numbers(model)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    load_weights(other, tmp_path)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", [WEIGHTS_FILE, "model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"half", b"\xff" * 100], ids=["empty", "half", "other"])
def test_files_that_cannot_be_read_are_refused_with_the_folder(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"Cannot load the weights in {tmp_path}: .*Restore the folder, or"):
        load_weights(make_model(), tmp_path)
