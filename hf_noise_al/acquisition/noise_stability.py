"""Noise stability: perturb the weights a little, see whose outputs move, choose movements large and different."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..noise.estimator import Estimator, first_that_can
from ..noise.finite_differences import FiniteDifferences
from ..noise.gradient_sketch.estimator import SketchedGradients
from ..noise.gradient_sketch.followed import refuse_unsupported_tensors
from ..noise.parameter_filter import log_choice, perturbed_tensors
from ..noise.perturbation import check_noise_scale
from ..observables.base import Observable, check_observable
from ..processes.row_shards import Shard
from ..processes.sharded_weights import is_sharded
from ..refusals import Refusal
from ..selection.checks import check_choice, check_finite, check_size, check_whole_number, row_norms
from ..selection.choosing import SelectionName, select_rows
from ..selection.k_center import k_center_greedy
from .base import Acquisition, Candidates, Choice, Observe

logger = logging.getLogger(__name__)

EstimatorName = Literal["auto", "gradient_sketch", "finite_difference"]
MOST_NUMBERS = 1_000_000
"""Most perturbations and projections: a million passes never end, a row of a million numbers takes 4 MB."""


@dataclass(frozen=True)
class NoiseStability(Acquisition):
    """Deep Active Learning with Noise Stability (AAAI 2024, arXiv 2205.13340).

    How outputs move is estimated in one of two ways. Finite differences are the published form:
    ``num_perturbations + 1`` forward passes of the candidates. The gradient sketch projects the Jacobian instead, which
    is the same to first order in the noise: a forward pass and a backward pass per output direction.
    """

    noise_scale: float = field(
        default=1e-3, metadata={"help": "Length of the noise on each tensor relative to the tensor's."}
    )
    num_perturbations: int = field(
        default=30, metadata={"help": "How many perturbations each candidate is seen under by finite differences."}
    )
    parameter_filter: str = field(
        default="weight",
        metadata={
            "help": "Which parameters are perturbed: `weight` (no biases), `all`, `trainable`, `head`, or a regular "
            "expression that is searched for in their names."
        },
    )
    observable: Observable | None = field(
        default=None, metadata={"help": "What to look at, a function; None takes the task's."}
    )
    selection: SelectionName = field(
        default="k_center",
        metadata={"help": "How the batch is chosen; `top_k` is magnitude without direction."},
    )
    normalize_rows: bool = field(
        default=False,
        metadata={"help": "Scale every candidate's deviations to length one: direction without magnitude."},
    )
    labeled_as_centers: bool = field(
        default=False,
        metadata={"help": "Also keep away from what is labeled already, at the price of observing it."},
    )
    estimator: EstimatorName = field(
        default="auto",
        metadata={
            "help": "How deviations are measured: `gradient_sketch`, `finite_difference`, or `auto`: the sketch where "
            "the model allows it and it is cheaper."
        },
    )
    num_projections: int = field(
        default=512,
        metadata={"help": "Random projections of the gradient sketch: the width of a candidate's row."},
    )
    num_output_projections: int = field(
        default=8,
        metadata={"help": "Most backward passes of the gradient sketch; wider outputs are combined with random signs."},
    )
    one_by_one: bool = field(
        default=False,
        metadata={
            "help": "Let the gradient sketch pass examples through the model one at a time: little slower on a CPU, "
            "and it can follow layers that share work between the examples of a batch (DeBERTa, T5), and weights of "
            "any kind and use. On a CPU `auto` does so by itself where every module has a rule, but whole batches "
            "cannot be followed."
        },
    )
    max_feature_dim: int = field(
        default=1024, metadata={"help": "Widest rows of finite differences; wider ones are projected."}
    )
    autocast: Literal["bfloat16"] | None = field(
        default=None,
        metadata={
            "help": "Lower precision of the gradient sketch's forward and backward passes, also of weights that are "
            "sharded in it or gathered in it; None is float32."
        },
    )

    def __post_init__(self) -> None:
        check_noise_scale(self.noise_scale)
        for name in ("num_perturbations", "num_projections", "num_output_projections", "max_feature_dim"):
            check_whole_number(name, getattr(self, name), most=MOST_NUMBERS)
        for name in ("normalize_rows", "labeled_as_centers", "one_by_one"):
            if not isinstance(getattr(self, name), bool):
                raise Refusal(f"`{name}` must be true or false, got {getattr(self, name)!r}.")
        if not isinstance(self.parameter_filter, str):
            raise Refusal(f"`parameter_filter` must be a text, got {self.parameter_filter!r}. The default is 'weight'.")
        if self.observable is not None:
            check_observable(self.observable)
        check_choice("selection", self.selection, get_args(SelectionName))
        check_choice("estimator", self.estimator, get_args(EstimatorName))
        if self.labeled_as_centers and self.selection not in ("k_center", "k_means_plus_plus"):
            raise Refusal(
                f"`labeled_as_centers` has no meaning with selection {self.selection!r}: it takes no centers. "
                "Use 'k_center' or 'k_means_plus_plus'."
            )
        if self.one_by_one and self.estimator == "finite_difference":
            raise Refusal(
                "`one_by_one` has no meaning with estimator='finite_difference', which passes whole batches. Leave it "
                "out, or use estimator='gradient_sketch'."
            )
        if self.autocast is not None:
            check_choice("autocast", self.autocast, ("bfloat16",))
            if self.estimator != "gradient_sketch":
                raise Refusal(
                    "`autocast` works with estimator='gradient_sketch' alone: finite differences are smaller than the "
                    f"rounding of {self.autocast} products and would be noise. Name that estimator, or leave "
                    "`autocast` out."
                )

    @property
    def lower_precision(self) -> torch.dtype | None:
        """What `autocast` stands for."""
        return torch.bfloat16 if self.autocast else None

    def check(self, model: nn.Module, observable: Observable) -> None:
        """Raise ValueError where nothing can be perturbed, or where the sketch is asked for and has no rule."""
        perturbed_tensors(model, self.parameter_filter)
        if self.estimator == "gradient_sketch" and not self.one_by_one:
            refuse_unsupported_tensors(model, self.parameter_filter)

    def looks_at(self, observable: Observable) -> Observable:
        """Return the observable of the settings, else the task's."""
        return self.observable or observable

    def rehearsal(self) -> NoiseStability:
        """Return the same with one perturbation, or one backward pass, and narrow rows."""
        settings: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(NoiseStability)}
        for name in ("num_perturbations", "num_output_projections", "num_projections", "max_feature_dim"):
            settings[name] = 1
        return NoiseStability(**settings)

    def check_memory(self, model: nn.Module, observable: Observable, num_rows: int) -> None:
        """Raise ValueError where the gradient sketch is the choice and `num_rows` of its rows cannot fit into memory.

        How wide the rows of finite differences are is known when the model's outputs are; they are checked then.
        """
        self._estimators(model, self.looks_at(observable))[0][0].check_memory(num_rows)

    def select(self, candidates: Candidates, query_size: int, generator: torch.Generator) -> Choice:
        """Return the candidates whose outputs move most and most differently; scores are lengths of deviations."""
        check_size(query_size, candidates.size)
        log_choice(candidates.model, self.parameter_filter)
        shard = candidates.shard if self.selection == "k_center" and not self.normalize_rows else None
        groups = [candidates.observe if shard is None or candidates.observe_shard is None else candidates.observe_shard]
        if self.labeled_as_centers and candidates.labeled is not None:
            groups.append(candidates.labeled.observe)
        rows, *others = self._rows(candidates, groups, generator, shard)
        check_finite(rows, shard)
        centers = others[0] if others else None
        scores = row_norms(rows)
        if shard is not None:
            scores = shard.gather_rows(scores)
        if not bool((scores > 0).any()):
            logger.warning(
                "No candidate's outputs moved, so the choice means nothing. Is the `noise_scale` "
                f"{self.noise_scale} too small, or do the perturbed weights have no part in the outputs?"
            )
        if shard is not None:
            return Choice(k_center_greedy(rows, query_size, centers, shard=shard), scores)
        if self.normalize_rows:
            rows, centers = _unit_rows(rows), None if centers is None else _unit_rows(centers)
            if self.selection == "k_center":  # all are equally far from the origin: start where the score is highest
                first = int(scores.argmax())
                rows = torch.where(scores[:, None] > 0, rows, rows[first])  # what does not move has no new direction
                return Choice(k_center_greedy(rows, query_size, centers, first), scores)
        return Choice(select_rows(self.selection, rows, query_size, generator, centers), scores)

    def deviations(self, candidates: Candidates, generator: torch.Generator) -> Tensor:
        """Return the row of each candidate: (size, W).

        By finite differences, ``(o_k - o) / ||o||`` for every perturbation k, side by side, W being
        num_perturbations * D, or projected to `max_feature_dim`; by the gradient sketch W is `num_projections`.
        """
        (rows,) = self._rows(candidates, [candidates.observe], generator)
        check_finite(rows)
        return rows

    def _rows(
        self, candidates: Candidates, groups: list[Observe], generator: torch.Generator, shard: Shard | None = None
    ) -> list[Tensor]:
        num_rows = candidates.size if shard is None else len(shard.indices)
        if len(groups) > 1 and candidates.labeled is not None:
            num_rows += candidates.labeled.size
        estimators, why = self._estimators(candidates.model, self.looks_at(candidates.observable))
        if self.estimator == "auto":
            logger.info(f"estimator='auto' takes {estimators[0].name}: {why}.")
        return first_that_can(estimators, candidates.model, groups, generator, num_rows)

    def _estimators(self, model: nn.Module, observable: Observable) -> tuple[list[Estimator], str]:
        """Return the estimators to try, first choice first, and why "auto" chooses the first."""
        sketch = SketchedGradients(
            self.noise_scale,
            self.parameter_filter,
            observable,
            self.num_projections,
            self.num_output_projections,
            self.one_by_one,
            self.lower_precision,
        )
        published = FiniteDifferences(
            self.noise_scale, self.num_perturbations, self.parameter_filter, observable, self.max_feature_dim
        )
        if self.estimator != "auto":
            return [sketch if self.estimator == "gradient_sketch" else published], ""
        passes, rival = sketch.cost(model), published.cost(model)
        if why_not := sketch.why_not(model):
            return [published], why_not
        compared = f"below the {rival} forward passes of finite differences"
        if passes >= rival:
            return [published], f"the number of backward passes, {passes}, is not {compared}"
        possible = "examples pass one by one" if self.one_by_one else "every perturbed module is supported"
        # One by one keeps a CPU as busy as whole batches do, and not a GPU: there it has to be asked for.
        on_cpu = next(model.parameters()).device.type == "cpu" and not is_sharded(model)
        alone = [replace(sketch, one_by_one=True)] if on_cpu and not self.one_by_one else []
        return [sketch, *alone, published], f"{possible}, and the number of backward passes, {passes}, is {compared}"


def _unit_rows(rows: Tensor) -> Tensor:
    norms = row_norms(rows)[:, None]
    return rows / torch.where(norms > 0, norms, 1)
