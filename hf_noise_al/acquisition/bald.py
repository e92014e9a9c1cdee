"""BALD: disagreement of the networks that dropout makes of one."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..observables.base import Observable, is_multi_label, is_regression, probabilities
from ..observables.parts import check_one_answer_each
from ..refusals import Refusal
from ..selection.checks import check_finite, check_size, check_whole_number
from ..selection.choosing import top_k
from .base import Acquisition, Candidates, Choice
from .dropout import check_dropout, with_dropout
from .uncertainty import bald


@dataclass(frozen=True)
class BALD(Acquisition):
    """Highest mutual information between prediction and weights, the weights drawn by dropout.

    Bayesian active learning by disagreement (Houlsby et al. 2011, arXiv 1112.5745) with dropout at query time as
    the posterior (Gal et al. 2017, arXiv 1703.02910). Where the task is multi-label, the sum over labels. A query
    costs `num_samples` forward passes and holds one row of sums per candidate, however many passes there are. Masks
    are drawn for whole batches: another batch size, also one that shrank for want of memory, gives another query.
    """

    num_samples: int = field(default=20, metadata={"help": "How many dropout passes each candidate gets."})

    def __post_init__(self) -> None:
        check_whole_number("num_samples", self.num_samples, least=2, most=1_000_000)

    def check(self, model: nn.Module, observable: Observable) -> None:
        """Raise ValueError unless `model` has dropout and chooses one class of several, or labels, for each example."""
        if is_regression(model):
            raise Refusal(
                f"BALD compares class probabilities, and this {type(model).__name__} is a regression model. "
                "Use 'noise_stability' or 'core_set'."
            )
        check_one_answer_each(observable, "BALD compares the class probabilities of an example")
        check_dropout(model)

    def looks_at(self, observable: Observable) -> Observable:
        """Return the class probabilities."""
        return probabilities

    def select(self, candidates: Candidates, query_size: int, generator: torch.Generator) -> Choice:
        """Return the `query_size` candidates on which dropout passes disagree most, each one being sure.

        The masks depend on one draw from `generator`, on the pass and on the batch, see `acquisition.dropout`.
        """
        check_size(query_size, candidates.size)
        self.check(candidates.model, candidates.observable)
        draw = int(torch.randint(2**63 - 1, (), generator=generator))
        scores = bald(self._sample(candidates, f"{draw}/{k}", k) for k in range(self.num_samples))
        if is_multi_label(candidates.model):
            scores = scores.sum(dim=1)
        return Choice(top_k(scores, query_size), scores)

    def _sample(self, candidates: Candidates, seed: str, number: int) -> Tensor:
        """Return probabilities of one dropout pass: (N, C), or (N, L, 2) of L independent labels."""
        observable = with_dropout(probabilities, seed)
        rows = candidates.observe(observable, f"dropout pass {number + 1}/{self.num_samples}")
        check_finite(rows)
        return torch.stack([rows, 1 - rows], dim=-1) if is_multi_label(candidates.model) else rows
