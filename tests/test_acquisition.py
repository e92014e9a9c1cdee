"""The contract for every acquisition, and what each family adds to it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.register_assert_rewrite("acquisition_contract")

from acquisition_contract import AcquisitionContract, calls, candidates_of, generator  # noqa: E402

from hf_noise_al.acquisition import (  # noqa: E402
    ACQUISITIONS,
    Acquisition,
    CoreSet,
    EntropySampling,
    LeastConfidence,
    MarginSampling,
    NoiseStability,
    RandomSampling,
)
from hf_noise_al.observables import features  # noqa: E402
from hf_noise_al.selection import k_center_greedy  # noqa: E402

SETTINGS = {"noise_stability": {"num_perturbations": 4}}


def by_name(name: str) -> Acquisition:
    return ACQUISITIONS[name](**SETTINGS.get(name, {}))


class TestDeterministic(AcquisitionContract):
    @pytest.fixture(params=sorted(ACQUISITIONS.keys() - {"random"}))
    def acquisition(self, request: pytest.FixtureRequest) -> Acquisition:
        return by_name(request.param)


class TestRandom(AcquisitionContract):
    random_choice = True

    @pytest.fixture
    def acquisition(self) -> Acquisition:
        return by_name("random")


class TestNoiseStabilityVariants(AcquisitionContract):
    @pytest.fixture(
        params=[
            {"selection": "top_k"},
            {"labeled_as_centers": True},
            {"normalize_rows": True},
            {"parameter_filter": "all", "observable": features},
            {"max_feature_dim": 6},
        ],
        ids=lambda settings: " ".join(settings),
    )
    def acquisition(self, request: pytest.FixtureRequest) -> Acquisition:
        return NoiseStability(estimator="finite_difference", num_perturbations=3, **request.param)


class TestNoiseStabilityByGradientSketch(AcquisitionContract):
    @pytest.fixture(
        params=[
            {"num_output_projections": 2},
            {"labeled_as_centers": True},
            {"normalize_rows": True},
            {"parameter_filter": "all", "observable": features},
        ],
        ids=lambda settings: " ".join(settings),
    )
    def acquisition(self, request: pytest.FixtureRequest) -> Acquisition:
        return NoiseStability(estimator="gradient_sketch", num_projections=64, **request.param)


class TestNoiseStabilityWithRandomSelection(AcquisitionContract):
    random_choice = True

    @pytest.fixture(
        params=[
            {"selection": "k_means_plus_plus"},
            {"selection": "k_dpp"},
        ],
        ids=lambda settings: " ".join(map(str, settings.values())),
    )
    def acquisition(self, request: pytest.FixtureRequest) -> Acquisition:
        return NoiseStability(num_perturbations=3, **request.param)


def test_every_acquisition_is_under_the_contract() -> None:
    assert set(ACQUISITIONS) == {"noise_stability", "random", "entropy", "margin", "least_confidence", "core_set"}
    for name, cls in ACQUISITIONS.items():
        assert isinstance(by_name(name), cls) and issubclass(cls, Acquisition)


class Given(nn.Module):
    """Return the input as logits: the test writes the outputs itself."""

    def __init__(self, problem_type: str | None = None) -> None:
        super().__init__()
        self.config = type("Config", (), {"problem_type": problem_type})()
        self.head = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.head.weight)

    def forward(self, input: Tensor) -> Tensor:
        return self.head(input)


PROBABILITIES = torch.tensor([[0.6, 0.4, 1e-6], [0.5, 0.25, 0.25], [0.9, 0.05, 0.05], [0.45, 0.45, 0.1]])


@pytest.mark.parametrize(
    ("acquisition", "expected"),
    [
        (EntropySampling(), [1, 3, 0, 2]),
        (MarginSampling(), [3, 0, 1, 2]),
        (LeastConfidence(), [3, 1, 0, 2]),
    ],
)
def test_uncertainty_sampling_by_hand(acquisition: Acquisition, expected: list[int]) -> None:
    query = acquisition.select(candidates_of(Given(), PROBABILITIES.log()), 4, generator())
    assert query.indices.tolist() == expected
    assert query.scores.argsort(descending=True).tolist() == expected


@pytest.mark.parametrize("cls", [EntropySampling, MarginSampling, LeastConfidence])
def test_uncertainty_of_independent_labels_is_their_mean(cls: type[Acquisition]) -> None:
    p = torch.tensor([[0.5, 0.5, 0.5], [0.99, 0.01, 0.99], [0.5, 0.99, 0.99], [0.3, 0.7, 0.5]])
    candidates = candidates_of(Given("multi_label_classification"), p.logit())
    query = cls().select(candidates, 4, generator())
    assert query.indices.tolist() == [0, 3, 2, 1]
    flipped = candidates_of(Given("multi_label_classification"), (1 - p).logit())
    torch.testing.assert_close(cls().select(flipped, 4, generator()).scores, query.scores)


@pytest.mark.parametrize("cls", [EntropySampling, MarginSampling, LeastConfidence])
def test_uncertainty_of_a_regression_is_refused(cls: type[Acquisition]) -> None:
    with pytest.raises(ValueError, match="looks like a regression model"):
        cls().select(candidates_of(nn.Linear(3, 1), PROBABILITIES), 1, generator())


def test_random_sampling_is_uniform_and_looks_at_nothing() -> None:
    candidates, source = candidates_of(nn.Linear(3, 3), torch.zeros(6, 3)), generator()
    counts = torch.zeros(6)
    for _ in range(600):
        counts[RandomSampling().select(candidates, 2, source).indices] += 1
    assert calls(candidates) == 0
    assert (counts - 200).abs().max() < 50


def test_random_sampling_needs_no_model_that_could_be_perturbed() -> None:
    query = RandomSampling().select(candidates_of(nn.ReLU(), torch.zeros(6, 3)), 6, generator())
    assert sorted(query.indices.tolist()) == list(range(6))
    assert query.scores[query.indices].diff().max() < 0  # best first


def test_core_set_without_labels_starts_with_the_longest_features() -> None:
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 4.9, 0.0], [0.0, 0.0, 3.0]])
    query = CoreSet().select(candidates_of(Given(), rows), 3, generator())
    assert query.indices.tolist() == [1, 3, 0]
    torch.testing.assert_close(query.scores, torch.tensor([1.0, 5.0, 4.9, 3.0]))


def test_core_set_keeps_away_from_what_is_labeled_and_not_from_the_origin() -> None:
    rows = torch.tensor([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0], [9.0, 0.0, 0.0], [8.0, 1.0, 0.0]])
    labeled = torch.tensor([[9.0, 0.0, 0.0], [10.0, 0.0, 0.0]])
    query = CoreSet().select(candidates_of(Given(), rows, labeled), 4, generator())
    assert query.indices.tolist() == [0, 3, 1, 2]
    torch.testing.assert_close(query.scores, torch.tensor([9.0, 0.0, 0.0, 2**0.5]), atol=1e-3, rtol=1e-3)


def test_core_set_is_k_center_on_features_with_labeled_centers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    rows, labeled = torch.randn(30, 6).double(), torch.randn(5, 6).double()
    query = CoreSet().select(candidates_of(model, rows, labeled), 10, generator())
    with torch.no_grad():
        inside, centers = model[1](model[0](rows)), model[1](model[0](labeled))
    expected = k_center_greedy(inside - centers[0], 10, centers - centers[0])
    assert torch.equal(query.indices, expected)
    torch.testing.assert_close(query.scores, torch.cdist(inside, centers).amin(dim=1))
    assert query.indices[0] == query.scores.argmax()


@pytest.mark.parametrize("observable", ["features", None])
def test_core_set_needs_a_function_to_observe_with(observable: Any) -> None:
    message = rf"`observable` must be a function of the model and its inputs, got {observable!r}\. Pass one"
    with pytest.raises(ValueError, match=message):
        CoreSet(observable=observable)


def test_core_set_names_a_labeled_row_that_is_not_finite() -> None:
    labeled = torch.tensor([[0.0, 0.0, 0.0], [float("nan"), 0.0, 0.0]])
    with pytest.raises(ValueError, match="row 1 holds NaN"):
        CoreSet().select(candidates_of(Given(), torch.ones(3, 3), labeled), 1, generator())
