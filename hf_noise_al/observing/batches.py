"""Batches of rows of similar length within a budget of tokens, padding included."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute
from datasets import Dataset


def row_lengths(dataset: Dataset) -> list[int] | None:
    """Return the number of tokens of each row; None where it is not known before rows are collated."""
    if "input_ids" not in dataset.column_names or dataset.format["type"] == "custom":
        return None
    column = dataset.select_columns(["input_ids"]).with_format("arrow")[:].column("input_ids")
    lengths: list[int] = pa.compute.list_value_length(column).to_pylist()
    return lengths


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
