"""Squared distances to many centers: exact where they can matter, the same bits in any block."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FEW_CENTERS = 4
"""Up to this many distances cost less than the matrix product that tells which of them matter."""


def lower(bounds: Tensor, rows: Tensor, centers: Tensor) -> tuple[Tensor, int]:
    """Return the least of the (B,) `bounds` and the squared distances of the (B, D) `rows` to the (C, D) `centers`.

    Where there are many centers, ``|x|^2 + |c|^2 - 2 x.c`` in double precision tells which of them cannot be nearer
    than the bound, with room for all rounding, its own and that of `squared_distances`; only the others are computed.

    Returns:
        The lowered bounds (B,), and what that took, in exact distances.
    """
    if len(centers) <= FEW_CENTERS:
        for center in centers:
            bounds = torch.minimum(bounds, squared_distances(rows, center))
        return bounds, len(rows) * len(centers)
    wide, wide_centers = rows.double(), centers.double()
    lengths, center_lengths = wide.square().sum(dim=1), wide_centers.square().sum(dim=1)
    partial = torch.addmm(center_lengths, wide, wide_centers.T, alpha=-2)  # a squared distance less `lengths`
    margins = _margin(rows, lengths + center_lengths.max()) - lengths
    nearest = partial.min(dim=1)
    near = (nearest.values < _reach(bounds, rows) + margins).nonzero()[:, 0]
    found = squared_distances(rows[near], centers[nearest.indices[near]])
    bounds = bounds.index_put((near,), torch.minimum(bounds[near], found))
    partial[near, nearest.indices[near]] = math.inf
    pairs = (partial < (_reach(bounds, rows) + margins)[:, None]).nonzero()
    for at, to in (part.unbind(dim=1) for part in pairs.split(max(len(rows), 1))):
        bounds = bounds.scatter_reduce(0, at, squared_distances(rows[at], centers[to]), "amin")
    return bounds, len(near) + len(pairs) + len(rows) * len(centers) // 2


def _reach(bounds: Tensor, rows: Tensor) -> Tensor:
    """Return the squared distance from which on `squared_distances` cannot give less than the (B,) `bounds`.

    With unit roundoff u, a difference, a square and a sum of D terms lose at most a factor ``(1 - u)^(D + 2)``, and
    underflow at most D times the smallest normal number. Nothing is less than zero.
    """
    information = torch.finfo(rows.dtype)
    kept = max(1 - (rows.shape[1] + 8) * information.eps, 0.0)  # eps is 2u: twice what is needed
    reach = (bounds.double() + rows.shape[1] * information.tiny) / kept
    return reach.masked_fill(bounds <= 0, -math.inf)


def _margin(rows: Tensor, lengths: Tensor) -> Tensor:
    """Return what rounding may add to a squared distance by lengths and products of double precision: (B,).

    It is below ``3 (D + 3) u (|x|^2 + |c|^2)`` in any order of summation; five times that is taken.
    """
    return 8 * (rows.shape[1] + 8) * torch.finfo(torch.float64).eps * lengths


def squared_distances(rows: Tensor, centers: Tensor) -> Tensor:
    """Return the squared distances of the (B, D) `rows` to the centers, (D,) or (B, D), each alike in any block: (B,).

    torch sums a row in an order that depends on D alone. A single row is the exception: threads may share it.
    """
    squares = (rows - centers).square_()
    return squares.sum(dim=1) if len(squares) != 1 else squares.repeat(2, 1).sum(dim=1)[:1]


def largest_entry(rows: Tensor) -> float:
    """Return the largest magnitude in the (N, D) `rows`, NaN where one is."""
    if not rows.numel():
        return 0.0
    least, most = torch.aminmax(rows.detach())  # no copy of the rows, unlike abs().max()
    return float(torch.maximum(-least, most))


def scale_factors(largest: float) -> tuple[float, ...]:
    """Return the powers of two that make `largest` about one, so that squares neither overflow nor vanish."""
    exponent = -math.frexp(largest)[1]
    if abs(exponent) <= 64:
        return (2.0**exponent,) if exponent else ()
    return 2.0 ** (exponent // 2), 2.0 ** (exponent - exponent // 2)  # in one the factor itself could overflow


def scaled(rows: Tensor, factors: tuple[float, ...]) -> Tensor:
    """Return the rows times the powers of two in `factors`; the rows themselves where there are none."""
    for factor in factors:
        rows = rows * factor
    return rows


def scaled_to_one(rows: Tensor) -> Tensor:
    """Return the rows times a power of two, so that their largest entry is about one."""
    return scaled(rows, scale_factors(largest_entry(rows)))
