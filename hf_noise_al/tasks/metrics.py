"""Metrics by their names in `evaluate`: computed here, or loaded from there where code of others is trusted.

What `evaluate` loads is Python, from the Hub or from a folder, and it runs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from huggingface_hub import constants
from transformers import EvalPrediction
from transformers.utils import logging

from ..files.shown_text import one_line
from ..measuring.intervals import Interval
from ..pool.problem_type import MULTI_LABEL, REGRESSION
from ..refusals import Refusal
from ..settings.recipe import did_you_mean
from .measures import GLUE_METRICS, MEASURES, Array, Measure, averaging_of, interval
from .targets import Targets

logger = logging.get_logger(__name__)
_NOT_IN_EVALUATE = ("rmse", "r2")


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
        averaging = averaging_of(self.targets)
        found: dict[str, Interval | None] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, value in values.items():
                if name in MEASURES and np.isclose(MEASURES[name](answers, references, averaging), value):
                    found[name] = interval(name, value, answers, references, self.targets)
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


def _load(name: str, targets: Targets, trusted: bool) -> Measure:
    here = _computed_here(name, targets)
    if here is not None and (not trusted or name in _NOT_IN_EVALUATE):
        return here
    known = [*MEASURES, *(f"glue/{task}" for task in GLUE_METRICS)]
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
    options = averaging_of(targets) if name in ("f1", "precision", "recall") else {}

    def measure(predictions: Array, references: Array) -> Mapping[str, float]:
        result = module.compute(predictions=predictions, references=references, **options)
        return result if isinstance(result, Mapping) else {name: result}  # r_squared is a bare number there

    return measure


def _computed_here(name: str, targets: Targets) -> Measure | None:
    if name.startswith("glue/"):
        wanted = GLUE_METRICS.get(name.removeprefix("glue/"))
        return None if wanted is None else partial(_measure_all, wanted, {"average": "binary"})
    if name in MEASURES:
        return partial(_measure_all, (name,), averaging_of(targets))
    return None


def _measure_all(
    names: Sequence[str], averaging: Mapping[str, str], predictions: Array, references: Array
) -> dict[str, float]:
    return {name: MEASURES[name](predictions, references, averaging) for name in names}


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
