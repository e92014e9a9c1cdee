"""Selections: rows -> indices of the chosen ones, best first. Pure functions of tensors and a generator."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ..processes.row_shards import Shard
from . import k_center
from .distances import largest_entry, scale_factors, scaled, squared_distances

SelectionName = Literal["k_center", "k_means_plus_plus", "k_dpp", "top_k"]


def select_rows(
    name: SelectionName, rows: Tensor, k: int, generator: torch.Generator, centers: Tensor | None = None
) -> Tensor:
    """Choose `k` of the (N, D) `rows` by the selection called `name`: (k,) distinct indices, best first."""
    if name == "k_center":
        return k_center_greedy(rows, k, centers)
    if name == "k_means_plus_plus":
        return k_means_plus_plus(rows, k, generator, centers)
    if centers is not None:
        raise ValueError(f"The selection {name!r} takes no centers. Use 'k_center' or 'k_means_plus_plus'.")
    if name == "k_dpp":
        return k_dpp(rows, k, generator)
    check_finite(rows)
    return top_k(row_norms(rows), k)


def k_center_greedy(
    rows: Tensor, k: int, centers: Tensor | None = None, first: int | None = None, shard: Shard | None = None
) -> Tensor:
    """Choose `k` of the (N, D) `rows`, each the farthest from the origin, the (M, D) `centers` and those before it.

    The first choice without centers is thus the longest row. Of rows equally far the one with the lowest index is
    chosen, and no row twice: with duplicates or zero rows the rest follows in order of index. With `first` the
    origin is no center, as suits rows of equal length: that row is chosen first, or, where there are centers (M > 0),
    the row farthest from them.

    With a `shard` the `rows` are those of this process: every process calls with its own, the same `k`, `centers` and
    `first`, which is then a candidate's number, and gets the choice among all of them.

    Returns:
        (k,) distinct indices in order of choice; with a `shard`, numbers of candidates, the same on every process.

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
        raise ValueError(f"`first` must be the index of one of the {size} rows, got {first}. Count from 0.")
    return k_center.choose(rows, k, centers if centers is not None and len(centers) else None, first, shard)


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


def top_k(scores: Tensor, k: int) -> Tensor:
    """Return the indices of the `k` largest of the (N,) `scores`, the lowest index first among equals: (k,)."""
    check_finite(scores[:, None])
    check_size(k, len(scores))
    return scores.argsort(descending=True, stable=True)[:k]


def k_dpp(rows: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Draw `k` of the (N, D) `rows` from the determinantal point process with kernel ``rows @ rows.T``.

    Exact sampling of a k-DPP (Kulesza and Taskar 2011, algorithms 1 and 8), in double precision. A process of rank r
    holds no more than r rows; where k > r the rest is chosen by `k_center_greedy` with the drawn rows as centers.

    Returns:
        (k,) distinct indices in the order drawn.

    Raises:
        ValueError: as `k_center_greedy`.
    """
    check_finite(rows)
    check_size(k, len(rows))
    scaled = _scaled(rows).double()
    values, vectors = _spectrum(scaled)
    drawn = _draw_eigenvectors(values, min(k, len(values)), generator)
    chosen = _draw_rows(vectors[:, drawn], generator)
    if len(chosen) < k:
        left = torch.ones(len(rows), dtype=torch.bool)
        left[chosen] = False
        candidates = left.nonzero()[:, 0]
        rest = k_center_greedy(scaled[candidates], k - len(chosen), scaled[chosen] if chosen else None)
        chosen += candidates[rest].tolist()
    return torch.tensor(chosen)


def row_norms(rows: Tensor) -> Tensor:
    """Return the Euclidean length of each of the (N, D) `rows`: (N,)."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)  # squares stay in range
    return lengths.to(rows.dtype)


def check_finite(rows: Tensor, shard: Shard | None = None) -> None:
    """Raise ValueError naming the first of the (N, D) `rows` that holds NaN or infinity, or where they are integers.

    With a `shard` the `rows` are those of this process; every process raises, naming the candidate.
    """
    if not rows.is_floating_point():
        raise ValueError(f"Rows must be floating-point numbers to select among them, got {rows.dtype}. Use `.float()`.")
    if math.isfinite(largest_entry(rows)):
        bad = torch.zeros(0, dtype=torch.long)
    else:
        bad = (~torch.isfinite(rows)).any(dim=1).nonzero()[:, 0]
    size, count, first = len(rows), len(bad), int(bad[0]) if len(bad) else len(rows)
    if shard is not None:
        first = int(shard.indices[first]) if count else shard.size
        found = shard.gather(torch.tensor([count, first]))
        size, count, first = shard.size, int(found[:, 0].sum()), int(found[:, 1].min())
    if count:
        raise ValueError(
            f"Cannot select among rows that are not finite: row {first} holds NaN or infinity "
            f"({count} of {size} rows do). Check the model's outputs for that input."
        )


def check_size(k: int, available: int) -> None:
    """Raise ValueError unless `k` rows can be chosen of `available`."""
    if not 1 <= k <= available:
        raise ValueError(
            f"Cannot query {k} of {available} unlabeled examples. "
            "Choose a `query_size` between 1 and the number of unlabeled examples, or pass a larger `train_dataset`."
        )


def check_whole_number(name: str, value: object, least: float = 1, most: float = math.inf) -> None:
    """Raise ValueError unless the setting `name` is a whole number of `least` to `most`; True and 3.0 are none."""
    if isinstance(value, bool) or not isinstance(value, int):
        bound = f" of at least {least}" if math.isfinite(least) else ""
        raise ValueError(f"`{name}` must be a whole number, got {value!r}. Set it to an int{bound}.")
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}, got {value}.")
    if value > most:
        raise ValueError(f"`{name}` must be at most {most:,}, got {value:,}. Lower it.")


class _Distances:
    """Squared distance of every row to the nearest center so far; -1 marks a row that was chosen."""

    def __init__(self, rows: Tensor, k: int, centers: Tensor | None) -> None:
        check_finite(rows)
        check_size(k, len(rows))
        if centers is not None:
            check_finite(centers)
            both = _scaled(torch.cat([rows, centers]))
            rows, centers = both[: len(rows)], both[len(rows) :]
        else:
            rows = _scaled(rows)
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
    """The same between outer products of rows, from their factors: no center in the origin."""

    def __init__(self, left: Tensor, right: Tensor, k: int) -> None:
        check_finite(left)
        check_finite(right)
        check_size(k, len(left))
        self.left, self.right = _scaled(left), _scaled(right)
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


def _scaled(rows: Tensor) -> Tensor:
    return scaled(rows, scale_factors(largest_entry(rows)))


def _spectrum(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positive eigenvalues of ``rows @ rows.T`` (R,) and their eigenvectors (N, R)."""
    left, singular, _ = torch.linalg.svd(rows, full_matrices=False)
    keep = singular > singular.max() * max(rows.shape) * torch.finfo(rows.dtype).eps if len(singular) else singular > 0
    return singular[keep].square(), left[:, keep]


def _draw_eigenvectors(values: Tensor, k: int, generator: torch.Generator) -> list[int]:
    """Draw `k` of the R eigenvectors: elementary symmetric polynomials, in logarithms."""
    logs = values.log()
    table = torch.full((len(values) + 1, k + 1), -torch.inf, dtype=torch.float64)  # log e_j of the first r values
    table[:, 0] = 0
    for r in range(1, len(values) + 1):
        table[r, 1:] = torch.logaddexp(table[r - 1, 1:], logs[r - 1] + table[r - 1, :-1])
    drawn: list[int] = []
    for r in range(len(values), 0, -1):
        missing = k - len(drawn)
        if missing == 0:
            break
        log_keep = logs[r - 1] + table[r - 1, missing - 1] - table[r, missing]
        if missing == r or torch.rand((), generator=generator, dtype=torch.float64).log() < log_keep:
            drawn.append(r - 1)
    return drawn


def _draw_rows(vectors: Tensor, generator: torch.Generator) -> list[int]:
    """Draw one row per column of the orthonormal (N, k) `vectors`, projecting the drawn one out each time."""
    chosen: list[int] = []
    while vectors.shape[1]:
        weights = vectors.square().sum(dim=1)
        weights[chosen] = 0
        index = int(torch.multinomial(weights, 1, generator=generator))
        chosen.append(index)
        column = int(vectors[index].abs().argmax())
        pivot = vectors[:, column] / vectors[index, column]
        others = torch.cat([vectors[:, :column], vectors[:, column + 1 :]], dim=1)
        vectors = torch.linalg.qr(others - pivot[:, None] * others[index])[0]
    return chosen
