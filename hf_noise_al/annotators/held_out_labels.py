"""Labels that are known already and revealed when asked for: the simulated annotator of experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..pool.pool import Label
from ..refusals import Refusal
from .base import Annotator


class HeldOutLabels(Annotator):
    """Reveal ``labels[row]``, in the form of a label column: a class by its number or name, a number, a list of them.

    Example:
        >>> HeldOutLabels([0, 1, 1]).annotate([2, 0])
        [1, 0]
    """

    def __init__(self, labels: Sequence[Label] | Mapping[int, Label]) -> None:
        self.labels: dict[int, Label] = dict(labels if isinstance(labels, Mapping) else enumerate(labels))

    def annotate(self, rows: Sequence[int]) -> list[Label]:
        """Return the held-out labels of `rows`."""
        outside = [row for row in rows if row not in self.labels]
        if outside:
            raise Refusal(f"Row {outside[0]} has no held-out label: there are {len(self.labels)} of them.")
        return [self.labels[row] for row in rows]
