"""Labels that are known already and revealed when asked for: the simulated annotator of experiments."""

from __future__ import annotations

from collections.abc import Sequence

from ..pool import Label
from .base import Annotator


class HeldOutLabels(Annotator):
    """Reveal ``labels[row]``.

    Example:
        >>> HeldOutLabels([0, 1, 1]).annotate([2, 0])
        [1, 0]
    """

    def __init__(self, labels: Sequence[Label]) -> None:
        self.labels = list(labels)

    def annotate(self, rows: Sequence[int]) -> list[Label]:
        """Return the held-out labels of `rows`."""
        outside = [row for row in rows if not 0 <= row < len(self.labels)]
        if outside:
            raise ValueError(f"Row {outside[0]} has no held-out label: there are {len(self.labels)} of them.")
        return [self.labels[row] for row in rows]
