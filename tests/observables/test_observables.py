"""Observables: probabilities as they should be, features as the head really got them."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    ResNetConfig,
    ResNetForImageClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_noise_al.observables.base import (
    default_observable,
    features,
    is_multi_label,
    is_regression,
    names_in_base_model,
    probabilities,
    probabilities_and_features,
    split_probabilities_and_features,
)

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
BERT = {**SIZES, "max_position_embeddings": 16}


def bert(cls: type = BertForSequenceClassification, **changes: Any) -> nn.Module:
    return cls(BertConfig(**BERT, **changes)).eval()


def text(padding_side: str = "right") -> dict[str, Tensor]:
    """Four texts of unlike lengths, padded with 0."""
    ids = torch.randint(5, 40, (4, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    for row, length in enumerate((9, 4, 1, 6)):
        padding = slice(length, None) if padding_side == "right" else slice(None, 9 - length)
        ids[row, padding] = mask[row, padding] = 0
    return {"input_ids": ids, "attention_mask": mask}


def images() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))}


def vision_transformer() -> nn.Module:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=5))


def residual_network() -> nn.Module:
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=5)
    return ResNetForImageClassification(config)


def distil_bert() -> nn.Module:
    sizes = {"vocab_size": 40, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 16}
    return DistilBertForSequenceClassification(DistilBertConfig(**sizes, num_labels=3))


def roberta() -> nn.Module:
    config = RobertaConfig(**{**SIZES, "max_position_embeddings": 20}, num_labels=3, pad_token_id=0)
    return RobertaForSequenceClassification(config)


def gpt2(**changes: Any) -> nn.Module:
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=16, pad_token_id=0, **changes)
    return GPT2ForSequenceClassification(config)


def lora_bert() -> nn.Module:
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=2, target_modules=["query"])
    return get_peft_model(bert(num_labels=3), config)


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3))


def numbers() -> dict[str, Tensor]:
    return {"input": torch.randn(4, 6, generator=torch.Generator().manual_seed(0))}


Case = tuple[Callable[[], nn.Module], Callable[[], dict[str, Tensor]], str, int]
CASES: dict[str, Case] = {
    "bert": (lambda: bert(num_labels=3), text, "classifier", 16),
    "bert regression": (lambda: bert(num_labels=1), text, "classifier", 16),
    "distilbert": (distil_bert, text, "classifier", 16),
    "roberta": (roberta, text, "classifier.out_proj", 16),
    "gpt2": (lambda: gpt2(num_labels=3), text, "score", 16),
    "gpt2 regression": (lambda: gpt2(num_labels=1), text, "score", 16),
    "gpt2 padded left": (lambda: gpt2(num_labels=3), lambda: text("left"), "score", 16),
    "resnet": (residual_network, images, "classifier.1", 8),
    "vit": (vision_transformer, images, "classifier", 16),
    "lora bert": (lora_bert, text, "base_model.model.classifier.modules_to_save.default", 16),
    "linear": (lambda: nn.Linear(6, 3), numbers, "", 6),
    "perceptron": (perceptron, numbers, "4", 7),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_features_are_what_the_head_made_the_logits_of(case: Case) -> None:
    build, make_inputs, head_name, width = case
    torch.manual_seed(0)
    model, inputs = build().eval(), make_inputs()
    with torch.no_grad():
        found = features(model, inputs)
        outputs = model(**inputs)
        head = model.get_submodule(head_name)
        assert isinstance(head, nn.Linear)
        assert found.shape == (4, width) and found.dtype == torch.float32
        logits = outputs if isinstance(outputs, Tensor) else outputs.logits
        torch.testing.assert_close(head(found), logits, rtol=1e-5, atol=1e-6)
    assert not any(module._forward_hooks for module in model.modules())


def test_features_of_gpt2_are_those_of_the_last_real_token() -> None:
    torch.manual_seed(0)
    model, inputs = gpt2(num_labels=3).eval(), text()
    with torch.no_grad():
        hidden = model.transformer(**inputs).last_hidden_state
        last = inputs["attention_mask"].sum(dim=1) - 1
        assert torch.equal(features(model, inputs), hidden[torch.arange(4), last])


@pytest.mark.parametrize("observable", [features, probabilities])
def test_an_example_alone_gives_the_row_it_gives_in_a_batch(observable: Any) -> None:
    torch.manual_seed(0)
    for model in (bert(num_labels=3), gpt2(num_labels=3).eval()):
        inputs = text()
        with torch.no_grad():
            rows = observable(model, inputs)
            for row, length in enumerate((9, 4, 1, 6)):
                alone = {name: value[row : row + 1, :length] for name, value in inputs.items()}
                torch.testing.assert_close(observable(model, alone)[0], rows[row], rtol=1e-4, atol=1e-5)


def test_features_of_a_convolutional_head_are_means_over_the_image() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    inputs = {"input": images()["pixel_values"]}
    with torch.no_grad():
        found = features(model, inputs)
        expected = model(**inputs)
        torch.testing.assert_close(found @ model[2].weight.flatten(1).T + model[2].bias, expected)


def test_features_with_broken_weights_are_nan_and_not_an_error_about_shapes() -> None:
    torch.manual_seed(0)
    model = gpt2(num_labels=3).eval()
    nn.init.constant_(model.transformer.ln_f.weight, float("nan"))
    with torch.no_grad():
        found = features(model, text())
    assert found.shape == (4, 16) and torch.isnan(found).all()


def test_features_need_a_head() -> None:
    with pytest.raises(ValueError, match=r"Found no output head in Sequential: .* Pass an `observable` of your own\."):
        features(nn.Sequential(nn.ReLU(), nn.Tanh()), numbers())


def test_features_need_one_row_per_example() -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"The output head sees inputs of shape \(4, 9, 16\), not one row per example"):
        features(bert(BertForTokenClassification, num_labels=3), text())


def test_hooks_are_removed_when_the_model_raises() -> None:
    model = bert(num_labels=3)
    with pytest.raises(ValueError, match="input_ids or inputs_embeds"):
        features(model, {})
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["bert", "gpt2", "resnet", "lora bert", "linear"])
def test_probabilities_and_features_come_from_one_pass(name: str) -> None:
    build, make_inputs, _, width = CASES[name]
    torch.manual_seed(0)
    model, inputs, passes = build().eval(), make_inputs(), [0]
    model.register_forward_pre_hook(lambda *_: passes.append(passes.pop() + 1))
    with torch.no_grad():
        classes, inside = split_probabilities_and_features(probabilities_and_features(model, inputs))
        assert passes == [1]
        assert torch.equal(classes, probabilities(model, inputs))
        assert torch.equal(inside, features(model, inputs)) and inside.shape == (4, width)


def test_probabilities_and_features_refuse_what_either_refuses() -> None:
    with pytest.raises(ValueError, match="looks like a regression model"):
        probabilities_and_features(bert(num_labels=1), text())
    with pytest.raises(ValueError, match="Found no output head"):
        probabilities_and_features(nn.Sequential(nn.Tanh()), numbers())


# ---- probabilities -----------------------------------------------------------------------------------------------


def test_probabilities_are_the_softmax_of_the_logits() -> None:
    torch.manual_seed(0)
    model, inputs = bert(num_labels=3), text()
    with torch.no_grad():
        assert torch.equal(probabilities(model, inputs), model(**inputs).logits.softmax(dim=1))


@pytest.mark.parametrize("num_labels", [1, 3])
def test_probabilities_are_sigmoids_where_labels_are_independent(num_labels: int) -> None:
    torch.manual_seed(0)
    model, inputs = bert(num_labels=num_labels, problem_type="multi_label_classification"), text()
    with torch.no_grad():
        assert torch.equal(probabilities(model, inputs), model(**inputs).logits.sigmoid())
    assert is_multi_label(model) and default_observable(model) is probabilities


@pytest.mark.parametrize("changes", [{"num_labels": 1}, {"num_labels": 3, "problem_type": "regression"}])
def test_probabilities_of_a_regression_are_refused(changes: dict[str, Any]) -> None:
    model = bert(**changes)
    with pytest.raises(ValueError, match=r"at least two outputs.*looks like a regression model\. Use `features`"):
        probabilities(model, text())
    assert is_regression(model) and default_observable(model) is features


def test_probabilities_need_one_row_per_example() -> None:
    with pytest.raises(ValueError, match=r"need logits of shape \(batch, classes\), found \(4, 9, 3\)"):
        probabilities(bert(BertForTokenClassification, num_labels=3), text())


@pytest.mark.parametrize("observable", [features, probabilities])
def test_rows_are_float32_for_low_precision_and_stay_double(observable: Any) -> None:
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        model = nn.Linear(6, 3).to(dtype)
        with torch.no_grad():
            assert observable(model, {"input": numbers()["input"].to(dtype)}).dtype == expected


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x, None), lambda x: SimpleNamespace(logits=x)])
def test_outputs_may_be_a_tensor_a_tuple_or_an_object_with_logits(wrap: Any) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Any:
            return wrap(self.head(x))

    torch.manual_seed(0)
    model, x = Model(), numbers()["input"]
    with torch.no_grad():
        assert torch.equal(probabilities(model, {"x": x}), model.head(x).softmax(dim=1))
        assert torch.equal(features(model, {"x": x}), x)


def test_names_in_base_model() -> None:
    model = bert(num_labels=3)
    outside = {name for name, _ in model.named_modules()} - names_in_base_model(model)
    assert outside == {"", "dropout", "classifier"}
    assert names_in_base_model(nn.Linear(2, 2)) == names_in_base_model(BertModel(BertConfig(**BERT))) == set()
    wrapped = lora_bert()
    heads = {name for name, _ in wrapped.named_modules()} - names_in_base_model(wrapped)
    assert "base_model.model.classifier.modules_to_save.default" in heads
    assert not any("encoder" in name for name in heads)


def test_default_observable_of_a_plain_module_is_probabilities() -> None:
    assert default_observable(nn.Linear(2, 2)) is probabilities
    assert default_observable(bert(num_labels=2)) is probabilities


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        ({"hidden": torch.zeros(2, 3), "pooled": torch.zeros(2, 3)}, "a dict of 'hidden', 'pooled'"),
        ({"logits": [0.0, 1.0]}, "a dict of 'logits'"),
        (None, "a NoneType"),
        ((), "a tuple"),
    ],
)
def test_a_model_that_returns_no_logits_is_refused(returned: object, found: str) -> None:
    with pytest.raises(ValueError, match=f"Found no logits in what the model returned: {found}. Let it return them as"):
        probabilities(Returning(returned), {})


class Returning(nn.Module):
    """Returns the same, whatever it sees."""

    def __init__(self, returned: object) -> None:
        super().__init__()
        self.returned = returned

    def forward(self, **inputs: Tensor) -> object:
        return self.returned
