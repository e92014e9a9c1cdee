"""The perceptron for tables: saved and loaded bit for bit, its targets scaled, both estimators at home on it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from hf_noise_al import Candidates, NoiseStability, Observable, features, probabilities
from hf_noise_al.noise.gradient_sketch.layer_rules import why_unsupported
from hf_noise_al.tasks.tables.tabular_model import TabularMLPConfig, TabularMLPForPrediction, TabularMLPModel
from hf_noise_al.tasks.tables.target_scale import TargetScale
from hf_noise_al.testing import candidates_of, generator

HEADS: dict[str, dict[str, Any]] = {
    "regression": {"num_labels": 1},
    "single_label_classification": {"num_labels": 3},
    "multi_label_classification": {"num_labels": 3},
}
ROWS = torch.randn(12, 5, generator=generator(1))


def make(problem_type: str = "regression", **settings: Any) -> TabularMLPForPrediction:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fields = {"num_features": 5, "hidden_sizes": [16, 8], "problem_type": problem_type}
        return TabularMLPForPrediction(TabularMLPConfig(**{**fields, **HEADS[problem_type], **settings})).eval()


class ByName(TabularMLPForPrediction):
    """Takes its features as `hf_noise_al.testing` names them."""

    def forward(self, input: Tensor) -> Any:  # type: ignore[override]
        return super().forward(features=input)


@pytest.mark.parametrize("problem_type", HEADS)
def test_saved_and_loaded_it_gives_the_same_bits(problem_type: str, tmp_path: Path) -> None:
    model = make(problem_type)
    if problem_type == "regression":
        model.target_scale.set(torch.tensor([180000.0, 250000.0, 90000.5]))
    model.save_pretrained(tmp_path)
    loaded = TabularMLPForPrediction.from_pretrained(tmp_path)
    assert torch.equal(loaded(ROWS).logits, model(ROWS).logits)
    base = AutoModel.from_pretrained(tmp_path)
    assert type(base) is TabularMLPModel
    assert torch.equal(base(ROWS).last_hidden_state, features(model, {"features": ROWS}))
    assert AutoConfig.from_pretrained(tmp_path).hidden_sizes == [16, 8]


def test_widths_are_those_of_the_paper_by_default() -> None:
    model = TabularMLPForPrediction.from_config(AutoConfig.for_model("tabular_mlp", num_features=7, num_labels=1))
    shapes = [tuple(value.shape) for name, value in model.named_parameters() if name.endswith("weight")]
    assert shapes == [(128, 7), (64, 128), (32, 64), (1, 32)]
    assert model.config.problem_type == "regression"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_sizes": []}, r"`hidden_sizes` is \[\].*at least one hidden layer"),
        ({"hidden_sizes": [8, 0]}, r"`hidden_sizes` is \[8, 0\].*whole numbers from 1"),
        ({"num_features": 0}, "`num_features` is 0"),
        ({"hidden_act": "rleu"}, "Unknown `hidden_act` rleu"),
        ({"dropout": 1.0}, "`dropout` is 1.0. Set it to at least 0 and below 1"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TabularMLPConfig(**settings)


def test_loss_is_on_scaled_targets_and_outputs_are_in_the_units_of_the_data() -> None:
    model, labels = make(), torch.linspace(1e5, 3e5, 12)
    plain = model(ROWS).logits
    model.target_scale.set(labels)
    mean, scale = labels.mean(), labels.std(correction=0)
    found = model(ROWS, labels)
    torch.testing.assert_close(found.logits, plain * scale + mean)
    torch.testing.assert_close(found.loss, ((plain[:, 0] - (labels - mean) / scale) ** 2).mean())


@pytest.mark.parametrize("labels", [[7.0], [3.0, 3.0, 3.0], [0.1] * 7])
def test_one_label_and_equal_labels_are_not_divided_by_zero(labels: list[float]) -> None:
    scale = TargetScale(1)
    scale.set(torch.tensor(labels))
    assert scale.scale.tolist() == [1.0]
    torch.testing.assert_close(scale.mean, torch.tensor(labels[:1]))


def test_the_scale_stays_float32_in_a_model_of_half_precision(tmp_path: Path) -> None:
    model = make()
    model.target_scale.set(torch.tensor([180000.0, 250000.0]))
    model.save_pretrained(tmp_path)
    half = TabularMLPForPrediction.from_pretrained(tmp_path, dtype=torch.float16)
    assert half.head.weight.dtype == torch.float16
    assert half.target_scale.mean.item() == 215000.0
    torch.testing.assert_close(half(ROWS).logits, model(ROWS).logits, rtol=1e-2, atol=0)


def test_losses_of_classes_are_those_of_pytorch() -> None:
    one, several = make("single_label_classification"), make("multi_label_classification")
    classes, sets = torch.arange(12) % 3, (torch.rand(12, 3, generator=generator(2)) > 0.5).float()
    expected = torch.nn.functional.cross_entropy(one(ROWS).logits, classes)
    torch.testing.assert_close(one(ROWS, classes).loss, expected)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(several(ROWS).logits, sets)
    torch.testing.assert_close(several(ROWS, sets).loss, expected)


@pytest.mark.parametrize("problem_type", ["regression", "single_label_classification"])
@pytest.mark.parametrize("estimator", ["finite_difference", "gradient_sketch"])
def test_both_estimators_choose_distinct_rows_and_leave_the_weights_alone(problem_type: str, estimator: str) -> None:
    candidates, model = candidates_on(problem_type)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    query = NoiseStability(estimator=estimator, num_perturbations=4).select(candidates, 5, generator())
    assert query.indices.unique().numel() == 5
    assert torch.isfinite(query.scores).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("problem_type", ["regression", "single_label_classification"])
def test_sketch_and_finite_differences_agree_on_how_far_outputs_move(problem_type: str) -> None:
    candidates, model = candidates_on(problem_type)
    assert not [m for m in model.modules() if "weight" in m._parameters and why_unsupported(m, "weight")]
    differences = NoiseStability(estimator="finite_difference", num_perturbations=300)
    sketch = NoiseStability(estimator="gradient_sketch", num_projections=1024)
    scores = [method.select(candidates, 5, generator()).scores for method in (differences, sketch)]
    assert torch.corrcoef(torch.stack(scores))[0, 1] > 0.95


def candidates_on(problem_type: str) -> tuple[Candidates, TabularMLPForPrediction]:
    model = make(problem_type).double()
    named = ByName(model.config).double().eval()
    named.load_state_dict(model.state_dict())
    observable: Observable = features if problem_type == "regression" else probabilities
    return candidates_of(named, ROWS.double(), observable=observable), named
