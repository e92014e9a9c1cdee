"""Who gives labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ..pool.pool import Label


class Annotator(ABC):
    """Answer queries. Called on the main process only, which sends the answer to the others."""

    @abstractmethod
    def annotate(self, rows: Sequence[int]) -> list[Label]:
        """Return one label per row of the data set, in the order of `rows`.

        Raises:
            ValueError: a row has no label here; say which.
        """
