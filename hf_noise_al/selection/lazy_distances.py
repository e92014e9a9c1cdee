"""Squared distances to a growing set of centers, computed as far as they decide which row is farthest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .distances import lower, scaled, squared_distances

BLOCK_ENTRIES = 2**19
"""Numbers in the rows that are worked on at once, which should fit a processor's cache."""


PAIR_ENTRIES = 2**20
"""Pairs of a row and a center in one matrix product."""


SCAN_COST = 16
"""Cost of a new active set per row, in the unit of exact distances: numbers read."""


class LazyDistances:
    """Squared distances of rows to the nearest center, computed as far as they decide which row is farthest.

    Distances to a growing set of centers only fall, so what a row's distance was is an upper bound. An *active set* of
    the rows with the largest bounds is kept exact. While its farthest row beats every bound outside, that row is the
    farthest of all. When it does not, the rows that could be farther are caught up with the centers that they missed,
    and a new active set is formed. Where that saves too little, every row is kept exact for a while.

    A row's distance is computed by the same operations on the same numbers whatever stands beside it: the farthest
    row is, to the last bit and with the lowest position among equals, that of the loop over all rows and centers.

    Args:
        rows: (N, D), finite; left as they are.
        dtype: In which distances are computed.
        factors: Powers of two that every row is multiplied by (`scale_factors`).
        from_origin: Whether the origin is a center.
        num_centers: How many centers will be added at most.
        block_rows: Rows in the active set and in a block.
    """

    def __init__(
        self,
        rows: Tensor,
        dtype: torch.dtype,
        factors: tuple[float, ...],
        from_origin: bool,
        num_centers: int,
        block_rows: int | None = None,
    ) -> None:
        size, width = rows.shape
        self.rows, self.dtype, self.factors = rows, dtype, factors
        self.block_rows = block_rows or max(BLOCK_ENTRIES // max(width, 1), 256)
        self.squared = rows.new_full((size,), math.inf, dtype=dtype)
        self.positions = torch.arange(size, device=rows.device)
        self.seen = torch.zeros_like(self.positions)  # how many of the recent centers each row has met
        capacity = min(num_centers, max(self.block_rows, size // 8))
        self.recent = rows.new_empty(capacity, width, dtype=dtype)
        self.num_recent = 0
        self.active, self.active_block = self.positions[:0], self.recent[:0]
        self.active_squared, self.active_best = self.squared[:0], 0
        self.rival = (math.inf, 0)
        self.eager_left, self.patience = 0, 1
        self.work = self.added = 0  # since the last active set was formed
        if size <= self.block_rows:
            self.rows, self.factors, self.eager_left = self.block(slice(None)), (), num_centers
        if from_origin:
            self._lower_all(self.recent.new_zeros(width))

    def block(self, positions: Tensor | slice) -> Tensor:
        """Return the scaled rows at `positions`: (B, D), contiguous."""
        taken = self.rows[positions] if isinstance(positions, slice) else self.rows.index_select(0, positions)
        return scaled(taken.to(self.dtype).contiguous(), self.factors)

    def row(self, position: int) -> Tensor:
        """Return one scaled row: (D,)."""
        return scaled(self.rows[position].to(self.dtype), self.factors)

    def farthest(self) -> tuple[float, int | None]:
        """Return the largest squared distance and the lowest position that has it; None where there are no rows."""
        if not len(self.rows):
            return -math.inf, None
        leader = self._leader()
        if not self.eager_left and leader <= self.rival:
            self._refill()
            leader = self._leader()
        return leader[0], -leader[1]

    def add(self, center: Tensor, position: int | None = None) -> None:
        """Take in the scaled (D,) `center`; the row at `position`, which was farthest, is it and never is again."""
        if position is not None:
            self.squared[position] = -1
            self.active_squared[self.active_best : self.active_best + 1] = -1
        if self.eager_left:
            self._lower_all(center)
            self.eager_left -= 1
            return
        if self.num_recent == len(self.recent):
            self._forget_recent()
        self.recent[self.num_recent] = center
        self.num_recent += 1
        self.active_squared = torch.minimum(self.active_squared, squared_distances(self.active_block, center))
        self.work += self.active_block.numel()
        self.added += 1

    def _leader(self) -> tuple[float, int]:
        """Return the largest exact distance and its lowest position, negated, so that the larger pair leads."""
        if self.eager_left:
            best = int(self.squared.argmax())  # the first of equals
            return float(self.squared[best]), -best
        if not len(self.active):
            return -math.inf, 0
        self.active_best = int(self.active_squared.argmax())
        return float(self.active_squared[self.active_best]), -int(self.active[self.active_best])

    def _refill(self) -> None:
        """Catch up whatever could be farthest, and form a new active set."""
        self._store()
        self._catch_up(leading(self.squared, self.block_rows))
        exact = self.seen == self.num_recent
        best = int(self.squared.masked_fill(~exact, -math.inf).argmax())
        ahead = (self.squared > self.squared[best]) | ((self.squared == self.squared[best]) & (self.positions < best))
        self._catch_up((ahead & ~exact).nonzero()[:, 0])
        self.work += SCAN_COST * len(self.rows)
        eager_work = self.added * self.rows.numel()
        if self.added and self.work > eager_work / 2:
            self.eager_left = self.patience
            self.patience *= 2
            self._activate(self.positions[:0])
            self._forget_recent()
        else:
            if self.added:
                self.patience = max(self.patience // 2, 1)
            active = leading(self.squared, self.block_rows)
            self._catch_up(active)
            self._activate(active)
        self.work = self.added = 0

    def _activate(self, positions: Tensor) -> None:
        """Make the rows at the ascending `positions`, which are exact, the active set."""
        self.active, self.active_squared, self.active_best = positions, self.squared[positions], 0
        self.active_block = self.block(positions)
        outside = self.squared.index_fill(0, positions, -math.inf)
        best = int(outside.argmax())
        self.rival = float(outside[best]), -best

    def _store(self) -> None:
        self.squared[self.active] = self.active_squared
        self.seen[self.active] = self.num_recent

    def _forget_recent(self) -> None:
        """Catch up every row: then no recent center has to be kept."""
        self._store()
        self._catch_up(self.positions)
        self.num_recent = 0
        self.seen.zero_()

    def _lower_all(self, center: Tensor) -> None:
        for start in range(0, len(self.rows), self.block_rows):
            part = slice(start, start + self.block_rows)
            self.squared[part] = torch.minimum(self.squared[part], squared_distances(self.block(part), center))

    def _catch_up(self, positions: Tensor) -> None:
        """Make the rows at `positions` exact."""
        stale = positions[self.seen[positions] < self.num_recent]
        if not len(stale):
            return
        for part in stale[self.seen[stale].argsort()].split(self.block_rows):  # of like age, which share a product
            rows, squared = self.block(part), self.squared[part]
            missed = self.recent[int(self.seen[part].min()) : self.num_recent]
            for centers in missed.split(max(PAIR_ENTRIES // len(part), 1)):
                squared, pairs = lower(squared, rows, centers)
                self.work += pairs * rows.shape[1]
            self.work += rows.numel()
            self.squared[part] = squared
            self.seen[part] = self.num_recent


def leading(values: Tensor, size: int) -> Tensor:
    """Return the positions of the `size` largest of the (N,) `values`, the lowest of equals, in ascending order."""
    if size >= len(values):
        return torch.arange(len(values), device=values.device)
    least = values.topk(size).values[-1]
    above = (values > least).nonzero()[:, 0]
    equal = (values == least).nonzero()[: size - len(above), 0]
    return torch.cat([above, equal]).sort().values
