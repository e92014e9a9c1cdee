"""The history: one record per round, append-only."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RoundRecord:
    """What one round did: labels that arrived, training, evaluation."""

    round: int
    """0 for the first fine-tuning."""
    num_labeled: int
    """How many labeled examples it trained on."""
    query_size: int
    """How many of them were new."""
    train_seconds: float
    """Wall-clock seconds of training; of killed processes, those until the last checkpoint."""
    acquisition_seconds: float
    """Wall-clock seconds of the query that chose the new ones; 0 for an initial set."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics of the evaluation after training, named as `Trainer.evaluate` names them; cross-validated: ``cv_...``."""
    num_rows: dict[str, int] = field(default_factory=dict)
    """How many rows each metric was measured on; releases before did not say."""
    intervals: dict[str, list[float]] = field(default_factory=dict)
    """Lower and upper end of the 95 % interval of a metric: of the rows it was measured on. Some metrics have none."""

    def logged(self) -> dict[str, float]:
        """Return the numbers of the round by the names that trackers get."""
        return {
            "active/round": self.round,
            "active/num_labeled": self.num_labeled,
            "active/query_size": self.query_size,
            "active/train_seconds": self.train_seconds,
            "active/acquisition_seconds": self.acquisition_seconds,
            **{f"active/{name}": value for name, value in self.metrics.items()},
        }
