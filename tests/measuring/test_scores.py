"""Scores: what one round measured, on how many rows, with which intervals."""

import numpy as np
import pytest
from transformers import EvalPrediction

from hf_noise_al.measuring.scores import Scores

PREDICTION = EvalPrediction(np.zeros((3, 2)), np.zeros(3))


class WithIntervals:
    """A `compute_metrics` that knows how sure its numbers are."""

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        return {"accuracy": 0.5, "odd": 1.0}

    def intervals(self, prediction: EvalPrediction, values: dict[str, float]) -> dict[str, tuple[float, float]]:
        assert prediction is PREDICTION and values == self(prediction)
        return {"accuracy": (0.25, 0.75), "odd": (0.0, float("nan"))}


def test_numbers_of_one_evaluation_get_their_rows_and_intervals() -> None:
    scores = Scores()
    values = {"eval_accuracy": np.float64(0.5), "eval_odd": 1, "eval_loss": 0.7, "eval_text": "x"}
    scores.add("eval", values, 3, PREDICTION, WithIntervals())
    assert scores.metrics == {"eval_accuracy": 0.5, "eval_odd": 1.0, "eval_loss": 0.7}
    assert scores.num_rows == dict.fromkeys(scores.metrics, 3)
    assert scores.intervals == {"eval_accuracy": [0.25, 0.75]}, "an end that is not finite is none"


@pytest.mark.parametrize("compute", [None, len])
def test_metrics_without_intervals_have_rows_all_the_same(compute: object) -> None:
    scores = Scores()
    scores.add("eval_a", {"eval_a_loss": 0.5}, 7, PREDICTION, compute)  # type: ignore[arg-type]
    assert (scores.num_rows, scores.intervals) == ({"eval_a_loss": 7}, {})


def test_only_and_beside_keep_what_belongs_to_the_metrics() -> None:
    scores = Scores({"a": 1.0, "b": 2.0}, {"a": 3, "b": 3}, {"b": [1.0, 3.0]})
    assert scores.only({"a": 1.5}) == Scores({"a": 1.5}, {"a": 3}, {})
    assert scores.only({"a": 1.0}).beside(scores.only({"b": 2.0})) == scores
