"""The one interface of every acquisition: candidates in, choice out.

A row is known by three numbers::

    row of the data set        what users, files, `Query` and the pool speak of; never renumbered
      |  the trainer: rows[position]
    position of a candidate    0 to `Candidates.size` - 1: what is observed, selected and returned as a `Choice`
      |  the observer: which batch, and `Shard.indices` where there are several processes
    place in a batch or shard  where this process has the candidate; stays inside `observing` and `selection`
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..observables.base import Observable, Observe
from ..processes.row_shards import Shard
from ..refusals import Refusal

__all__ = ["Acquisition", "Candidates", "Choice", "Observe", "Query"]


@dataclass(frozen=True)
class Candidates:
    """All that an acquisition may know about the examples it chooses from: never their labels."""

    model: nn.Module
    """The model, to perturb or to switch; forward passes go through `observe`."""
    size: int
    """How many candidates there are."""
    observe: Observe
    """``observe(observable) -> (size, D)``."""
    observable: Observable
    """What to look at for this task: probabilities, features, or the task's own."""
    labeled: Candidates | None = None
    """The labeled examples, seen the same way; None while there are none."""
    shard: Shard | None = None
    """Which candidates this process passes through the model itself; None where there is one process."""
    observe_shard: Observe | None = None
    """As `observe`, for the candidates of `shard` alone: their rows stay on this process, (n, D)."""


class Choice(NamedTuple):
    """What an acquisition chose among its candidates."""

    indices: Tensor
    """(query_size,) distinct positions of candidates, best first."""
    scores: Tensor
    """(size,) one per candidate, higher = more informative; for logs, the choice need not follow it."""


class Query(NamedTuple):
    """What to label next: the answer of ``ActiveTrainer.query``."""

    indices: Tensor
    """(query_size,) distinct rows of the data set, best first."""
    scores: Tensor
    """(query_size,) the score of each of these rows."""


class Acquisition(ABC):
    """Choose a set of candidates to label. Subclasses are frozen dataclasses: their fields are their settings."""

    def check(self, model: nn.Module, observable: Observable) -> None:  # noqa: B027 (most can query any model)
        """Raise ValueError where this cannot query `model`; a trainer asks before anything is trained."""

    def looks_at(self, observable: Observable) -> Observable | None:
        """Return what `select` observes where the task's choice is `observable`; None where it looks at no model.

        A trainer tries it on two rows before the first round is trained.
        """
        return None

    def rehearsal(self) -> Acquisition | None:
        """Return what chooses as this does with as few passes as show that it can; None where `looks_at` shows it.

        A trainer lets it choose one of two rows before the first round is trained.
        """
        return None

    @abstractmethod
    def select(self, candidates: Candidates, query_size: int, generator: torch.Generator) -> Choice | Query:
        """Return `query_size` distinct candidates, best first, and a score for each candidate.

        A `Query` with positions of candidates, as acquisitions returned before there was a `Choice`, will do: both have
        `indices` and `scores`.

        Draw every random number from `generator` and leave the model's parameters as they were.

        Raises:
            ValueError: `query_size` is not between 1 and ``candidates.size``, or an observation is not finite.
        """


def checked(choice: object, acquisition: Acquisition, query_size: int, size: int) -> Choice:
    """Return what `acquisition` chose of `size` candidates, for rows to be labeled by it.

    Raises:
        ValueError: these are not `query_size` distinct positions of candidates, with a number for each candidate.
    """
    found = _flaw(choice, query_size, size)
    if found is not None:
        raise Refusal(
            f"{type(acquisition).__name__} was asked for {query_size} of {size} candidates, and {found}. Correct its "
            "`select`; `hf_noise_al.testing.AcquisitionContract` has a test for this."
        )
    assert isinstance(choice, tuple)
    return Choice(*choice)


def _flaw(choice: object, query_size: int, size: int) -> str | None:
    """Return what is wrong with a choice; None where nothing is."""
    if not isinstance(choice, tuple) or len(choice) != 2 or not all(isinstance(part, Tensor) for part in choice):
        return f"returned a {type(choice).__name__}, not a `Choice` of two tensors"
    indices, scores = choice
    if indices.is_floating_point() or indices.dtype == torch.bool or indices.ndim != 1:
        return f"its indices are {indices.dtype} of shape {tuple(indices.shape)}, not whole numbers of one dimension"
    if len(indices) != query_size:
        return f"returned {len(indices)} positions"
    outside = indices[(indices < 0) | (indices >= size)]
    if len(outside):
        return f"returned position {int(outside[0])}, outside 0 to {size - 1}"
    twice = [int(position) for position, count in zip(*indices.unique(return_counts=True), strict=True) if count > 1]
    if twice:
        return f"returned position {twice[0]} more than once"
    if scores.shape != (size,):
        return f"its scores have the shape {tuple(scores.shape)}, not one for each candidate"
    bad = scores.isnan().nonzero()
    return f"the score of position {int(bad[0])} is NaN" if len(bad) else None
