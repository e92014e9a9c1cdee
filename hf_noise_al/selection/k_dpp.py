"""k-DPP: the larger the volume that rows span, the more likely they are drawn together."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_finite, check_size
from .distances import scaled_to_one
from .k_center import k_center_greedy


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
    scaled = scaled_to_one(rows).double()
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
