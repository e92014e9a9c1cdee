"""Noise stability: the deviations are those of the paper, in float32, and mean what the theory says."""

import copy
import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from hf_noise_al.acquisition import Candidates, NoiseStability
from hf_noise_al.noise.gradient_sketch.layer_taps import UnsupportedModuleError
from hf_noise_al.noise.gradient_sketch.sketch import GradientSketch
from hf_noise_al.noise.parameter_filter import perturbed_tensors
from hf_noise_al.noise.perturbation import perturbed
from hf_noise_al.observables.base import features, probabilities
from hf_noise_al.selection.checks import row_norms
from hf_noise_al.selection.choosing import SelectionName, select_rows
from hf_noise_al.selection.k_center import k_center_greedy
from hf_noise_al.testing import calls, candidates_of, generator

finite_differences = partial(NoiseStability, estimator="finite_difference")


def outputs(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """The outputs themselves."""
    result: Tensor = model(**inputs)
    return result


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 3)).double()


def inputs(size: int = 8, width: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(size, width, generator=generator(seed), dtype=torch.float64)


# ---- theory ------------------------------------------------------------------------------------------------------


def scaled_jacobians(model: nn.Module, rows: Tensor, noise_scale: float) -> Tensor:
    """Jacobian of the outputs by every perturbed weight, times s_l = noise_scale * ||W_l|| / sqrt(n_l): (N, D * n)."""
    weights = perturbed_tensors(model)
    scales = [noise_scale * w.detach().norm() / math.sqrt(w.numel()) for w in weights.values()]
    jacobians = []
    for row in rows:
        result = model(row[None])[0]
        gradients = [torch.autograd.grad(value, list(weights.values()), retain_graph=True) for value in result]
        jacobians.append(
            torch.cat([s * g.flatten() for by_output in gradients for s, g in zip(scales, by_output, strict=True)])
        )
    return torch.stack(jacobians)


def test_squared_deviation_of_a_linear_model_is_the_scaled_jacobian_norm() -> None:
    torch.manual_seed(0)
    model, rows, noise_scale, count = nn.Linear(4, 3).double(), inputs(), 0.1, 300
    method = finite_differences(noise_scale=noise_scale, num_perturbations=count, observable=outputs)
    deviations = method.deviations(candidates_of(model, rows), generator())
    squared = deviations.view(8, count, 3).square().sum(dim=2)
    found, error = squared.mean(dim=1), squared.std(dim=1) / math.sqrt(count)
    expected = scaled_jacobians(model, rows, noise_scale).square().sum(dim=1) / model(rows).detach().norm(dim=1) ** 2
    by_hand = noise_scale**2 * model.weight.norm() ** 2 / 4 * rows.norm(dim=1) ** 2 / model(rows).norm(dim=1) ** 2
    torch.testing.assert_close(expected, by_hand.detach())
    assert ((found - expected).abs() < 4 * error).all()
    assert (error < 0.12 * expected).all()  # so that the line above means something


def test_inner_products_of_deviations_are_those_of_scaled_jacobians() -> None:
    model, rows, noise_scale, count = perceptron(), inputs(5), 1e-4, 150
    method = finite_differences(noise_scale=noise_scale, num_perturbations=count, observable=outputs)
    deviations = method.deviations(candidates_of(model, rows), generator()).view(5, count, 3)
    products = torch.einsum("ikd,jkd->ijk", deviations, deviations)
    found, error = products.mean(dim=2), products.std(dim=2) / math.sqrt(count)
    jacobians = scaled_jacobians(model, rows, noise_scale) / model(rows).detach().norm(dim=1)[:, None]
    assert ((found - jacobians @ jacobians.T).abs() < 4.5 * error).all()


@pytest.mark.parametrize("observable", [outputs, probabilities, features])
def test_deviations_shrink_linearly_with_the_noise(observable: Any) -> None:
    candidates = candidates_of(perceptron(), inputs())

    def deviations(noise_scale: float) -> Tensor:
        method = finite_differences(noise_scale=noise_scale, num_perturbations=5, observable=observable)
        return method.deviations(candidates, generator()) / noise_scale

    limit = deviations(1e-7)
    errors = [float((deviations(scale) - limit).norm() / limit.norm()) for scale in (1e-2, 1e-3, 1e-4)]
    assert errors[2] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.2)  # what is left shrinks linearly as well
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.2)


# ---- deviations --------------------------------------------------------------------------------------------------


def test_deviations_are_differences_to_the_clean_row_divided_by_its_length() -> None:
    model, rows = perceptron(), inputs()
    method = finite_differences(noise_scale=0.05, num_perturbations=3)
    found = method.deviations(candidates_of(model, rows), generator(4))
    source, expected = generator(4), []
    with torch.no_grad():
        clean = model(rows).softmax(dim=1)
        for _ in range(3):
            with perturbed(model, 0.05, source):
                expected.append((model(rows).softmax(dim=1) - clean) / clean.norm(dim=1, keepdim=True))
    assert torch.equal(found, torch.cat(expected, dim=1))


def test_scores_are_lengths_of_deviations_and_the_first_pick_is_the_longest() -> None:
    candidates = candidates_of(perceptron(), inputs())
    method = finite_differences(num_perturbations=4)
    query = method.select(candidates, 3, generator())
    torch.testing.assert_close(query.scores, method.deviations(candidates, generator()).norm(dim=1))
    assert query.indices[0] == query.scores.argmax()


def test_every_candidate_is_observed_once_clean_and_once_per_perturbation() -> None:
    described, promised = [], set()
    plain = candidates_of(perceptron(), inputs(), labeled=inputs(3, seed=5))

    def observe(observable: Any, description: str = "observe") -> Tensor:
        described.append(description)
        promised.add(observable.passes)
        return plain.observe(observable, description)

    candidates = Candidates(plain.model, plain.size, observe, plain.observable, plain.labeled)
    finite_differences(num_perturbations=3).select(candidates, 2, generator())
    assert described == ["clean pass", "perturbation 1/3", "perturbation 2/3", "perturbation 3/3"]
    assert promised == {4}, "for the estimate of time"
    assert plain.labeled is not None and calls(plain.labeled) == 0
    finite_differences(num_perturbations=3, labeled_as_centers=True).select(plain, 2, generator())
    assert calls(plain.labeled) == 4


def test_zero_rows_are_safe() -> None:
    def masked(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        return model(**inputs) * (inputs["input"][:, :1] > 0)

    rows = inputs()
    rows[:, 0] = torch.tensor([1.0, -1, 1, -1, 1, 1, -1, 1])
    for settings in ({}, {"normalize_rows": True}, {"selection": "k_dpp"}, {"selection": "k_means_plus_plus"}):
        method = finite_differences(num_perturbations=3, observable=masked, **settings)
        query = method.select(candidates_of(perceptron(), rows), 8, generator())
        assert torch.isfinite(query.scores).all()
        assert (query.scores == 0).tolist() == (rows[:, 0] < 0).tolist()
        assert sorted(query.indices[-3:].tolist()) == [1, 3, 6]


def test_tiny_and_huge_outputs_give_the_same_deviations() -> None:
    """A deviation is relative: its length does not depend on the unit of the output."""
    model, rows = perceptron().float(), inputs().float()
    found = []
    for unit in (1.0, 1e-30, 1e30):

        def scaled(model: nn.Module, inputs: Mapping[str, Tensor], unit: float = unit) -> Tensor:
            return model(**inputs) * unit

        method = finite_differences(num_perturbations=3, noise_scale=0.01, observable=scaled)
        found.append(method.deviations(candidates_of(model, rows), generator()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found[2], found[0], rtol=1e-3, atol=1e-6)


# ---- precision ---------------------------------------------------------------------------------------------------


def trained_bert(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = BertForSequenceClassification(BertConfig(**sizes, intermediate_size=32, max_position_embeddings=16)).to(
        dtype
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        ids = torch.randint(5, 40, (8, 6))
        model(input_ids=ids, labels=ids[:, 0] % 2).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def bert_candidates(model: nn.Module) -> Candidates:
    ids = torch.randint(5, 40, (10, 6), generator=generator(2))

    def observe(observable: Any, description: str = "observe") -> Tensor:
        with torch.no_grad():
            rows: Tensor = observable(model, {"input_ids": ids})
        return rows

    return Candidates(model, 10, observe, probabilities)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_deviations_of_a_low_precision_model_are_those_of_its_float32_copy(dtype: torch.dtype) -> None:
    model = trained_bert(dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    method = finite_differences(num_perturbations=3)
    found = method.deviations(bert_candidates(model), generator())
    expected = method.deviations(bert_candidates(copy.deepcopy(model).float()), generator())
    assert found.dtype == torch.float32 and found.norm() > 0
    assert torch.equal(found, expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(mixed_precision="bf16", cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_deviations_under_autocast_are_those_of_float32(accelerator: Accelerator) -> None:
    model = trained_bert(torch.float32)
    method = finite_differences(num_perturbations=3)
    expected = method.deviations(bert_candidates(model), generator())
    prepared = accelerator.prepare_model(model, evaluation_mode=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(method.deviations(bert_candidates(prepared), generator()), expected)


# ---- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selection", get_args(SelectionName))
@pytest.mark.parametrize("normalize_rows", [False, True])
def test_selections_choose_among_the_deviations(selection: SelectionName, normalize_rows: bool) -> None:
    candidates = candidates_of(perceptron(), inputs())
    method = finite_differences(num_perturbations=3, selection=selection, normalize_rows=normalize_rows)
    source = generator()
    rows = method.deviations(candidates, source)
    unit = rows / rows.norm(dim=1, keepdim=True)
    if normalize_rows and selection == "k_center":  # unit rows tie at the origin: it starts at the highest score
        expected = k_center_greedy(unit, 4, first=int(row_norms(rows).argmax()))
    else:
        expected = select_rows(selection, unit if normalize_rows else rows, 4, source)
    query = method.select(candidates, 4, generator())
    assert torch.equal(query.indices, expected)
    torch.testing.assert_close(query.scores, row_norms(rows))


def test_top_k_is_magnitude_without_direction() -> None:
    query = finite_differences(num_perturbations=3, selection="top_k").select(
        candidates_of(perceptron(), inputs()), 5, generator()
    )
    assert torch.equal(query.indices, query.scores.argsort(descending=True)[:5])


@pytest.mark.parametrize("normalize_rows", [False, True])
def test_labeled_examples_are_centers_where_asked(normalize_rows: bool) -> None:
    rows = inputs()
    first = int(
        finite_differences(num_perturbations=3).select(candidates_of(perceptron(), rows), 1, generator()).indices
    )
    method = finite_differences(num_perturbations=3, labeled_as_centers=True, normalize_rows=normalize_rows)
    covered = candidates_of(perceptron(), rows, labeled=rows[first : first + 1])
    query = method.select(covered, 8, generator())
    assert query.indices[-1] == first  # at distance zero from a center
    alone = method.select(candidates_of(perceptron(), rows), 8, generator())
    assert not torch.equal(alone.indices, query.indices)


def test_parameter_filter_is_used() -> None:
    candidates = candidates_of(perceptron(), inputs())
    found = finite_differences(num_perturbations=2, parameter_filter="^3").deviations(candidates, generator())
    assert not torch.equal(found, finite_differences(num_perturbations=2).deviations(candidates, generator()))
    with pytest.raises(ValueError, match="matches no parameter of Sequential"):
        finite_differences(parameter_filter="no_such").select(candidates, 2, generator())
    assert calls(candidates) == 2 * 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_scale": 0.0}, "`noise_scale` must be a positive finite number, got 0.0"),
        ({"noise_scale": math.nan}, "`noise_scale` must be a positive finite number, got nan"),
        ({"noise_scale": "big"}, "`noise_scale` must be a positive finite number, got 'big'"),
        ({"noise_scale": True}, "`noise_scale` must be a positive finite number, got True"),
        ({"num_perturbations": 0}, "`num_perturbations` must be at least 1, got 0"),
        ({"num_perturbations": 2.5}, r"`num_perturbations` must be a whole number, got 2\.5\. Set it to an int of"),
        ({"num_perturbations": "3"}, "`num_perturbations` must be a whole number, got '3'"),
        ({"num_perturbations": True}, "`num_perturbations` must be a whole number, got True"),
        ({"observable": "features"}, "`observable` must be a function of the model and its inputs, got 'features'"),
        (
            {"selection": "k_centre"},
            "Unknown selection 'k_centre'. Use one of k_center, k_means_plus_plus, k_dpp, top_k",
        ),
        ({"selection": "top_k", "labeled_as_centers": True}, "has no meaning with selection 'top_k'"),
        ({"selection": "k_dpp", "labeled_as_centers": True}, "has no meaning with selection 'k_dpp'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finite_differences(**settings)


def test_a_perturbed_output_that_is_not_finite_is_refused_with_its_row() -> None:
    model = perceptron()
    clean = model[0].weight.detach().clone()

    def breaks(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        rows: Tensor = model(**inputs)
        if not torch.equal(model[0].weight, clean):
            rows[5] = math.nan
        return rows

    with pytest.raises(ValueError, match="row 5 holds NaN or infinity"):
        finite_differences(num_perturbations=2, observable=breaks).select(
            candidates_of(model, inputs()), 2, generator()
        )
    assert torch.equal(model[0].weight, clean)


# ---- the two estimators --------------------------------------------------------------------------------------------


def log_of(caplog: pytest.LogCaptureFixture, candidates: Candidates, **settings: Any) -> str:
    with caplog.at_level(logging.INFO, logger="hf_noise_al"):
        NoiseStability(**settings).select(candidates, 2, generator())
    return caplog.text


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


@pytest.mark.parametrize("settings", [{"noise_scale": 1e-300}, {"noise_scale": 1e-300, "estimator": "gradient_sketch"}])
def test_says_so_where_nothing_moves(settings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    candidates = candidates_of(perceptron().float(), inputs().float())
    assert "No candidate's outputs moved, so the choice means nothing. Is the `noise_scale` 1e-300" in log_of(
        caplog, candidates, **settings
    )
    caplog.clear()
    assert "outputs moved" not in log_of(caplog, candidates)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labeled_as_centers": "no"}, "`labeled_as_centers` must be true or false, got 'no'"),
        ({"normalize_rows": 1}, "`normalize_rows` must be true or false, got 1"),
        ({"one_by_one": "off"}, "`one_by_one` must be true or false"),
        ({"parameter_filter": None}, "`parameter_filter` must be a text, got None"),
    ],
)
def test_settings_of_another_type_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoiseStability(**settings)


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


@pytest.mark.parametrize("count", [1, 4])
def test_rows_that_are_just_as_wide_as_they_may_be_are_not_projected(count: int) -> None:
    candidates = candidates_of(perceptron(), inputs())
    whole, narrow = (
        finite_differences(num_perturbations=count, max_feature_dim=width).deviations(candidates, generator())
        for width in (1000, 3 * count)
    )
    assert torch.equal(narrow, whole) and whole.shape == (8, 3 * count)


def test_wide_rows_are_projected_as_they_arrive() -> None:
    candidates = candidates_of(perceptron(), inputs())
    whole = finite_differences(num_perturbations=30).deviations(candidates, generator())
    assert whole.shape == (8, 90)
    narrow = finite_differences(num_perturbations=30, max_feature_dim=64).deviations(candidates, generator())
    assert narrow.shape == (8, 64)

    def products(max_feature_dim: int) -> Tensor:
        method = finite_differences(num_perturbations=30, max_feature_dim=max_feature_dim)
        rows = torch.stack([method.deviations(candidates, generator(seed)) for seed in range(60)])
        return rows @ rows.transpose(1, 2)

    difference = products(16) - products(90)
    error = difference.std(dim=0) / 60**0.5
    assert (difference.mean(dim=0).abs() < 4.5 * error).all() and bool((error > 0).all())


def test_wide_outputs_are_projected_before_they_are_kept() -> None:
    """Outputs of 4,000 numbers: nothing that `observe` returns is wider than `max_feature_dim`, and a length."""

    def wide(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        return model(**inputs).repeat_interleave(1000, dim=1) * torch.linspace(0, 1, 3000, dtype=torch.float64)

    plain = candidates_of(perceptron(), inputs())
    widths = []

    def observe(observable: Any, description: str = "observe") -> Tensor:
        widths.append((rows := plain.observe(observable, description)).shape[1])
        return rows

    candidates = Candidates(plain.model, plain.size, observe, wide)
    narrow = finite_differences(num_perturbations=6, max_feature_dim=512).deviations(candidates, generator())
    assert widths == [513] * 7 and narrow.shape == (8, 512)
    whole = finite_differences(num_perturbations=6, max_feature_dim=18_000).deviations(candidates, generator())
    torch.testing.assert_close(row_norms(narrow), row_norms(whole), rtol=0.3, atol=0)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"estimator": "fast"}, "Unknown estimator 'fast'. Use one of auto, gradient_sketch, finite_difference"),
        ({"num_projections": 0}, "`num_projections` must be at least 1, got 0"),
        ({"num_output_projections": 1.5}, "`num_output_projections` must be a whole number, got 1.5"),
        ({"max_feature_dim": 0}, "`max_feature_dim` must be at least 1, got 0"),
        ({"autocast": "float16", "estimator": "gradient_sketch"}, "Unknown autocast 'float16'. Use one of bfloat16"),
        ({"autocast": "bfloat16"}, "`autocast` works with estimator='gradient_sketch' alone: finite differences"),
        ({"autocast": "bfloat16", "estimator": "finite_difference"}, "smaller than the rounding of bfloat16"),
    ],
)
def test_refuses_settings_of_estimators_that_cannot_be(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        NoiseStability(**settings)


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
