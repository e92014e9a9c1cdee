"""Evaluation sets: labels in the column that the pool uses, a few rows to try, and why nothing is measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from ..observing.batches import row_lengths
from ..pool.columns import LABEL_COLUMNS

if TYPE_CHECKING:
    from ..pool.pool_dataset import PoolDataset


def name_labels(dataset: Any, pool: PoolDataset) -> Any:
    """Return a data set with its labels in the column that the pool's labeled split has them in; others as they are.

    Args:
        dataset: One set, several by name, or anything else, which is returned as it is.
        pool: Knows what the user calls the labels, and what models call them.
    """
    if isinstance(dataset, dict):
        return {name: name_labels(rows, pool) for name, rows in dataset.items()}
    column = pool.label_column
    if not isinstance(dataset, Dataset) or column in (None, pool.split_column) or column not in dataset.column_names:
        return dataset
    others = [name for name in LABEL_COLUMNS if name in dataset.column_names]  # a collator might take them instead
    return dataset.remove_columns(others).rename_column(column, pool.split_column)


def some_rows(rows: Any, batch_size: int) -> tuple[Any, int]:
    """Return a few rows of an evaluation set, and the size of the batches that they are to be taken in.

    Two batches where the set has more than one, the shortest rows and the longest, so that joining them is tried, too.
    """
    size = min(2, batch_size, len(rows))
    count = 2 * size if len(rows) > batch_size and len(rows) >= 2 * size else size
    lengths = row_lengths(rows) if isinstance(rows, Dataset) else None
    order: Sequence[int] = range(len(rows)) if lengths is None else sorted(range(len(rows)), key=lengths.__getitem__)
    chosen = [*order[:size], *(order[-size:] if count > size else ())]
    return (rows.select(chosen) if isinstance(rows, Dataset) else [rows[row] for row in chosen]), size


def why_nothing_is_measured(
    place: str, inputs: Mapping[str, Any], rows: Any, label_names: Collection[str], loss_only: bool
) -> str:
    """Say why an evaluation has no result to measure, and what to do.

    Args:
        place: What the evaluation set is called.
        inputs: A batch of it.
        rows: The set.
        label_names: The trainer's.
        loss_only: Whether only the loss is wanted, ``prediction_loss_only``.
    """
    known = [name for name in inputs if name in LABEL_COLUMNS]
    missing = [name for name in label_names if name not in inputs]
    if known and (missing or not label_names):
        return (
            f"`label_names` is {list(label_names)}, and a batch of the {place} has {', '.join(inputs)}. Set "
            f"`label_names` to {known}"
        )
    if not label_names:
        return f"`label_names` is empty, so labels of the {place} are not known. Set it to their name in a batch"
    if missing:
        columns = ", ".join(getattr(rows, "column_names", None) or inputs)
        return (
            f"the {place} has no labels; its columns are {columns}. Give it the column `{missing[0]}`, name its column "
            "of labels with `label_column` as in `train_dataset`, or leave `eval_dataset` out"
        )
    if loss_only:
        return "`prediction_loss_only` is set, so predictions are thrown away. Leave it out"
    return f"the model returns no predictions or no loss for the {place}. Let it return them"
