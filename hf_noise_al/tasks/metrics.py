"""Metrics by their names in `evaluate`: computed here, or loaded from there where code of others is trusted.

What `evaluate` loads is Python, from the Hub or from a folder, and it runs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from huggingface_hub import constants
from numpy.typing import NDArray
from transformers import EvalPrediction
from transformers.utils import logging

from ..files.shown_text import listed, one_line
from ..measuring.intervals import Interval, wilson
from ..pool.problem_type import MULTI_LABEL, REGRESSION
from ..refusals import Refusal
from ..settings.recipe import did_you_mean
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

logger = logging.get_logger(__name__)

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
_NOT_IN_EVALUATE = ("rmse", "r2")
_LOWER_IS_BETTER = ("loss", "mse", "mae", "rmse", "error", "wer", "cer", "perplexity", "runtime")


@dataclass(frozen=True)
class Metrics:
    """The numbers of a task, for `Trainer`'s ``compute_metrics``."""

    measures: tuple[Measure, ...]
    targets: Targets

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Return every metric of `prediction`; a number that is not defined counts as 0.0, with a log line."""
        answers, references = self._answers(prediction)
        found: dict[str, float] = {}
        for measure in self.measures:
            with warnings.catch_warnings():  # a constant prediction is told below, once and in our words
                warnings.simplefilter("ignore")
                found |= measure(answers, references)
        return {name: _defined(name, float(value)) for name, value in found.items() if np.ndim(value) == 0}

    def intervals(self, prediction: EvalPrediction, values: Mapping[str, float]) -> dict[str, Interval]:
        """Return the 95 % intervals of `values`, the metrics of `prediction`, as far as they have some.

        See `hf_noise_al.tasks.score_intervals`. A number of others' code has one where it is the number known here.
        """
        answers, references = self._answers(prediction)
        averaging = _averaging(self.targets)
        found: dict[str, Interval | None] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, value in values.items():
                if name in _MEASURES and np.isclose(_MEASURES[name](answers, references, averaging), value):
                    found[name] = _interval(name, value, answers, references, self.targets)
        return {name: interval for name, interval in found.items() if interval is not None}

    def _answers(self, prediction: EvalPrediction) -> tuple[Array, Array]:
        """Return answers and references: numbers, classes, or a 0 or 1 for every label."""
        logits = prediction.predictions
        outputs = np.asarray(logits[0] if isinstance(logits, tuple) else logits)
        references = np.asarray(prediction.label_ids)
        if self.targets.problem_type != REGRESSION:
            references = references.astype(np.int64)
        _require_finite(outputs)
        return _decide(outputs, self.targets), references

    def names(self) -> tuple[str, ...]:
        """Return the names of the numbers, found by measuring a made-up perfect answer."""
        if self.targets.problem_type == REGRESSION:
            answer, labels = np.arange(4.0)[:, None], np.arange(4.0)
        else:
            eye = np.eye(max(self.targets.num_labels, 2))[:, : self.targets.num_labels]
            labels = eye if self.targets.problem_type == MULTI_LABEL else np.arange(len(eye))
            answer = eye * 2 - 1
        return tuple(self(EvalPrediction(predictions=answer, label_ids=labels)))


def load_metrics(names: Sequence[str], targets: Targets, trusted: bool = False) -> Metrics:
    """Return the metrics `names`: of `evaluate`, such as ``f1``, or the ones of a GLUE task, such as ``glue/mrpc``.

    Raises:
        ValueError: a metric is not computed here and cannot be loaded, or may not be, as it is not `trusted`.
    """
    return Metrics(tuple(_load(name, targets, trusted) for name in names), targets)


def curve_metric(
    names: Sequence[str], evaluation_sets: Sequence[str], wanted: str | None = None, folds: bool = False
) -> str:
    """Return the full name, as in `Trainer`'s metrics, of the metric that the learning curve shows.

    `names` are those of `Metrics.names`; `wanted` may leave out ``eval_`` and, for the first set, the set's name. With
    `folds` there are the cross-validated ones, ``cv_...``, too; without evaluation sets there are no others.
    """
    crossed = [f"cv_{name}" for name in (*names, "loss")] if folds else []
    known = [*_full_names(names, evaluation_sets), *crossed]
    if wanted is None:
        return known[0]
    if wanted in crossed:
        return wanted
    if not evaluation_sets:
        raise _unknown("metric_for_curve", wanted, known)
    short = wanted.removeprefix("eval_")
    first = f"eval_{evaluation_sets[0]}_{short}" if evaluation_sets[0] else f"eval_{short}"
    for candidate in (f"eval_{short}", first):
        if candidate in known:
            return candidate
    raise _unknown("metric_for_curve", wanted, known)


def check_best_metric(names: Sequence[str], evaluation_sets: Sequence[str], wanted: str) -> None:
    """Raise ValueError unless `wanted`, ``metric_for_best_model``, is measured; it may leave out ``eval_`` alone."""
    known = _full_names(names, evaluation_sets)
    if f"eval_{wanted.removeprefix('eval_')}" not in known:
        raise _unknown("metric_for_best_model", wanted, known)


def _full_names(names: Sequence[str], evaluation_sets: Sequence[str]) -> list[str]:
    prefixes = [f"eval_{name}_" if name else "eval_" for name in evaluation_sets]
    return [prefix + name for prefix in prefixes for name in (*names, "loss")]


def _unknown(setting: str, wanted: str, known: list[str]) -> Refusal:
    near = did_you_mean(wanted if wanted.startswith("cv_") else f"eval_{wanted.removeprefix('eval_')}", known)
    return Refusal(f"Unknown `{setting}` {one_line(wanted)}.{near} It can be: {listed(known, 50)}.")


def is_greater_better(metric: str) -> bool:
    """Return whether `metric` should rise, by its name: errors and losses should fall."""
    return not metric.endswith(_LOWER_IS_BETTER)


def _load(name: str, targets: Targets, trusted: bool) -> Measure:
    here = _computed_here(name, targets)
    if here is not None and (not trusted or name in _NOT_IN_EVALUATE):
        return here
    known = [*_MEASURES, *(f"glue/{task}" for task in GLUE_METRICS)]
    if not trusted:
        raise Refusal(
            f"The metric {one_line(name)!r} is not one of this library.{did_you_mean(name, known)} `evaluate` can load "
            "others by running Python code of the Hub or of a folder: read that code, then pass "
            f"`--trust_remote_code true`. Without it there are: {', '.join(known)}."
        )
    if here is not None and constants.HF_HUB_OFFLINE:
        logger.info(f"Metric {one_line(name)}: computed with scikit-learn and scipy, the Hub is switched off.")
        return here
    try:
        return _from_evaluate(name, targets)
    except (OSError, ValueError, ImportError) as error:
        if here is None:
            raise Refusal(
                f"Cannot load the metric {one_line(name)} from `evaluate`.{did_you_mean(name, known)} "
                f"Without the Hub there are: {', '.join(known)}; a folder with a metric script works too."
            ) from error
        logger.info(f"Metric {one_line(name)}: computed with scikit-learn and scipy, `evaluate` cannot load it here.")
        return here


def _from_evaluate(name: str, targets: Targets) -> Measure:
    import evaluate  # takes seconds to import, so only where it is used

    if name.startswith("glue/"):
        module = evaluate.load("glue", name.removeprefix("glue/"), keep_in_memory=True)
    elif targets.problem_type == MULTI_LABEL:
        module = evaluate.load(name, "multilabel", keep_in_memory=True)
    else:
        module = evaluate.load(name, keep_in_memory=True)
    options = _averaging(targets) if name in ("f1", "precision", "recall") else {}

    def measure(predictions: Array, references: Array) -> Mapping[str, float]:
        result = module.compute(predictions=predictions, references=references, **options)
        return result if isinstance(result, Mapping) else {name: result}  # r_squared is a bare number there

    return measure


def _computed_here(name: str, targets: Targets) -> Measure | None:
    if name.startswith("glue/"):
        wanted = GLUE_METRICS.get(name.removeprefix("glue/"))
        return None if wanted is None else partial(_measure_all, wanted, {"average": "binary"})
    if name in _MEASURES:
        return partial(_measure_all, (name,), _averaging(targets))
    return None


def _measure_all(
    names: Sequence[str], averaging: Mapping[str, str], predictions: Array, references: Array
) -> dict[str, float]:
    return {name: _MEASURES[name](predictions, references, averaging) for name in names}


def _averaging(targets: Targets) -> dict[str, str]:
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


_MEASURES: dict[str, Callable[[Array, Array, Mapping[str, str]], float]] = {
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


def _interval(name: str, value: float, answers: Array, references: Array, targets: Targets) -> Interval | None:
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


def _decide(outputs: Array, targets: Targets) -> Array:
    """Return the answers behind the model's outputs: numbers, one class each, or a 0 or 1 for every label."""
    if targets.problem_type == REGRESSION:
        return outputs.reshape(len(outputs))
    if targets.problem_type == MULTI_LABEL:
        return np.asarray(outputs > 0, dtype=np.int64)
    return np.asarray(outputs.argmax(axis=-1))


def diverged(where: str) -> Refusal:
    """Return what to raise where the model's output is not finite."""
    return Refusal(
        f"The model's output for {where} is not finite: the training diverged. "
        "Lower `learning_rate`, or train in float32."
    )


def _require_finite(outputs: Array) -> None:
    bad = ~np.isfinite(outputs.astype(np.float64).reshape(len(outputs), -1)).all(axis=1)
    if bad.any():
        raise diverged(f"evaluation row {int(bad.argmax())}")


def _defined(name: str, value: float) -> float:
    if math.isnan(value):
        logger.warning(f"{one_line(name)} is not defined, as for predictions that are all equal: it counts as 0.0.")
        return 0.0
    return value
