"""Rows of a table as numbers: fitted by scikit-learn, kept as plain JSON, the same bits wherever it is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, BatchFeature, FeatureExtractionMixin

from ...refusals import Refusal
from .tabular_model import TabularMLPConfig


class TabularProcessor(FeatureExtractionMixin):  # type: ignore[misc, unused-ignore]
    """Turn columns into ``features``: numbers imputed by their median and scaled, categories as one-hot vectors.

    A missing category (None, NaN or an empty text) is a category of its own. One that `fit` did not see is all zeros.

    Args:
        numbers: ``column``, ``median``, ``mean`` and ``scale`` of each number; what `fit` finds.
        categories: ``column`` and ``values`` of each category, "" where it is missing; what `fit` finds.
        kwargs: What transformers writes beside them.
    """

    model_input_names = ("features",)

    def __init__(
        self,
        numbers: Sequence[Mapping[str, Any]] = (),
        categories: Sequence[Mapping[str, Any]] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call, unused-ignore]
        self.numbers = [dict(entry) for entry in numbers]
        self.categories = [dict(entry) for entry in categories]

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that are read, numbers first."""
        return tuple(entry["column"] for entry in [*self.numbers, *self.categories])

    @property
    def num_features(self) -> int:
        """Return F, the width of a row; 0 before `fit`."""
        return len(self.numbers) + sum(len(entry["values"]) for entry in self.categories)

    def fit(self, columns: Mapping[str, Sequence[Any]], categories: Sequence[str]) -> None:
        """Learn medians, means, scales and categories from `columns`, those in `categories` being no numbers.

        Raises:
            ValueError: a column has no value at all, or is not what it should be.
        """
        names = [name for name in columns if name not in categories]
        values = {name: as_numbers(columns[name], f"Column `{name}` of the pool") for name in names}
        texts = {name: as_categories(columns[name]) for name in columns if name in categories}
        empty = [name for name, column in values.items() if np.isnan(column).all()]
        empty += [name for name, column in texts.items() if not any(column)]
        if empty:
            raise Refusal(
                f"Found no value in {'column' if len(empty) == 1 else 'columns'} {_quoted(empty)} of the pool. "
                f"Leave out what is empty: `ignore_columns: [{', '.join(empty)}]`."
            )
        self.numbers, self.categories = _fitted(values, texts)

    def __call__(
        self, columns: Mapping[str, Sequence[Any]], return_tensors: str | None = None, first_row: int = 0
    ) -> BatchFeature:
        """Return ``features``, (B, F) float32, of columns of B values each, such as a slice of a `Dataset`.

        Args:
            columns: Values by column; further columns are ignored.
            return_tensors: As for any processor: "pt", "np", or None for an array.
            first_row: The number of the first row, for messages.

        Raises:
            ValueError: nothing was fitted, a column is missing, a value is no number where numbers were seen in
                fitting, or it is too far from them for float32.
        """
        if not self.columns:
            raise Refusal("The processor knows no columns yet. Call `fit`, or load one with `from_pretrained`.")
        missing = [name for name in self.columns if name not in columns]
        if missing:
            raise Refusal(
                f"The column `{missing[0]}` is missing: the model was trained with it. Found: {', '.join(columns)}."
            )
        parts = [self._scaled(entry, columns[entry["column"]], first_row) for entry in self.numbers]
        parts += [_one_hot(as_categories(columns[entry["column"]]), entry["values"]) for entry in self.categories]
        return BatchFeature({"features": np.concatenate(parts, axis=1)}, tensor_type=return_tensors)

    def _scaled(self, entry: Mapping[str, Any], values: Sequence[Any], first_row: int) -> NDArray[np.float32]:
        name = entry["column"]
        found = as_numbers(values, f"Column `{name}`", first_row)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (np.where(np.isnan(found), entry["median"], found) - entry["mean"]) / entry["scale"]
            narrow: NDArray[np.float32] = scaled.astype(np.float32)
        if not np.isfinite(narrow).all():
            row = int((~np.isfinite(narrow)).argmax())
            raise Refusal(
                f"Column `{name}`, row {first_row + row}: {found[row]} is too far from the numbers of the pool (mean "
                f"{entry['mean']}, scale {entry['scale']}). Correct the row, or leave the column out with "
                "`ignore_columns`."
            )
        return narrow[:, None]


def as_numbers(values: Sequence[Any], where: str, first_row: int = 0) -> NDArray[np.float64]:
    """Return `values` as float64, NaN where one is missing.

    Raises:
        ValueError: one is infinite, or no number; `where` it is, and its row, are told.
    """
    try:
        found = np.array(values, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError):
        row = next(row for row, value in enumerate(values) if not _is_number(value))
        raise Refusal(
            f"{where}, row {first_row + row}: found {values[row]!r} where numbers are expected. Correct the row, or "
            "read the column as categories with `categorical_columns`."
        ) from None
    if np.isinf(found).any():
        raise Refusal(
            f"{where}, row {first_row + int(np.isinf(found).argmax())}: found an infinite number. Write a finite one, "
            "or nothing where it is missing."
        )
    return found


def as_categories(values: Sequence[Any]) -> list[str]:
    """Return `values` as text, "" where one is missing; whole numbers are written without a decimal point."""
    return [_category(value) for value in values]


def _category(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():  # a column of whole numbers where one is missing
        return str(int(value))
    return str(value)


def _is_number(value: Any) -> bool:
    try:
        float("nan" if value is None else value)
    except (TypeError, ValueError):
        return False
    return True


def _fitted(
    numbers: Mapping[str, NDArray[np.float64]], categories: Mapping[str, list[str]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what a fitted `ColumnTransformer` of scikit-learn knows of the columns, as plain JSON."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    one_hot = OneHotEncoder(handle_unknown="ignore")  # a missing value is the text "" by now
    first = len(numbers)
    parts = [("numbers", scaled, range(first)), ("categories", one_hot, range(first, first + len(categories)))]
    table = np.array([*numbers.values(), *categories.values()], dtype=object).T
    with np.errstate(over="ignore", invalid="ignore"):  # such numbers are refused when they are scaled
        transformer = ColumnTransformer([(name, step, list(at)) for name, step, at in parts if at]).fit(table)
    found_numbers: list[dict[str, Any]] = []
    found_categories: list[dict[str, Any]] = []
    if numbers:
        imputer, scaler = (step for _, step in transformer.named_transformers_["numbers"].steps)
        found = zip(numbers, imputer.statistics_, scaler.mean_, scaler.scale_, strict=True)
        found_numbers = [
            {"column": name, "median": float(median), "mean": float(mean), "scale": float(scale)}
            for name, median, mean, scale in found
        ]
    if categories:
        pairs = zip(categories, transformer.named_transformers_["categories"].categories_, strict=True)
        found_categories = [{"column": name, "values": [str(value) for value in values]} for name, values in pairs]
    return found_numbers, found_categories


def _one_hot(values: Sequence[str], known: Sequence[str]) -> NDArray[np.float32]:
    index = {value: position for position, value in enumerate(known)}
    encoded = np.zeros((len(values), len(known)), dtype=np.float32)
    for row, value in enumerate(values):
        if value in index:
            encoded[row, index[value]] = 1
    return encoded


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


AutoFeatureExtractor.register(TabularMLPConfig, TabularProcessor)
