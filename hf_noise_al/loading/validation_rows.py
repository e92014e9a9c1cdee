"""Rows of the pool that are set aside to measure with, where the data has one split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from datasets import ClassLabel, Dataset
from transformers.utils import logging

from ..pool.label_values import classes_found, is_missing
from ..refusals import Refusal
from ..settings.arguments import DataArguments

logger = logging.get_logger(__name__)


def set_aside(pool: Dataset, arguments: DataArguments, label_columns: Sequence[str]) -> tuple[int, ...]:
    """Return the rows to measure with: one of each block of rows in the file, if it has a label.

    Which row of a block that is follows from its place in the file and `split_seed` alone. Rows that were set aside
    therefore stay so when labels are added to the file.
    """
    if len(pool) < 2:
        raise Refusal(f"{arguments.dataset_name} has {len(pool)} rows: too few for a pool and rows to measure with.")
    if arguments.eval_split not in ([], ["validation"]):
        raise Refusal(
            f"{arguments.dataset_name} has no split {', '.join(arguments.eval_split)}: `{arguments.train_split}` is "
            "all there is. Leave `eval_split` out to set rows aside, or pass a folder with a file for each split."
        )
    labeled = _labeled_rows(pool, arguments, label_columns)
    if not labeled:
        raise Refusal(
            f"{arguments.dataset_name} has no other split and no row with a label: nothing to measure rounds with. "
            "Label some rows, or pass a folder with a file for each split."
        )
    chosen = _measuring_rows(labeled, len(pool), arguments.validation_fraction, arguments.split_seed)
    logger.info(
        f"{arguments.dataset_name} has no split beside `{arguments.train_split}`: {len(chosen)} of its {len(labeled)} "
        "labeled rows are set aside to measure with (`validation_fraction`, `split_seed`)."
    )
    return tuple(chosen)


def _measuring_rows(labeled: Sequence[int], size: int, fraction: float, seed: int) -> list[int]:
    """Return the rows of `labeled` whose turn it is, ascending; where it is the turn of none, one that is drawn."""
    draw = numpy.random.RandomState(seed)
    share = min(fraction, 1 - fraction)
    starts = numpy.arange(int(size * share) + 1) / share  # where blocks of 1 / share rows begin
    turns = set((starts + draw.random_sample(len(starts)) / share).astype(int).tolist())
    chosen = [row for row in labeled if (row in turns) == (fraction == share)]
    chosen = chosen or [labeled[int(draw.randint(len(labeled)))]]
    return chosen if len(chosen) < size else chosen[:-1]


def _labeled_rows(pool: Dataset, arguments: DataArguments, label_columns: Sequence[str]) -> list[int]:
    column = next((name for name in label_columns if name in pool.column_names), None)
    if column is None:
        return list(range(len(pool)))  # a missing label column is refused later
    values = pool.with_format(None)[column][:]
    names: Sequence[str] | None = arguments.class_names or ()
    if not names and not isinstance(pool.features[column], ClassLabel):
        try:
            names = classes_found(values)
        except ValueError:  # numbers
            names = None
    return [row for row, label in enumerate(values) if label == [] or not is_missing(label, names)]
