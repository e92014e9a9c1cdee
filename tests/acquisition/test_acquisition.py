"""The contract for every acquisition, and what each family adds to it."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_noise_al.acquisition import (
    ACQUISITIONS,
    BADGE,
    BALD,
    Acquisition,
    Candidates,
    Choice,
    CoreSet,
    EntropySampling,
    LeastConfidence,
    MarginSampling,
    NoiseStability,
    Query,
    RandomSampling,
)
from hf_noise_al.acquisition.base import checked
from hf_noise_al.acquisition.uncertainty import bald
from hf_noise_al.observables.base import Observable, features
from hf_noise_al.refusals import Refusal
from hf_noise_al.selection.k_center import k_center_greedy
from hf_noise_al.testing import AcquisitionContract, calls, candidates_of, generator

SETTINGS = {"noise_stability": {"num_perturbations": 4}, "bald": {"num_samples": 3}}
RANDOM = {"random", "badge", "bald"}


def by_name(name: str) -> Acquisition:
    return ACQUISITIONS[name](**SETTINGS.get(name, {}))


class TestDeterministic(AcquisitionContract):
    @pytest.fixture(params=sorted(ACQUISITIONS.keys() - RANDOM))
    def acquisition(self, request: pytest.FixtureRequest) -> Acquisition:
        return by_name(request.param)


class TestRandom(AcquisitionContract):
    random_choice = True

    @pytest.fixture(params=["random", "badge"])
    def acquisition(self, request: pytest.FixtureRequest) -> Acquisition:
        return by_name(request.param)


class TestBALD(AcquisitionContract):
    random_choice = True

    @pytest.fixture
    def acquisition(self) -> Acquisition:
        return by_name("bald")

    @pytest.fixture
    def model(self) -> nn.Module:
        """The contract's model with dropout before its head."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = (nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Dropout(0.3), nn.Linear(8, 4))
            return nn.Sequential(*layers).double().eval()


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
    known = "noise_stability random entropy margin least_confidence core_set badge bald"
    assert set(ACQUISITIONS) >= set(known.split()), "recipes name them"
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


# ---- BADGE -------------------------------------------------------------------------------------------------------


def gradient_embeddings(head: nn.Linear, inside: Tensor) -> Tensor:
    """Return the gradient of the loss in the head's weights for every row alone, the likeliest class as the label."""
    rows = []
    for row in inside:
        logits = head(row)
        loss = nn.functional.cross_entropy(logits, logits.argmax())
        rows.append(torch.autograd.grad(loss, head.weight)[0].flatten())
    return torch.stack(rows)


def seeding(rows: Tensor, k: int, source: torch.Generator) -> list[int]:
    """k-means++ from its definition: the longest row, then draws with the squared distance to the nearest drawn one."""
    chosen = [int(rows.square().sum(dim=1).argmax())]
    while len(chosen) < k:
        squared = (rows[:, None] - rows[chosen]).square().sum(dim=2).amin(dim=1)
        cumulative = squared.cumsum(dim=0)
        draw = torch.rand((), generator=source, dtype=torch.float64) * cumulative[-1]
        chosen.append(int((cumulative <= draw).sum()))
    return chosen


@pytest.mark.parametrize("seed", range(4))
def test_badge_is_k_means_plus_plus_on_gradients_of_the_head(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)).double()
    rows = torch.randn(60, 6).double()
    candidates = candidates_of(model, rows)
    query = BADGE().select(candidates, 15, generator(seed))
    assert calls(candidates) == 1, "one pass"
    embeddings = gradient_embeddings(model[2], model[1](model[0](rows)).detach())
    assert query.indices.tolist() == seeding(embeddings, 15, generator(seed))
    torch.testing.assert_close(query.scores, torch.linalg.vector_norm(embeddings, dim=1))
    assert query.indices[0] == query.scores.argmax()


def test_badge_of_a_thousand_classes_and_features_holds_only_the_factors() -> None:
    """As embeddings these 40 rows would be 40 million numbers."""
    torch.manual_seed(0)
    model, sizes = nn.Linear(1000, 1000), []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            sizes.extend(leaf.numel() for leaf in tree_leaves(found) if isinstance(leaf, Tensor))
            return found

    candidates = candidates_of(model, torch.randn(40, 1000))
    with Watch():
        query = BADGE().select(candidates, 20, generator())
    assert query.indices.unique().numel() == 20
    assert max(sizes) == max(40 * (1 + 1000 + 1000), model.weight.numel())


@pytest.mark.parametrize(
    ("problem_type", "found", "instead"),
    [
        ("multi_label_classification", "independent labels", "'noise_stability', 'entropy' or 'bald'"),
        ("regression", "a regression", "'noise_stability' or 'core_set'"),
    ],
)
def test_badge_refuses_what_has_no_likeliest_class_before_any_pass(problem_type: str, found: str, instead: str) -> None:
    candidates = candidates_of(Given(problem_type), PROBABILITIES)
    message = f"needs a model that chooses one class of several; the outputs of this Given are {found}. Use {instead}."
    with pytest.raises(ValueError, match=message):
        BADGE().select(candidates, 1, generator())
    assert calls(candidates) == 0
    with pytest.raises(ValueError, match="looks like a regression model"):
        BADGE().select(candidates_of(nn.Linear(3, 1), PROBABILITIES), 1, generator())


# ---- BALD --------------------------------------------------------------------------------------------------------


class Dropped(Given):
    """`Given` with dropout before its head."""

    def __init__(self, problem_type: str | None = None) -> None:
        super().__init__(problem_type)
        self.dropout = nn.Dropout(0.4)

    def forward(self, input: Tensor) -> Tensor:
        return self.head(self.dropout(input))


class Recorded:
    """Another acquisition's eyes: keeps the rows that each pass gave."""

    def __init__(self, candidates: Candidates) -> None:
        self.candidates, self.rows = candidates, []

    def __call__(self, observable: Observable, description: str = "observe") -> Tensor:
        self.rows.append(self.candidates.observe(observable, description))
        return self.rows[-1]


def recorded(model: nn.Module, rows: Tensor) -> tuple[Candidates, list[Tensor]]:
    candidates = candidates_of(model, rows)
    record = Recorded(candidates)
    return dataclasses.replace(candidates, observe=record), record.rows


def test_bald_is_the_mutual_information_of_its_passes() -> None:
    candidates, passes = recorded(Dropped().eval(), torch.randn(20, 3, generator=generator()))
    query = BALD(num_samples=6).select(candidates, 4, generator())
    samples = torch.stack(passes).double()
    assert len(samples) == 6 and len(samples.unique(dim=0)) == 6, "each pass has masks of its own"
    mean = samples.mean(dim=0)
    expected = (torch.special.entr(mean).sum(1) - torch.special.entr(samples).sum(2).mean(0)).float()
    torch.testing.assert_close(query.scores, expected, atol=1e-6, rtol=1e-5)
    assert query.indices.tolist() == query.scores.argsort(descending=True)[:4].tolist()


def test_bald_of_independent_labels_is_the_sum_over_them() -> None:
    candidates, passes = recorded(
        Dropped("multi_label_classification").eval(), torch.randn(20, 3, generator=generator())
    )
    query = BALD(num_samples=5).select(candidates, 4, generator())
    samples = torch.stack(passes)
    expected = sum(bald(torch.stack([samples[..., label], 1 - samples[..., label]], dim=-1)) for label in range(3))
    torch.testing.assert_close(query.scores, expected)


def test_bald_draws_other_masks_in_the_next_round_and_leaves_the_mode() -> None:
    model = Dropped().eval()
    candidates, source = candidates_of(model, torch.randn(20, 3, generator=generator())), generator()
    first, second = (BALD(num_samples=2).select(candidates, 1, source).scores for _ in range(2))
    assert not torch.equal(first, second)
    assert not any(module.training for module in model.modules())


def test_bald_refuses_a_model_without_dropout_before_any_pass() -> None:
    candidates = candidates_of(Given(), PROBABILITIES)
    with pytest.raises(ValueError, match=r"This Given has no active dropout .* so every pass would be the same"):
        BALD().select(candidates, 1, generator())
    assert calls(candidates) == 0


def test_bald_of_a_regression_is_refused_before_any_pass() -> None:
    candidates = candidates_of(Dropped("regression"), PROBABILITIES)
    message = r"BALD compares class probabilities, and this Dropped is a regression model\. Use 'noise_stability' or"
    with pytest.raises(ValueError, match=message):
        BALD().select(candidates, 1, generator())
    assert calls(candidates) == 0


@pytest.mark.parametrize(("value", "message"), [(1, "at least 2, got 1"), (2.0, "a whole number, got 2.0")])
def test_bald_needs_two_passes(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"`num_samples` must be {message}"):
        BALD(num_samples=value)


# ---- what the loop checks of a choice ------------------------------------------------------------------------------


def positions(*indices: int) -> Tensor:
    return torch.tensor(indices)


@pytest.mark.parametrize(
    ("choice", "flaw"),
    [
        (None, "returned a NoneType, not a `Choice` of two tensors"),
        (positions(0, 1), "returned a Tensor, not a `Choice` of two tensors"),
        (Choice([0, 1], torch.zeros(4)), "returned a Choice, not a `Choice` of two tensors"),  # type: ignore[arg-type]
        (Choice(positions(0, 1).float(), torch.zeros(4)), "its indices are torch.float32 of shape (2,)"),
        (Choice(torch.ones(4, dtype=torch.bool), torch.zeros(4)), "its indices are torch.bool of shape (4,)"),
        (Choice(positions(0, 1)[None], torch.zeros(4)), "its indices are torch.int64 of shape (1, 2)"),
        (Choice(positions(1), torch.zeros(4)), "returned 1 positions"),
        (Choice(positions(1, 2, 3), torch.zeros(4)), "returned 3 positions"),
        (Choice(positions(1, 4), torch.zeros(4)), "returned position 4, outside 0 to 3"),
        (Choice(positions(-1, 2), torch.zeros(4)), "returned position -1, outside 0 to 3"),
        (Choice(positions(3, 3), torch.zeros(4)), "returned position 3 more than once"),
        (Choice(positions(0, 1), torch.zeros(3)), "its scores have the shape (3,), not one for each candidate"),
        (Choice(positions(0, 1), torch.tensor([0, 1, torch.nan, 2])), "the score of position 2 is NaN"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_by_the_name_of_its_acquisition(choice: Any, flaw: str) -> None:
    with pytest.raises(Refusal) as refused:
        checked(choice, RandomSampling(), 2, 4)
    assert str(refused.value).startswith(f"RandomSampling was asked for 2 of 4 candidates, and {flaw}")
    assert "Correct its `select`" in str(refused.value)


@pytest.mark.parametrize("kind", [Choice, Query])
def test_a_choice_that_can_be_is_taken_as_it_is(kind: Any) -> None:
    indices, scores = positions(3, 0), torch.tensor([1.0, -torch.inf, 2.0, torch.inf])
    taken = checked(kind(indices, scores), RandomSampling(), 2, 4)
    assert isinstance(taken, Choice) and taken.indices is indices and taken.scores is scores
