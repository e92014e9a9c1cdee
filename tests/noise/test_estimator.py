"""Estimators: which one "auto" takes and why, and what each of them keeps."""

from dataclasses import replace

import pytest
import torch
from tiny_perceptron import finite_differences, inputs, log_of, perceptron
from torch import Tensor, nn

from hf_noise_al.acquisition import NoiseStability
from hf_noise_al.noise.gradient_sketch.layer_taps import UnsupportedModuleError
from hf_noise_al.noise.gradient_sketch.sketch import GradientSketch
from hf_noise_al.noise.parameter_filter import perturbed_tensors
from hf_noise_al.testing import calls, candidates_of, generator


def test_auto_takes_the_sketch_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    candidates = candidates_of(perceptron(), inputs())
    text = log_of(caplog, candidates)
    assert (
        "takes the gradient sketch: every perturbed module is supported, and the number of backward passes, 8, is "
        "below the 31 forward passes of finite differences" in text
    )
    assert calls(candidates) == 1
    rows = NoiseStability().deviations(candidates, generator())
    named = NoiseStability(estimator="gradient_sketch").deviations(candidates, generator())
    assert torch.equal(rows, named) and rows.shape == (8, 512)


def test_auto_takes_finite_differences_where_a_module_has_no_rule(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Conv1d(2, 3, 1), nn.Flatten(), nn.Linear(6, 3)).double()
    candidates = candidates_of(model, inputs())
    text = log_of(caplog, candidates, num_perturbations=4, num_output_projections=2)
    assert "takes finite differences: the gradient sketch has no rule for 1.weight (a weight of Conv1d)" in text
    assert calls(candidates) == 5


def test_auto_takes_finite_differences_where_they_are_cheaper(caplog: pytest.LogCaptureFixture) -> None:
    candidates = candidates_of(perceptron(), inputs())
    text = log_of(caplog, candidates, num_perturbations=4)
    assert "takes finite differences: the number of backward passes, 8, is not below the 5 forward passes" in text
    assert calls(candidates) == 5


class Functional(nn.Module):
    def __init__(self, mixes: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)
        self.mixes = mixes

    def forward(self, input: Tensor) -> Tensor:
        rows = self.first(input) + nn.functional.linear(input, self.second.weight)
        return rows + rows.mean(dim=0) if self.mixes else rows


def test_auto_takes_examples_one_by_one_where_whole_batches_cannot_be_followed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = candidates_of(Functional().double(), inputs())
    text = log_of(caplog, candidates)
    assert "cannot take the gradient sketch: The gradient sketch cannot follow second.weight" in text
    assert "Gradient sketch, one example at a time: features take" in text and "finite differences:" not in text
    asked = NoiseStability(estimator="gradient_sketch", one_by_one=True).deviations(candidates, generator())
    assert torch.equal(NoiseStability().deviations(candidates, generator()), asked)
    with pytest.raises(UnsupportedModuleError, match="cannot follow second.weight.*Use one_by_one=True or"):
        NoiseStability(estimator="gradient_sketch").select(candidates, 2, generator())
    monkeypatch.setattr("hf_noise_al.acquisition.noise_stability.is_sharded", lambda model: True)
    text = log_of(caplog, candidates)
    assert "takes finite differences: The gradient sketch cannot follow second.weight" in text


def test_auto_falls_back_where_examples_mix(caplog: pytest.LogCaptureFixture) -> None:
    candidates = candidates_of(Functional(mixes=True).double(), inputs())
    text = log_of(caplog, candidates)
    assert "cannot take the gradient sketch: The gradient sketch cannot tell examples apart" in text
    assert "takes finite differences: The gradient sketch takes examples one by one, and the outputs of this" in text
    published = finite_differences().select(candidates, 2, generator())
    assert torch.equal(NoiseStability().select(candidates, 2, generator()).scores, published.scores)


def test_each_estimator_says_what_it_will_keep(caplog: pytest.LogCaptureFixture) -> None:
    candidates = candidates_of(perceptron(), inputs())
    tensors = sum(tensor.nbytes for tensor in perturbed_tensors(candidates.model).values())
    text = log_of(caplog, candidates, estimator="finite_difference")
    assert "31 forward passes. Features take 0.0 MB on this process (8 x 90)" in text
    assert f"the copy of the perturbed tensors {tensors / 1e6:.1f} MB" in text
    assert text.count("Finite differences:") == 1
    assert "Finite differences: 4 forward passes" in log_of(
        caplog, candidates, estimator="finite_difference", num_perturbations=3
    )
    text = log_of(caplog, candidates, estimator="gradient_sketch", num_projections=300_000)
    assert "features take 9.6 MB on this process (8 x 300000)" in text
    wide = replace(candidates, labeled=candidates_of(candidates.model, inputs()))
    assert "(16 x 90)" in log_of(caplog, wide, estimator="finite_difference", labeled_as_centers=True)


def test_sketch_in_bfloat16_is_close_to_that_in_float32_whatever_training_did() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.LayerNorm(32), nn.Linear(32, 3))
    candidates = candidates_of(model, inputs().float())
    exact = NoiseStability(estimator="gradient_sketch").deviations(candidates, generator())
    by_hand = GradientSketch(model, 1e-3, generator())(model, {"input": inputs().float()})
    torch.testing.assert_close(exact, by_hand)
    with torch.autocast("cpu", torch.bfloat16):  # as an accelerate model trained in bfloat16 would be
        assert torch.equal(NoiseStability(estimator="gradient_sketch").deviations(candidates, generator()), exact)
    lower = NoiseStability(estimator="gradient_sketch", autocast="bfloat16").deviations(candidates, generator())
    assert not torch.equal(lower, exact)
    assert float(torch.corrcoef(torch.stack([lower.flatten(), exact.flatten()]))[0, 1]) > 0.99
