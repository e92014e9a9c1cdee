"""Examples with parts that are classified each by itself: the words of a sentence, the pixels of an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from ..refusals import Refusal
from .base import Observable, mean_where


@runtime_checkable
class ProbabilitiesOfParts(Protocol):
    """An observable of examples with parts."""

    def parts(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return class probabilities of the parts, (B, P, C), and which parts there are, (B, P) of bool."""
        ...


def mean_over_parts(observable: ProbabilitiesOfParts, score: Callable[[Tensor], Tensor]) -> Observable:
    """Return an observable: the mean over parts of ``score(probabilities)``, one number per example, (B, 1).

    Args:
        observable: Knows the parts.
        score: Class probabilities -> uncertainty: (..., C) -> (...,).
    """

    def observe(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        probabilities, parts = observable.parts(model, inputs)
        return mean_where(score(probabilities), parts)[:, None]

    return observe


def check_one_answer_each(observable: object, needs: str) -> None:
    """Raise ValueError where an example has an answer for every part; `needs` says what an acquisition does instead."""
    if isinstance(observable, ProbabilitiesOfParts):
        raise Refusal(
            f"{needs}, and this model answers for every part of it, such as a word or a pixel. Use 'noise_stability', "
            "'entropy', 'margin', 'least_confidence', 'core_set' or 'random'."
        )
