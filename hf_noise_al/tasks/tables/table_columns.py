"""Which columns of a table are inputs: those asked for, else all but labels and what only names or numbers rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow
from datasets import ClassLabel, Dataset, Value
from numpy.typing import NDArray
from transformers.utils import logging

from ...files.shown_text import listed, one_line
from ...pool.columns import LABEL_COLUMNS
from ...refusals import Refusal
from ...settings.arguments import DataArguments
from ...settings.recipe import did_you_mean
from ..columns import require_column
from .tabular_processor import TabularProcessor, as_categories

logger = logging.get_logger(__name__)

INPUT = "features"
"""The model's input, which no column may be called."""
_FEW_ROWS = 20  # so few may be all different, or in order, by chance
_INDEX_NAME = re.compile(r"Unnamed: \d+|__index_level_\d+__")  # as pandas leaves an index in csv and in parquet


def table_columns(dataset: Dataset, arguments: DataArguments, label_column: str) -> tuple[str, ...]:
    """Return the columns asked for, else all; without those to ignore, labels, and what names or numbers the rows."""
    _require_known_names(dataset, arguments, label_column)
    without = {label_column, *LABEL_COLUMNS, *(arguments.ignore_columns or [])}
    columns = [name for name in arguments.feature_columns or dataset.column_names if name not in without]
    left_out = {} if arguments.feature_columns else _no_inputs(dataset, columns, arguments)
    inputs = tuple(name for name in columns if name not in left_out)
    if not inputs:
        raise Refusal(
            f"No input column is left of: {listed(dataset.column_names)}.{_told(left_out)} Name some with "
            "`feature_columns`, or fewer with `ignore_columns`."
        )
    if left_out:
        logger.warning(f"{_told(left_out).strip()} To keep one, name all inputs in `feature_columns`.")
    if not arguments.feature_columns:
        _tell_what_rises(dataset, [name for name in inputs if name not in (arguments.categorical_columns or [])])
    return inputs


def trained_columns(
    processor: TabularProcessor, dataset: Dataset, arguments: DataArguments, label_column: str
) -> tuple[str, ...]:
    """Return the columns that a model was trained with, whatever else `dataset` has.

    Raises:
        ValueError: one is not there, or is the label, or other columns are asked for.
    """
    _require_no_input(dataset)
    columns = processor.columns
    for name in columns:
        if name not in dataset.column_names:
            raise Refusal(
                f"The data has no column `{name}`, which the model was trained with."
                f"{did_you_mean(name, dataset.column_names)} It has: {listed(dataset.column_names)}."
            )
    if label_column in columns:
        raise Refusal(f"The label, `{label_column}`, is one of the inputs that the model was trained with.")
    ignored = set(arguments.ignore_columns or [])
    asked = set(arguments.feature_columns or columns) - {*LABEL_COLUMNS}
    if asked - ignored != set(columns):
        raise Refusal(
            f"`feature_columns` and `ignore_columns` ask for other inputs than those that the model was trained with: "
            f"{listed(columns)}. Leave them out."
        )
    return columns


def is_number(kind: Any) -> bool:
    """Return whether a column of type `kind` holds numbers."""
    return isinstance(kind, Value) and kind.dtype.startswith(("int", "uint", "float", "bool", "decimal"))


def is_category(kind: Any) -> bool:
    """Return whether a column of type `kind` holds categories."""
    return isinstance(kind, ClassLabel) or (isinstance(kind, Value) and kind.dtype in ("string", "large_string"))


def _require_known_names(dataset: Dataset, arguments: DataArguments, label_column: str) -> None:
    _require_no_input(dataset)
    for role in ("feature_columns", "ignore_columns", "categorical_columns"):
        for name in getattr(arguments, role) or []:
            require_column(dataset, name, role)
    if label_column in (arguments.feature_columns or []):
        raise Refusal(f"`feature_columns` names the label, `{label_column}`. Leave it out.")


def _require_no_input(dataset: Dataset) -> None:
    if INPUT in dataset.column_names:
        raise Refusal(f"The data has a column `{INPUT}`, the name of the model's input. Rename the column.")


def _no_inputs(dataset: Dataset, columns: Sequence[str], arguments: DataArguments) -> dict[str, str]:
    """Return which of `columns` say nothing of their rows, and why; not those named as categories."""
    id_column = arguments.id_column
    asked = arguments.categorical_columns or []
    found = {name: _why_no_input(dataset, name, id_column) for name in columns if name not in asked}
    return {name: why for name, why in found.items() if why is not None}


def _why_no_input(dataset: Dataset, name: str, id_column: str | None) -> str | None:
    kind = dataset.features[name]
    if _INDEX_NAME.fullmatch(name):
        return "an index, by its name"
    if name == id_column or (name.lower() == "id" and isinstance(kind, Value) and _all_different(dataset, name)):
        return "names the rows"
    if is_number(kind) and _counts(_whole_numbers(_selected(dataset, name))):
        return "numbers the rows"
    if is_category(kind):
        known = [text for text in as_categories(dataset.with_format(None)[name][:]) if text]
        if len(known) >= _FEW_ROWS and len(set(known)) == len(known):
            return f"another text in each of {len(known):,} rows, such as {one_line(known[0])!r}"
    return None


def _all_different(dataset: Dataset, name: str) -> bool:
    values = dataset.with_format(None)[name][:]
    return len(set(values)) == len(values)


def _counts(values: NDArray[Any] | None) -> bool:
    """Return whether `values` rise by one each, or are 0 to N - 1 or 1 to N in any order."""
    if values is None or len(values) < _FEW_ROWS:
        return False
    ordered, expected = np.sort(values), np.arange(len(values))
    is_permutation = np.array_equal(ordered, expected) or np.array_equal(ordered, expected + 1)
    return is_permutation or bool((np.diff(values) == 1).all())


def _whole_numbers(column: pyarrow.ChunkedArray) -> NDArray[Any] | None:
    """Return the values of `column` where they are whole numbers without a gap, else None."""
    of = pyarrow.types
    if column.null_count or not (of.is_integer(column.type) or of.is_floating(column.type)):
        return None
    values = column.to_numpy()
    if values.dtype.kind == "f" and not (np.abs(values) < 2**53).all():  # False for NaN, too
        return None
    whole: NDArray[Any] = values if values.dtype == np.uint64 else values.astype(np.int64)
    return whole if np.array_equal(whole, values) else None


def _selected(dataset: Dataset, name: str) -> pyarrow.ChunkedArray:
    return dataset.with_format("arrow").select_columns([name])[:].column(name)


def _tell_what_rises(dataset: Dataset, columns: Sequence[str]) -> None:
    """Warn of row numbers with gaps, which may as well be a measure: they stay."""
    for name in columns:
        values = _whole_numbers(_selected(dataset, name)) if is_number(dataset.features[name]) else None
        if values is not None and len(values) >= _FEW_ROWS and bool((values[:-1] < values[1:]).all()):
            logger.warning(
                f"Column `{name}` rises from row to row. If it only numbers the rows, leave it out: "
                f"`ignore_columns: [{name}]`."
            )


def _told(left_out: Mapping[str, str]) -> str:
    reasons = ", ".join(f"`{one_line(name)}` ({why})" for name, why in left_out.items())
    return f" Left out of the inputs: {reasons}." if left_out else ""
