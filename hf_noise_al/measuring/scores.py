"""The metrics of a round, on how many rows each was measured, and its interval where it has one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import EvalPrediction
from transformers.trainer_utils import denumpify_detensorize


@dataclass
class Scores:
    """Numbers by their names, as in `Trainer`'s metrics, for example ``eval_accuracy``."""

    metrics: dict[str, float] = field(default_factory=dict)
    num_rows: dict[str, int] = field(default_factory=dict)
    intervals: dict[str, list[float]] = field(default_factory=dict)
    """Lower and upper end of the 95 % interval of a metric."""

    def add(
        self,
        prefix: str,
        values: Mapping[str, Any],
        num_rows: int,
        prediction: EvalPrediction,
        compute_metrics: Callable[..., Any] | None,
    ) -> None:
        """Add what one evaluation measured.

        Args:
            prefix: Of the full names; ``values`` may have it already.
            values: The metrics.
            num_rows: How many rows they were measured on.
            prediction: What they were computed from.
            compute_metrics: What computed them. Where it has a method ``intervals(prediction, values)``, it returns
                (lower end, upper end) by name, for all or some of them.
        """
        plain = {name.removeprefix(f"{prefix}_"): value for name, value in denumpify_detensorize(values).items()}
        numbers = {name: float(value) for name, value in plain.items() if isinstance(value, int | float)}
        ask = getattr(compute_metrics, "intervals", None)
        own = {name: value for name, value in numbers.items() if name != "loss"}
        found = ask(prediction, own) if callable(ask) and own else {}
        for name, value in numbers.items():
            self.metrics[f"{prefix}_{name}"] = value
            self.num_rows[f"{prefix}_{name}"] = num_rows
        for name, (low, high) in found.items():
            if math.isfinite(low) and math.isfinite(high):
                self.intervals[f"{prefix}_{name}"] = [float(low), float(high)]

    def only(self, metrics: Mapping[str, float]) -> Scores:
        """Return scores of `metrics` alone, with their rows and intervals."""
        return Scores(
            dict(metrics),
            {name: count for name, count in self.num_rows.items() if name in metrics},
            {name: ends for name, ends in self.intervals.items() if name in metrics},
        )

    def beside(self, other: Scores) -> Scores:
        """Return these scores and the `other` ones together."""
        return Scores(self.metrics | other.metrics, self.num_rows | other.num_rows, self.intervals | other.intervals)
