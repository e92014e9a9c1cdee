"""Batches of rows of similar length within a budget of tokens, padding included. Pure functions of lists."""

from __future__ import annotations

from collections.abc import Sequence


def token_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut the rows, the longest first, into batches of at most `budget` tokens, or of one row where that has more.

    Rows of equal length keep their order. Returns positions of rows, each once.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    return split_batch(order, lengths, budget)


def split_batch(batch: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut a batch, its longest row first, into batches of at most `budget` tokens, or of one row."""
    parts, start = [], 0
    while start < len(batch):
        count = max(1, budget // max(lengths[batch[start]], 1))
        parts.append(list(batch[start : start + count]))
        start += count
    return parts
