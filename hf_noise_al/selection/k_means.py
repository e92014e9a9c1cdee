"""k-means++ seeding: rows drawn with probability proportional to their squared distance to what was drawn before."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_finite, check_size
from .distances import scaled_to_one, squared_distances


def k_means_plus_plus(rows: Tensor, k: int, generator: torch.Generator, centers: Tensor | None = None) -> Tensor:
    """Choose `k` of the (N, D) `rows`, each drawn with probability proportional to its squared distance.

    The distance is that to the nearest of the origin, the (M, D) `centers` and the rows drawn before (k-means++
    seeding, Arthur and Vassilvitskii 2007). Where every distance left is zero, the lowest index follows.

    Returns:
        (k,) distinct indices in the order drawn.

    Raises:
        ValueError: as `k_center_greedy`.
    """
    return _draw_by_distance(_Distances(rows, k, centers), k, generator)


def k_means_plus_plus_of_products(left: Tensor, right: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Choose `k` of the N outer products of the (N, A) `left` and (N, B) `right` rows by k-means++ seeding.

    The longest product comes first; each next one is drawn with probability proportional to its squared distance to
    the nearest of those before (there is no center in the origin). The products are never formed: nothing is larger
    than `left` and `right`. Where every distance left is zero, the lowest index follows.

    Returns:
        (k,) distinct indices in order of choice.

    Raises:
        ValueError: as `k_center_greedy`.
    """
    distances = _ProductDistances(left, right, k)
    return _draw_by_distance(distances, k, generator, first=distances.longest())


class _Distances:
    """Squared distance of every row to the nearest center so far; -1 marks a row that was chosen."""

    def __init__(self, rows: Tensor, k: int, centers: Tensor | None) -> None:
        check_finite(rows)
        check_size(k, len(rows))
        if centers is not None:
            check_finite(centers)
            both = scaled_to_one(torch.cat([rows, centers]))
            rows, centers = both[: len(rows)], both[len(rows) :]
        else:
            rows = scaled_to_one(rows)
        self.rows = rows
        self.squared = rows.square().sum(dim=1)
        for center in centers if centers is not None else ():
            self._move_closer(center)

    def farthest(self) -> int:
        return int(self.squared.argmax())  # the first of equals

    def add(self, index: int) -> None:
        torch.minimum(self.squared, self._squared_to(index), out=self.squared)
        self.squared[index] = -1

    def _squared_to(self, index: int) -> Tensor:
        return squared_distances(self.rows, self.rows[index])

    def _move_closer(self, center: Tensor) -> None:
        torch.minimum(self.squared, squared_distances(self.rows, center), out=self.squared)


class _ProductDistances(_Distances):
    """`_Distances` between outer products of rows, from their factors; the origin is no center."""

    def __init__(self, left: Tensor, right: Tensor, k: int) -> None:
        check_finite(left)
        check_finite(right)
        check_size(k, len(left))
        self.left, self.right = scaled_to_one(left), scaled_to_one(right)
        self.left_norms, self.right_norms = (rows.square().sum(dim=1) for rows in (self.left, self.right))
        self.squared = torch.full_like(self.left_norms * self.right_norms, torch.inf)

    def longest(self) -> int:
        return int((self.left_norms * self.right_norms).argmax())

    def _squared_to(self, index: int) -> Tensor:
        # |a h - b g|^2 without the cancellation of |a|^2|h|^2 + |b|^2|g|^2 - 2<a,b><h,g>: zero for equal factors
        left, right = (squared_distances(rows, rows[index]) for rows in (self.left, self.right))
        a, h = self.left_norms, self.right_norms
        b, g = a[index], h[index]
        return ((h + g) * left + (a + b) * right - left * right + (a - b) * (h - g)).clamp(min=0) / 2


def _draw_by_distance(distances: _Distances, k: int, generator: torch.Generator, first: int | None = None) -> Tensor:
    chosen: list[int] = []
    if first is not None:
        chosen.append(first)
        distances.add(first)
    while len(chosen) < k:
        weights = distances.squared.clamp(min=0).double()
        cumulative = weights.cumsum(dim=0)
        draw = torch.rand((), generator=generator, dtype=torch.float64)
        if cumulative[-1] > 0:
            index = int(torch.searchsorted(cumulative, draw * cumulative[-1], right=True))
            index = min(index, int(weights.nonzero().max()))
        else:
            index = distances.farthest()
        chosen.append(index)
        distances.add(index)
    return torch.tensor(chosen)
