"""A query that waits for its answers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class PendingQuery:
    """A query that was asked and not yet answered in full."""

    round: int
    """The round that will train on the answers."""
    rows: list[int]
    """Rows still without a label, best first."""
    scores: list[float | None]
    """One per row; None in an initial set, which nothing scored."""
    seconds: float
    """Wall-clock seconds of the acquisition."""
    asked: int
    """How many rows were asked for."""

    def is_query_of(self, number: int, size: int) -> bool:
        """Return whether this is what a query for `size` rows in round `number` would choose again."""
        return (self.round, self.asked, len(self.rows)) == (number, size, size) and None not in self.scores

    def without(self, rows: Collection[int]) -> PendingQuery | None:
        """Return what is left when `rows` are answered; None where nothing is."""
        answered = set(rows)
        left = [(row, score) for row, score in zip(self.rows, self.scores, strict=True) if row not in answered]
        return replace(self, rows=[row for row, _ in left], scores=[score for _, score in left]) if left else None
