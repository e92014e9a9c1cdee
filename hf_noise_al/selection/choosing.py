"""Choose rows by the name of a selection, or by their scores alone."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..refusals import Refusal
from .checks import check_finite, check_size, row_norms
from .k_center import k_center_greedy
from .k_dpp import k_dpp
from .k_means import k_means_plus_plus

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
        raise Refusal(f"The selection {name!r} takes no centers. Use 'k_center' or 'k_means_plus_plus'.")
    if name == "k_dpp":
        return k_dpp(rows, k, generator)
    check_finite(rows)
    return top_k(row_norms(rows), k)


def top_k(scores: Tensor, k: int) -> Tensor:
    """Return the indices of the `k` largest of the (N,) `scores`, the lowest index first among equals: (k,)."""
    check_finite(scores[:, None])
    check_size(k, len(scores))
    return scores.argsort(descending=True, stable=True)[:k]
