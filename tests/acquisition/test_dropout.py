"""Dropout at query time: on where it should be, off elsewhere, and with masks that depend on nothing but the batch."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    ResNetConfig,
    ResNetForImageClassification,
)

from hf_noise_al.acquisition.dropout import check_dropout, with_dropout
from hf_noise_al.observables.base import probabilities

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


def bert(**changes: Any) -> nn.Module:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES, max_position_embeddings=16, **changes)).eval()


def tokens(rows: int = 4, seed: int = 0) -> dict[str, Tensor]:
    ids = torch.randint(5, 40, (rows, 9), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def flags(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@torch.no_grad()
def observe(model: nn.Module, inputs: Mapping[str, Tensor], seed: str = "0") -> Tensor:
    return with_dropout(probabilities, seed)(model, inputs)


class Spy(nn.Module):
    """Remember which modules are in training mode while it runs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.on: list[str] = []

    def forward(self, **inputs: Tensor) -> Any:
        self.on = [name for name, module in self.model.named_modules() if module.training]
        return self.model(**inputs)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_dropout_layers_and_attention_are_on_and_nothing_else(attention: str) -> None:
    model = bert(num_labels=3, attn_implementation=attention)
    spy = Spy(model).eval()
    observe(spy, tokens())
    layers = {name for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    rest = set(spy.on) - layers
    assert layers <= set(spy.on) and len(layers) == 8
    assert rest == {f"bert.encoder.layer.{n}.attention.self" for n in range(2)}
    assert not any(flags(spy))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_dropout_of_attention_weights_alone_moves_the_outputs(attention: str) -> None:
    """Attention hands its rate to a function, and looks at its own flag."""
    model = bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5, attn_implementation=attention)
    check_dropout(model)
    assert not torch.equal(observe(model, tokens(), "0"), observe(model, tokens(), "1"))


def test_rates_that_are_plain_numbers_are_found() -> None:
    """BART's layers have no dropout modules: they call the function."""
    config = BartConfig(
        vocab_size=40,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=16,
        dropout=0.3,
        encoder_layerdrop=0.5,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    model = BartForSequenceClassification(config).eval()
    inputs = tokens()
    inputs["input_ids"][:, -1] = 2
    spy = Spy(model).eval()
    assert not torch.equal(observe(spy, inputs, "0"), observe(spy, inputs, "1"))
    assert "model.encoder.layers.0" in spy.on and "model.decoder.layers.0" in spy.on
    assert "model.encoder" not in spy.on, "it would skip layers at random"


def test_torch_transformer_layers_do_not_take_their_shortcut_around_dropout() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.3, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 3)).eval()
    inputs = {"input": torch.randn(4, 3, 8)}
    assert not torch.equal(observe(model, inputs, "0"), observe(model, inputs, "1"))


def test_batch_norm_stays_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    observe(model, {"input": torch.randn(4, 6)})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("training", [False, True])
def test_modes_are_put_back_also_when_the_model_raises(training: bool) -> None:
    model = bert().train(training)
    before = flags(model)
    observe(model, tokens())
    assert flags(model) == before
    with pytest.raises(ValueError, match="input_ids or inputs_embeds"):
        observe(model, {})
    assert flags(model) == before


def test_masks_depend_on_seed_and_batch_and_on_nothing_drawn_before() -> None:
    model = bert(num_labels=3)
    first = observe(model, tokens())
    torch.rand(7)
    assert torch.equal(observe(model, tokens()), first)
    assert not torch.equal(observe(model, tokens(), "1"), first)
    changed = tokens()
    changed["attention_mask"][3, -1] = 0  # a token of the last row is seen no more: others get other masks as well
    assert not torch.equal(observe(model, changed)[0], first[0])
    swapped = {name: tokens()[name] for name in ("attention_mask", "input_ids")}
    assert torch.equal(observe(model, swapped), first), "the order of the names does not matter"


def test_shape_and_kind_of_inputs_do_not_matter_to_the_masks() -> None:
    class Any3(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.head = nn.Dropout(0.5), nn.Linear(4, 3)

        def forward(self, x: Tensor, **kinds: object) -> Tensor:
            return self.head(self.drop(x.float()))

    model = Any3().eval()
    for dtype in (torch.bfloat16, torch.float64, torch.bool, torch.uint8):
        inputs = {"x": torch.ones(5, 4, dtype=dtype), "scale": torch.tensor(2.0), "names": "no tensor"}
        rows = observe(model, inputs)  # type: ignore[arg-type]
        assert torch.equal(rows, observe(model, inputs)) and len(rows.unique(dim=0)) > 1  # type: ignore[arg-type]


def test_the_global_random_state_is_left_alone_also_when_the_model_raises() -> None:
    model, state = bert(), torch.get_rng_state()
    observe(model, tokens())
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError):
        observe(model, {})
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_whose_rates_are_zero_is_refused() -> None:
    message = r"This BertForSequenceClassification has no active dropout \(8 dropout layers, none with a rate above 0\)"
    with pytest.raises(ValueError, match=message + r".* `hidden_dropout_prob: 0\.1`, and train with it, or use"):
        check_dropout(bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    with pytest.raises(ValueError, match=r"ResNetForImageClassification has no active dropout \(0 dropout layers"):
        check_dropout(ResNetForImageClassification(config))
    with pytest.raises(ValueError, match="no active dropout"):
        check_dropout(nn.LSTM(4, 4, 2, dropout=0.5))
    check_dropout(bert(hidden_dropout_prob=0.0))


def test_a_device_whose_generator_cannot_be_put_back_is_refused() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2)).to("meta").eval()
    with pytest.raises(ValueError, match=r"torch gives none on 'meta'\. Run the query on a CPU \(`use_cpu=True`\)"):
        observe(model, {"input": torch.zeros(2, 3)})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_masks_on_a_gpu_are_repeated_and_its_random_state_is_left_alone() -> None:
    model = bert(num_labels=3).cuda()
    inputs = {name: value.cuda() for name, value in tokens().items()}
    state = torch.cuda.get_rng_state()
    first = observe(model, inputs)
    assert torch.equal(observe(model, inputs), first) and not torch.equal(observe(model, inputs, "1"), first)
    assert torch.equal(torch.cuda.get_rng_state(), state)
