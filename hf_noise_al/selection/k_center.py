"""Greedy k-center: each choice is the row farthest from all centers so far."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..processes.row_shards import Shard
from ..refusals import Refusal
from .checks import check_finite, check_size
from .distances import largest_entry, scale_factors, scaled
from .lazy_distances import LazyDistances


def k_center_greedy(
    rows: Tensor, k: int, centers: Tensor | None = None, first: int | None = None, shard: Shard | None = None
) -> Tensor:
    """Choose `k` of the (N, D) `rows`, each the farthest from the origin, the (M, D) `centers` and those before it.

    The first choice without centers is thus the longest row. Of rows equally far the one with the lowest index is
    chosen, and no row twice: with duplicates or zero rows the rest follows in order of index. With `first` the
    origin is no center, as suits rows of equal length: that row is chosen first, or, where there are centers (M > 0),
    the row farthest from them.

    With a `shard` the `rows` are those of this process: every process calls with its own, the same `k`, `centers` and
    `first`, which is then the position of a candidate, and gets the choice among all of them.

    Returns:
        (k,) distinct indices in order of choice; with a `shard`, positions of candidates, the same on every process.

    Raises:
        ValueError: `k` is not between 1 and N, `first` is no row, or a row is not finite (the row is named); with a
            `shard`, on every process.

    Example:
        >>> k_center_greedy(torch.tensor([[1.0, 0.0], [3.0, 0.0], [3.0, 0.1], [0.0, 2.0]]), k=3).tolist()
        [2, 3, 0]
    """
    if shard is not None:
        rows = shard.check(rows)
    size = len(rows) if shard is None else shard.size
    check_finite(rows, shard)
    check_size(k, size)
    if centers is not None:
        check_finite(centers)
    if first is not None and not 0 <= first < size:
        raise Refusal(f"`first` must be the index of one of the {size} rows, got {first}. Count from 0.")
    return choose(rows, k, centers if centers is not None and len(centers) else None, first, shard)


def choose(
    rows: Tensor,
    k: int,
    centers: Tensor | None = None,
    first: int | None = None,
    shard: Shard | None = None,
    block_rows: int | None = None,
) -> Tensor:
    """Return what `k_center_greedy` describes, of finite rows and a `k` that is in range."""
    largest = max(largest_entry(rows), 0.0 if centers is None else largest_entry(centers))
    dtype = rows.dtype if centers is None else torch.promote_types(rows.dtype, centers.dtype)
    if shard is not None:
        largest = float(shard.gather(torch.tensor([largest], dtype=torch.float64)).max())
    factors = scale_factors(largest)
    num_centers = k + (0 if centers is None else len(centers))
    distances = LazyDistances(rows.detach(), dtype, factors, first is None, num_centers, block_rows)
    for center in () if centers is None else scaled(centers.detach().to(dtype), factors):
        distances.add(center)
    chosen: list[int] = []
    while len(chosen) < k:
        forced = first if centers is None and not chosen else None
        number, position, center = _next(distances, forced, shard)
        distances.add(center, position)
        chosen.append(number)
    return torch.tensor(chosen)


def _next(distances: LazyDistances, forced: int | None, shard: Shard | None) -> tuple[int, int | None, Tensor]:
    """Return the number of the next choice, its position among the rows of this process if it is one, and its row."""
    position = forced if shard is None or forced is None else shard.position(forced)
    value = 0.0
    if forced is None:
        value, position = distances.farthest()
    if shard is None:
        assert position is not None
        return position, position, distances.row(position)
    offer = torch.full((distances.rows.shape[1] + 2,), -math.inf, dtype=torch.float64)
    if position is not None:
        offer[0], offer[1] = value, -int(shard.indices[position])
        offer[2:] = distances.row(position)
    offers = shard.gather(offer)  # one exchange for each choice
    best = max(range(len(offers)), key=lambda process: offers[process, :2].tolist())
    number = -int(offers[best, 1])
    return number, shard.position(number), offers[best, 2:].to(distances.rows.device, distances.dtype)
