"""Precision, recall and F1 of entities against cases counted by hand, and the numbers of seqeval where it is there."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from hf_noise_al.tasks.words import entities as module
from hf_noise_al.tasks.words.entities import choose_classes, entities, load_word_metrics, measure_entities
from hf_noise_al.tasks.words.tags import TAGS, TagTargets

NAMES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TARGETS = TagTargets(TAGS, NAMES)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O O", []),
        ("B-PER I-PER O", [("PER", 0, 2)]),
        ("O B-PER", [("PER", 1, 2)]),
        ("B-PER B-PER I-PER", [("PER", 0, 1), ("PER", 1, 3)]),  # adjacent
        ("I-PER I-PER O", [("PER", 0, 2)]),  # begins without B-
        ("O I-LOC B-LOC", [("LOC", 1, 2), ("LOC", 2, 3)]),
        ("B-PER I-LOC I-LOC", [("PER", 0, 1), ("LOC", 1, 3)]),  # changes its type
        ("B-PER O I-PER", [("PER", 0, 1), ("PER", 2, 3)]),
        ("B-a-b I-a-b B-a", [("a-b", 0, 2), ("a", 2, 3)]),
        ("B I O", [("", 0, 2)]),
        ("", []),
    ],
)
def test_entities_of_a_sentence_by_hand(tags: str, expected: list[Any]) -> None:
    assert entities(tags.split()) == set(expected)


@pytest.mark.parametrize(
    ("predicted", "reference", "correct", "found", "wanted"),
    [
        ("B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC", 2, 2, 2),
        ("B-PER O O B-LOC", "B-PER I-PER O B-LOC", 1, 2, 2),  # too short is wrong
        ("B-LOC I-LOC O O", "B-PER I-PER O B-LOC", 0, 1, 2),  # another type is wrong
        ("I-PER I-PER O O", "B-PER I-PER O B-LOC", 1, 1, 2),  # I- for B- is right, as in the evaluation of CoNLL
        ("B-PER B-PER O B-LOC", "B-PER I-PER O B-LOC", 1, 3, 2),
        ("O O O O", "B-PER I-PER O B-LOC", 0, 0, 2),
        ("B-PER O O O", "O O O O", 0, 1, 0),
        ("O O O O", "O O O O", 0, 0, 0),
    ],
)
def test_only_exact_entities_count(predicted: str, reference: str, correct: int, found: int, wanted: int) -> None:
    result = measure_entities([predicted.split()], [reference.split()])
    precision, recall = (correct / n if n else 0.0 for n in (found, wanted))
    assert (result["precision"], result["recall"]) == (precision, recall)
    assert result["f1"] == pytest.approx(2 * precision * recall / (precision + recall) if correct else 0.0)
    same = sum(a == b for a, b in zip(predicted.split(), reference.split(), strict=True))
    assert result["accuracy"] == same / 4


def test_entities_are_counted_over_all_sentences_together() -> None:
    result = measure_entities(
        [["B-PER", "O"], ["B-LOC"], ["O"]],
        [["B-PER", "O"], ["B-PER"], ["B-LOC"]],
    )
    assert (result["precision"], result["recall"], result["accuracy"]) == (1 / 2, 1 / 3, 1 / 2)
    assert result["f1"] == pytest.approx(2 * 1 / (2 + 3))


def test_the_numbers_are_those_of_seqeval() -> None:
    seqeval = pytest.importorskip("seqeval.metrics", reason="the package seqeval is not installed")
    drawn = np.random.default_rng(0)
    predictions, references = ([list(drawn.choice(NAMES, 9)) for _ in range(60)] for _ in range(2))
    found = measure_entities(predictions, references)
    for name in ("precision", "recall", "f1"):
        assert found[name] == pytest.approx(getattr(seqeval, f"{name}_score")(references, predictions))
    assert found["accuracy"] == pytest.approx(seqeval.accuracy_score(references, predictions))


# ---- for the trainer -----------------------------------------------------------------------------------------------

LABELS = np.array([[-100, 1, -100, 2, 0], [-100, 3, 0, -100, -100]])
RIGHT = EvalPrediction(np.where(LABELS < 0, 4, LABELS), LABELS)


def test_only_words_are_measured() -> None:
    assert load_word_metrics(["seqeval"], TARGETS)(RIGHT) == {"f1": 1, "precision": 1, "recall": 1, "accuracy": 1}
    wrong = EvalPrediction(np.where(LABELS == 2, 0, RIGHT.predictions), LABELS)
    found = load_word_metrics(["seqeval"], TARGETS)(wrong)
    assert found == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "accuracy": 4 / 5}


def test_metrics_come_in_the_order_asked_for() -> None:
    assert load_word_metrics(["seqeval"], TARGETS).names() == ("f1", "precision", "recall", "accuracy")
    metrics = load_word_metrics(["recall", "f1"], TARGETS)
    assert metrics.names() == tuple(metrics(RIGHT)) == ("recall", "f1")


def test_classes_are_chosen_before_logits_are_gathered() -> None:
    logits = torch.zeros(1, 3, 5)
    logits[0, 0, 3] = 1
    logits[0, 2, 1] = float("nan")
    assert choose_classes(logits, torch.zeros(1, 3)).tolist() == [[3, 0, -1]]
    assert choose_classes((logits, None), torch.zeros(1, 3)).tolist() == [[3, 0, -1]]


def test_outputs_that_are_not_finite_are_refused_with_the_row() -> None:
    metrics = load_word_metrics(["seqeval"], TARGETS)
    broken = np.array([[0, 1, 0, 2, 0], [0, -1, 0, -1, -1]])
    with pytest.raises(ValueError, match="output for evaluation row 1 is not finite: the training diverged"):
        metrics(EvalPrediction(broken, LABELS))
    metrics(EvalPrediction(np.where(LABELS < 0, -1, LABELS), LABELS))  # beside words nothing is looked at


def test_tags_that_are_not_iob2_have_accuracy_only() -> None:
    numbers = TagTargets(TAGS, ("0", "1"))
    with pytest.raises(
        ValueError, match=r"tags such as `0`: they must be O, B-\.\.\. or I-\.\.\. \(IOB2\)\. .*class_names"
    ):
        load_word_metrics(["seqeval"], numbers)
    with pytest.raises(ValueError, match="tags such as `S-PER`"):
        load_word_metrics(["f1"], TagTargets(TAGS, ("O", "B-PER", "S-PER")))
    found = load_word_metrics(["accuracy"], numbers)(EvalPrediction(np.array([[1, 1]]), np.array([[1, 0]])))
    assert found == {"accuracy": 0.5}


def test_an_unknown_metric_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(
        ValueError, match=r"Unknown metric sqeval of tagged words\. Did you mean `seqeval`\? There are: "
    ):
        load_word_metrics(["sqeval"], TARGETS)


def test_seqeval_of_evaluate_is_used_where_it_can_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    class Loaded:
        def compute(self, **arguments: object) -> dict[str, Any]:
            given.append(arguments)
            return {"PER": {"f1": 1.0}, **{f"overall_{n}": 0.25 for n in ("f1", "precision", "recall", "accuracy")}}

    monkeypatch.setattr(module.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("evaluate.load", lambda name, **options: given.append(name) or Loaded())
    assert load_word_metrics(["seqeval"], TARGETS).measure is measure_entities, "code of others is not trusted"
    assert load_word_metrics(["seqeval"], TARGETS, trusted=True)(RIGHT) == dict.fromkeys(
        ("f1", "precision", "recall", "accuracy"), 0.25
    )
    assert given[0] == "seqeval"
    assert given[1]["predictions"] == given[1]["references"] == [["B-PER", "I-PER", "O"], ["B-LOC", "O"]]


@pytest.mark.parametrize("offline", [True, False])
def test_computing_here_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, offline: bool
) -> None:
    def fail(name: str, **options: object) -> None:
        raise ImportError("seqeval")

    monkeypatch.setattr(module.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("evaluate.load", fail)
    with caplog.at_level(logging.INFO, "hf_noise_al"):
        assert load_word_metrics(["seqeval"], TARGETS, trusted=True).measure is measure_entities
    assert "Metric seqeval: computed here" in caplog.text
