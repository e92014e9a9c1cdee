"""Metrics of tagged words: precision, recall and F1 of whole entities, as seqeval has them, and accuracy of words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from huggingface_hub import constants
from numpy.typing import NDArray
from torch import Tensor
from transformers import EvalPrediction
from transformers.utils import logging

from ...measuring.intervals import Interval
from ...refusals import Refusal
from ...settings.recipe import did_you_mean
from ..metrics import diverged
from ..score_intervals import RATIOS, draw_counts, interval_of, recall
from ..targets import Targets
from .word_tokens import NO_TAG

logger = logging.get_logger(__name__)

NOT_FINITE = -1
ENTITY_METRICS = ("f1", "precision", "recall")
_KNOWN = ("seqeval", *ENTITY_METRICS, "accuracy")
Sentences: TypeAlias = list[list[str]]
Measure: TypeAlias = Callable[[Sentences, Sentences], dict[str, float]]
"""(predictions, references) -> numbers by name."""


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Return the entities of a sentence in IOB2: (type, first word, word after the last).

    As in the evaluation of CoNLL: an entity also begins at an ``I-`` tag after ``O`` or after another type.

    Example:
        >>> sorted(entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]))
        [('LOC', 3, 4), ('LOC', 4, 5), ('PER', 0, 2)]
    """
    found, start, current = set(), 0, None
    for word, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        inside = None if prefix == "O" else kind
        if current is not None and (prefix == "B" or inside != current):
            found.add((current, start, word))
            current = None
        if inside is not None and current is None:
            start, current = word, inside
    return found


def measure_entities(predictions: Sentences, references: Sentences) -> dict[str, float]:
    """Return F1, precision and recall of exact entities over all sentences, and the share of words that are right.

    A number with nothing to divide by is 0.0.
    """
    correct, found, wanted, right, words = count_entities(predictions, references).sum(axis=0).tolist()
    return {
        "f1": 2 * correct / max(found + wanted, 1),
        "precision": correct / max(found, 1),
        "recall": correct / max(wanted, 1),
        "accuracy": right / max(words, 1),
    }


def count_entities(predictions: Sentences, references: Sentences) -> NDArray[np.int64]:
    """Return entities that are correct, found and wanted, words that are right, and words, by sentence: (n, 5)."""
    rows = []
    for predicted, reference in zip(predictions, references, strict=True):
        ours, theirs = entities(predicted), entities(reference)
        right = sum(a == b for a, b in zip(predicted, reference, strict=True))
        rows.append((len(ours & theirs), len(ours), len(theirs), right, len(reference)))
    return np.array(rows, dtype=np.int64).reshape(-1, 5)


@dataclass(frozen=True)
class WordMetrics:
    """The numbers of tagged words, for `Trainer`'s ``compute_metrics``."""

    wanted: tuple[str, ...]
    class_names: tuple[str, ...]
    measure: Measure

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Return the metrics of predicted class numbers, (N, T), where ``label_ids`` is not -100."""
        found = self.measure(*self._sentences(prediction))
        return {name: float(found[name]) for name in self.wanted}

    def intervals(self, prediction: EvalPrediction, values: Mapping[str, float]) -> dict[str, Interval]:
        """Return the 95 % intervals of `values`, the metrics of `prediction`; sentences are weighed whole.

        See `hf_noise_al.tasks.score_intervals`. A number of others' code has one where it is the number known here.
        """
        sentences = self._sentences(prediction)
        rows, ours = count_entities(*sentences), measure_entities(*sentences)
        correct, found, wanted, right, words = (rows[:, [column]] for column in range(5))
        entity_draws, word_draws = draw_counts(correct, wanted, found), draw_counts(right, words, words)
        draws = {name: measure(entity_draws) for name, measure in RATIOS.items()} | {"accuracy": recall(word_draws)}
        return {
            name: interval_of(value, draws[name][:, 0])
            for name, value in values.items()
            if name in draws and np.isclose(value, ours[name])
        }

    def names(self) -> tuple[str, ...]:
        """Return the names of the numbers."""
        return self.wanted

    def _sentences(self, prediction: EvalPrediction) -> tuple[Sentences, Sentences]:
        """Return the tags that were predicted and those that are right, where there is a label."""
        chosen, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        there = labels != NO_TAG
        broken = ((chosen == NOT_FINITE) & there).any(axis=1)
        if broken.any():
            raise diverged(f"evaluation row {int(broken.argmax())}")
        return self._named(chosen, there), self._named(labels, there)

    def _named(self, numbers: Any, there: Any) -> Sentences:
        return [[self.class_names[number] for number in row[words]] for row, words in zip(numbers, there, strict=True)]


def load_word_metrics(names: Sequence[str], targets: Targets, trusted: bool = False) -> WordMetrics:
    """Return the metrics `names`: ``seqeval`` for all of f1, precision, recall and accuracy, or some of these.

    Where code of others is `trusted`, they are those of `evaluate`, if it can load them; else they are computed here.

    Raises:
        ValueError: another metric, or entities are to be measured and the names of the tags are not IOB2.
    """
    unknown = [name for name in names if name not in _KNOWN]
    if unknown:
        raise Refusal(
            f"Unknown metric {unknown[0]} of tagged words.{did_you_mean(unknown[0], list(_KNOWN))} "
            f"There are: {', '.join(_KNOWN)}."
        )
    wanted = dict.fromkeys(
        n for name in names for n in ((*ENTITY_METRICS, "accuracy") if name == "seqeval" else (name,))
    )
    other = [name for name in targets.class_names if not re.fullmatch(r"O|[BI](-.+)?", name)]
    if other and set(wanted) != {"accuracy"}:
        raise Refusal(
            f"Entities cannot be read from tags such as `{other[0]}`: they must be O, B-... or I-... (IOB2). Give the "
            "tags their names in order with `class_names`, or set `metric: accuracy`, which counts words."
        )
    return WordMetrics(
        tuple(wanted), targets.class_names, _load_seqeval() if trusted and not other else measure_entities
    )


def choose_classes(logits: Any, labels: Tensor) -> Tensor:
    """Return the most likely class of every token, so that no logits are kept: (B, T, C) -> (B, T).

    A token whose logits are not finite gets -1.
    """
    outputs: Tensor = logits[0] if isinstance(logits, tuple) else logits
    return torch.where(outputs.isfinite().all(dim=-1), outputs.argmax(dim=-1), NOT_FINITE)


def _load_seqeval() -> Measure:
    if constants.HF_HUB_OFFLINE:
        logger.info("Metric seqeval: computed here, the Hub is switched off.")
        return measure_entities
    try:
        import evaluate  # takes seconds to import, so only where it is used

        module = evaluate.load("seqeval", keep_in_memory=True)
    except (OSError, ValueError, ImportError):
        logger.info("Metric seqeval: computed here, `evaluate` cannot load it.")
        return measure_entities

    def measure(predictions: Sentences, references: Sentences) -> dict[str, float]:
        found = module.compute(predictions=predictions, references=references, zero_division=0)
        return {name: float(found[f"overall_{name}"]) for name in (*ENTITY_METRICS, "accuracy")}

    return measure
