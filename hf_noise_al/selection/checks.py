"""What every selection refuses: rows that are not finite, sizes out of range; and the lengths of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..processes.row_shards import Shard
from ..refusals import Refusal
from .distances import largest_entry


def row_norms(rows: Tensor) -> Tensor:
    """Return the Euclidean length of each of the (N, D) `rows`: (N,)."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)  # squares stay in range
    return lengths.to(rows.dtype)


def check_finite(rows: Tensor, shard: Shard | None = None) -> None:
    """Raise ValueError naming the first of the (N, D) `rows` that holds NaN or infinity, or where they are integers.

    With a `shard` the `rows` are those of this process; every process raises, naming the candidate.
    """
    if not rows.is_floating_point():
        raise Refusal(f"Rows must be floating-point numbers to select among them, got {rows.dtype}. Use `.float()`.")
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
        raise Refusal(
            f"Cannot select among rows that are not finite: row {first} holds NaN or infinity "
            f"({count} of {size} rows do). Check the model's outputs for that input."
        )


def check_size(k: int, available: int) -> None:
    """Raise ValueError unless `k` rows can be chosen of `available`."""
    if not 1 <= k <= available:
        raise Refusal(
            f"Cannot query {k} of {available} unlabeled examples. "
            "Choose a `query_size` between 1 and the number of unlabeled examples, or pass a larger `train_dataset`."
        )


def check_whole_number(name: str, value: object, least: float = 1, most: float = math.inf) -> None:
    """Raise ValueError unless the setting `name` is a whole number of `least` to `most`; True and 3.0 are none."""
    if isinstance(value, bool) or not isinstance(value, int):
        bound = f" of at least {least}" if math.isfinite(least) else ""
        raise Refusal(f"`{name}` must be a whole number, got {value!r}. Set it to an int{bound}.")
    if value < least:
        raise Refusal(f"`{name}` must be at least {least}, got {value}.")
    if value > most:
        raise Refusal(f"`{name}` must be at most {most:,}, got {value:,}. Lower it.")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless the setting `name` is one of `choices`."""
    if value not in choices:
        raise Refusal(f"Unknown {name} {value!r}. Use one of {', '.join(choices)}.")
