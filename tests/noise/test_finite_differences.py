"""Finite differences: the deviations of the paper, in float32, and what the theory says of them."""

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tiny_perceptron import finite_differences, inputs, outputs, perceptron
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from hf_noise_al.acquisition import Candidates
from hf_noise_al.noise.parameter_filter import perturbed_tensors
from hf_noise_al.noise.perturbation import perturbed
from hf_noise_al.observables.base import features, probabilities
from hf_noise_al.selection.checks import row_norms
from hf_noise_al.testing import calls, candidates_of, generator


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
