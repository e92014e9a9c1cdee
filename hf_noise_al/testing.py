"""Tests for acquisitions of your own, and the tiny candidates that they choose from. Importing it needs pytest.

A test file of ten lines checks all that every acquisition must do::

    import pytest

    from hf_noise_al.testing import AcquisitionContract
    from mine import Mine


    class TestMine(AcquisitionContract):
        @pytest.fixture
        def acquisition(self):
            return Mine()

An acquisition that draws more random numbers than the noise on the weights sets ``random_choice = True`` in that class.
`candidates_of` makes candidates of a model and rows, for tests that are yours alone.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from .acquisition import Acquisition, Candidates
from .observables.base import Observable, probabilities

SIZE, QUERY_SIZE = 12, 5
"""How many candidates there are, and how many of them are chosen."""


class Forward:
    """An `observe` without a trainer: all rows in one batch; counts its calls, and can break at one."""

    def __init__(self, model: nn.Module, rows: Tensor, break_at: int | None = None) -> None:
        self.model, self.rows, self.break_at, self.calls = model, rows, break_at, 0
        self.seen: set[str] = set()

    def __call__(self, observable: Observable, description: str = "observe") -> Tensor:
        self.calls += 1
        if self.calls == self.break_at:
            raise KeyboardInterrupt
        inputs: Mapping[str, Tensor] = {"input": self.rows}
        self.seen.update(inputs)
        with torch.no_grad():
            return observable(self.model, inputs)


def candidates_of(
    model: nn.Module,
    rows: Tensor,
    labeled: Tensor | None = None,
    observable: Observable = probabilities,
    break_at: int | None = None,
) -> Candidates:
    """Return candidates as an `ActiveTrainer` would hand them to an acquisition."""
    seen = None if labeled is None else candidates_of(model, labeled, None, observable)
    return Candidates(model, len(rows), Forward(model, rows, break_at), observable, seen)


def calls(candidates: Candidates) -> int:
    """Return how often `candidates` of `candidates_of` were observed."""
    assert isinstance(candidates.observe, Forward)
    return candidates.observe.calls


def rows_of(candidates: Candidates) -> Tensor:
    """Return the inputs of `candidates` of `candidates_of`."""
    assert isinstance(candidates.observe, Forward)
    return candidates.observe.rows


def generator(seed: int = 0) -> torch.Generator:
    """Return a generator on the CPU with this seed."""
    return torch.Generator().manual_seed(seed)


def _random_states() -> tuple[object, ...]:
    return random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist(), torch.get_rng_state().tolist()


class AcquisitionContract:
    """Tests that hold for every acquisition, on a small perceptron in double precision."""

    random_choice = False
    """The choice depends on the generator beyond the noise on the weights, so that it does not follow a permutation."""

    @pytest.fixture
    def acquisition(self) -> Acquisition:
        raise NotImplementedError("give the acquisition to test")

    @pytest.fixture
    def model(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 4)).double().eval()

    @pytest.fixture
    def rows(self) -> Tensor:
        return 2 * torch.randn(SIZE, 6, generator=generator(1), dtype=torch.float64)

    @pytest.fixture(params=[False, True], ids=["none labeled", "some labeled"])
    def candidates(self, request: pytest.FixtureRequest, model: nn.Module, rows: Tensor) -> Candidates:
        labeled = torch.randn(4, 6, generator=generator(2), dtype=torch.float64) if request.param else None
        return candidates_of(model, rows, labeled)

    def test_is_a_frozen_dataclass(self, acquisition: Acquisition) -> None:
        assert isinstance(acquisition, Acquisition)
        assert dataclasses.is_dataclass(acquisition)
        with pytest.raises(dataclasses.FrozenInstanceError):
            acquisition.anything = 1
        assert dataclasses.replace(acquisition) == acquisition

    @pytest.mark.parametrize("query_size", [1, QUERY_SIZE, SIZE])
    def test_chooses_distinct_candidates_and_scores_all(
        self, acquisition: Acquisition, candidates: Candidates, query_size: int
    ) -> None:
        query = acquisition.select(candidates, query_size, generator())
        assert query.indices.shape == (query_size,) and query.indices.dtype == torch.long
        assert query.indices.unique().numel() == query_size
        assert int(query.indices.min()) >= 0 and int(query.indices.max()) < SIZE
        assert query.scores.shape == (SIZE,) and query.scores.is_floating_point()
        assert torch.isfinite(query.scores).all()
        assert query.indices.device.type == query.scores.device.type == "cpu"

    def test_chooses_distinct_candidates_also_among_duplicates(
        self, acquisition: Acquisition, model: nn.Module
    ) -> None:
        rows = torch.zeros(SIZE, 6, dtype=torch.float64)
        query = acquisition.select(candidates_of(model, rows, rows[:2]), QUERY_SIZE, generator())
        assert query.indices.unique().numel() == QUERY_SIZE

    @pytest.mark.parametrize("query_size", [0, SIZE + 1])
    def test_refuses_sizes_that_cannot_be(
        self, acquisition: Acquisition, candidates: Candidates, query_size: int
    ) -> None:
        with pytest.raises(ValueError, match=f"Cannot query {query_size} of {SIZE} unlabeled examples"):
            acquisition.select(candidates, query_size, generator())
        assert calls(candidates) == 0, "sizes are checked before the model runs"

    def test_leaves_every_bit_of_the_weights(self, acquisition: Acquisition, candidates: Candidates) -> None:
        before = {name: value.clone() for name, value in candidates.model.state_dict().items()}
        acquisition.select(candidates, QUERY_SIZE, generator())
        for name, value in candidates.model.state_dict().items():
            assert torch.equal(value.view(torch.uint8), before[name].view(torch.uint8)), name

    @pytest.mark.parametrize("break_at", [1, 2])
    def test_leaves_every_bit_of_the_weights_when_interrupted(
        self, acquisition: Acquisition, model: nn.Module, rows: Tensor, break_at: int
    ) -> None:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        candidates = candidates_of(model, rows, break_at=break_at)
        try:
            acquisition.select(candidates, QUERY_SIZE, generator())
        except KeyboardInterrupt:
            assert calls(candidates) == break_at
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_equal_generators_give_equal_queries(self, acquisition: Acquisition, candidates: Candidates) -> None:
        first, second = (acquisition.select(candidates, QUERY_SIZE, generator(7)) for _ in range(2))
        assert torch.equal(first.indices, second.indices) and torch.equal(first.scores, second.scores)

    def test_leaves_the_global_random_states(self, acquisition: Acquisition, candidates: Candidates) -> None:
        before = _random_states()
        acquisition.select(candidates, QUERY_SIZE, generator())
        assert _random_states() == before

    def test_sees_no_labels(self, acquisition: Acquisition, candidates: Candidates) -> None:
        """There is no way to: candidates hold none, and the inputs that are observed have none."""
        names = {field.name for field in dataclasses.fields(Candidates)}
        assert names == {"model", "size", "observe", "observable", "labeled", "shard", "observe_shard"}
        acquisition.select(candidates, QUERY_SIZE, generator())
        for group in (candidates, candidates.labeled):
            assert group is None or (isinstance(group.observe, Forward) and group.observe.seen <= {"input"})

    def test_a_permutation_of_the_candidates_permutes_the_answer(
        self, acquisition: Acquisition, candidates: Candidates, rows: Tensor
    ) -> None:
        if self.random_choice:
            return
        order = torch.randperm(SIZE, generator=generator(3))
        labeled = None if candidates.labeled is None else rows_of(candidates.labeled)
        query = acquisition.select(candidates, QUERY_SIZE, generator())
        permuted = acquisition.select(candidates_of(candidates.model, rows[order], labeled), QUERY_SIZE, generator())
        assert len(query.scores.unique()) == len(query.scores), "equal scores: the order says nothing"
        assert torch.equal(order[permuted.indices], query.indices)
        torch.testing.assert_close(permuted.scores, query.scores[order])

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_refuses_outputs_that_are_not_finite_and_names_the_row(
        self, acquisition: Acquisition, model: nn.Sequential, rows: Tensor, bad: float
    ) -> None:
        rows[7, 2] = bad
        model[1] = nn.Identity()  # tanh would make an infinite input finite
        candidates = candidates_of(model, rows)
        try:
            acquisition.select(candidates, QUERY_SIZE, generator())
        except ValueError as error:
            assert "row 7 holds NaN or infinity" in str(error)
        else:
            assert calls(candidates) == 0, "looked at the outputs and did not see it"

    def test_works_without_gradients_and_in_the_mode_it_finds(
        self, acquisition: Acquisition, candidates: Candidates
    ) -> None:
        candidates.model.requires_grad_(False)
        acquisition.select(candidates, QUERY_SIZE, generator())
        assert not candidates.model.training
        assert not any(parameter.requires_grad for parameter in candidates.model.parameters())
