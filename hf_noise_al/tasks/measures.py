"""Metrics that are computed here, with scikit-learn and scipy, and the interval of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..measuring.intervals import Interval, wilson
from ..pool.problem_type import MULTI_LABEL, REGRESSION
from .score_intervals import (
    RATIOS,
    draw_classes,
    draw_counts,
    error_interval,
    interval_of,
    interval_of_mean,
    matthews_correlation,
    pearson_interval,
    r2_interval,
    spearman_interval,
)
from .targets import Targets

Array: TypeAlias = NDArray[Any]
Measure: TypeAlias = Callable[[Array, Array], Mapping[str, float]]
"""(predictions, references) -> numbers by name."""

GLUE_METRICS: dict[str, tuple[str, ...]] = {
    "cola": ("matthews_correlation",),
    "sst2": ("accuracy",),
    "mrpc": ("accuracy", "f1"),
    "qqp": ("accuracy", "f1"),
    "stsb": ("pearson", "spearmanr"),
    **dict.fromkeys(("mnli", "mnli_matched", "mnli_mismatched", "qnli", "rte", "wnli"), ("accuracy",)),
}


def averaging_of(targets: Targets) -> dict[str, str]:
    """Return how F1 and its like join classes: class 1 of two, else the mean over classes, or all labels at once."""
    if targets.problem_type == MULTI_LABEL:
        return {"average": "micro"}
    return {"average": "binary" if targets.num_labels == 2 else "macro"}


def _sklearn(function: str, averaged: bool = False) -> Callable[[Array, Array, Mapping[str, str]], float]:
    def measure(predictions: Array, references: Array, averaging: Mapping[str, str]) -> float:
        from sklearn import metrics

        options = {**averaging, "zero_division": 0} if averaged else {}
        return float(getattr(metrics, function)(references, predictions, **options))

    return measure


def _scipy(function: str) -> Callable[[Array, Array, Mapping[str, str]], float]:
    def measure(predictions: Array, references: Array, averaging: Mapping[str, str]) -> float:
        from scipy import stats

        if len(predictions) < 2:
            return math.nan  # it is not defined
        return float(getattr(stats, function)(predictions, references)[0])

    return measure


MEASURES: dict[str, Callable[[Array, Array, Mapping[str, str]], float]] = {
    "accuracy": _sklearn("accuracy_score"),
    "f1": _sklearn("f1_score", averaged=True),
    "precision": _sklearn("precision_score", averaged=True),
    "recall": _sklearn("recall_score", averaged=True),
    "matthews_correlation": _sklearn("matthews_corrcoef"),
    "mse": _sklearn("mean_squared_error"),
    "rmse": _sklearn("root_mean_squared_error"),
    "mae": _sklearn("mean_absolute_error"),
    "r2": _sklearn("r2_score"),
    "r_squared": _sklearn("r2_score"),
    "pearson": _scipy("pearsonr"),
    "pearsonr": _scipy("pearsonr"),
    "spearmanr": _scipy("spearmanr"),
}


def interval(name: str, value: float, answers: Array, references: Array, targets: Targets) -> Interval | None:
    """Return the 95 % interval of the metric `name`, or None where none is known."""
    if targets.problem_type == REGRESSION:
        return _interval_of_numbers(name, value, answers.astype(np.float64), references.astype(np.float64))
    if name == "accuracy":
        return wilson(round(value * len(references)), len(references))
    if targets.problem_type == MULTI_LABEL:
        rows = [side.sum(axis=1, keepdims=True) for side in (answers * references, references, answers)]
        return interval_of(value, RATIOS[name](draw_counts(*rows))[:, 0])
    two = targets.num_labels == 2
    classes = np.arange(2) if two else np.union1d(answers, references)
    counts = draw_classes(answers, references, classes, 1 / max(len(classes), 2))
    if name == "matthews_correlation":
        return interval_of(value, matthews_correlation(counts))
    draws = RATIOS[name](counts)
    return interval_of(value, draws[:, 1]) if two else interval_of_mean(value, draws)


def _interval_of_numbers(name: str, value: float, answers: Array, references: Array) -> Interval | None:
    if name == "mae":
        return error_interval(abs(answers - references))
    if name in ("mse", "rmse"):
        found = error_interval((answers - references) ** 2)
        return found if found is None or name == "mse" else (math.sqrt(found[0]), math.sqrt(found[1]))
    if name in ("r2", "r_squared"):
        return r2_interval(answers, references)
    if name == "spearmanr":
        return spearman_interval(value, len(references))
    return pearson_interval(value, answers, references) if name.startswith("pearson") else None
