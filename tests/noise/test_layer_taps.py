"""Taps on layers: they show gradients of outputs, change nothing, and go."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from hf_noise_al.noise.gradient_sketch.layer_taps import LayerTaps, UnsupportedModuleError
from hf_noise_al.testing import generator


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).requires_grad_(False)


def held_by(layers: nn.Sequential) -> list[tuple[nn.Module, dict[str, str]]]:
    return [(layers[0], {"weight": "0.weight"}), (layers[2], {"weight": "2.weight"})]


def test_every_layer_is_shown_with_its_input_and_the_gradient_of_its_output() -> None:
    layers, rows = model(), torch.randn(5, 3, generator=generator(1))
    shown: dict[str, tuple[Tensor, Tensor]] = {}

    def see(module: nn.Module, names: dict[str, str], inputs: Tensor, gradient: Tensor) -> None:
        shown[names["weight"]] = inputs, gradient

    expected = layers(rows)
    with LayerTaps(held_by(layers), 5) as taps:
        outputs = layers(rows)
        assert torch.equal(outputs, expected) and outputs.requires_grad
        assert taps.called == {layers[0], layers[2]}
        taps.backward(outputs[:, 0], see)
    assert list(shown) == ["2.weight", "0.weight"], "the last layer comes first"
    assert torch.equal(shown["0.weight"][0], rows)
    hidden = torch.tanh(layers[0](rows))
    torch.testing.assert_close(shown["2.weight"][1], torch.tensor([[1.0, 0.0]]).expand(5, 2))
    torch.testing.assert_close(shown["0.weight"][1], (1 - hidden**2) * layers[2].weight[0])
    assert not any(layer._forward_hooks for layer in layers) and not layers(rows).requires_grad


def test_further_tensors_get_their_gradients_beside() -> None:
    layers, rows = model(), torch.randn(5, 3, generator=generator(1))
    weight = layers[2].weight.requires_grad_(True)
    with LayerTaps(held_by(layers)[:1], 5) as taps:
        found, none = taps.backward(layers(rows), lambda *_: None, [weight, torch.zeros(1, requires_grad=True)])
    assert none is None and weight.grad is None
    assert found is not None
    torch.testing.assert_close(found, torch.tanh(layers[0](rows)).sum(dim=0).expand(2, 4))


def test_rows_that_are_apart_pass_and_others_are_refused() -> None:
    layers, rows = model(), torch.randn(2, 3, generator=generator(1))
    codes = torch.eye(2, dtype=torch.bool)
    with LayerTaps(held_by(layers), 2) as taps:
        taps.check_that_rows_are_apart(itertools.repeat(layers(rows)), codes)
        assert taps.seen == taps.called
        mixed = layers(rows) + layers[2](layers[0](rows)).mean(dim=0)
        with pytest.raises(UnsupportedModuleError, match=r"tell examples apart at 2\.weight, 0\.weight"):
            taps.check_that_rows_are_apart(itertools.repeat(mixed), codes)
