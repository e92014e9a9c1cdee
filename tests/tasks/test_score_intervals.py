"""Intervals of scores: right where a formula is known, never of no width on few rows, fast."""

import time

import numpy as np
import pytest
from scipy import stats
from transformers import EvalPrediction

from hf_noise_al.pool.problem_type import MULTI_LABEL, REGRESSION
from hf_noise_al.tasks import Targets
from hf_noise_al.tasks.masks.segmentation_metrics import load_segmentation_metrics
from hf_noise_al.tasks.metrics import load_metrics
from hf_noise_al.tasks.score_intervals import (
    draw_classes,
    draw_counts,
    error_interval,
    f1,
    interval_of_mean,
    pearson_interval,
    r2_interval,
    recall,
    spearman_interval,
)
from hf_noise_al.tasks.targets import SINGLE_LABEL
from hf_noise_al.tasks.words.entities import load_word_metrics

TWO = Targets(SINGLE_LABEL, ("no", "yes"))
THREE = Targets(SINGLE_LABEL, ("a", "b", "c"))
SETS = Targets(MULTI_LABEL, ("a", "b", "c"))
NUMBER = Targets(REGRESSION)
TAGS = Targets("tags", ("O", "B-X", "I-X"))
MASKS = Targets("masks", ("sky", "road", "never"))


def measured(metrics, predictions, labels):
    """Return the values of `metrics` and their intervals."""
    prediction = EvalPrediction(predictions, labels)
    values = metrics(prediction)
    return values, metrics.intervals(prediction, values)


def one_hot(classes, size):
    return np.eye(size)[classes]


def test_accuracy_has_the_interval_of_wilson():
    values, intervals = measured(load_metrics(["accuracy"], TWO), one_hot([0, 1, 1, 0, 1, 0], 2), [0, 1, 1, 0, 1, 0])
    assert values == {"accuracy": 1.0}
    assert intervals["accuracy"] == pytest.approx((0.6097, 1.0), abs=1e-4)


def test_the_draws_of_a_share_are_those_of_jeffreys():
    """Where every row is one answer of one class, the posterior is Beta(right + 1/2, wrong + 1/2)."""
    right = np.array([1] * 4 + [0] * 2)[:, None]
    draws = recall(draw_counts(right, np.ones((6, 1)), right))[:, 0]
    expected = stats.beta(4.5, 2.5).ppf([0.025, 0.5, 0.975])
    assert np.percentile(draws, [2.5, 50, 97.5]) == pytest.approx(expected, abs=0.03)


def test_the_draws_of_f1_are_those_of_goutte_and_gaussier():
    """F1 is U / (U + V), U of Gamma(TP + 1/2) twice as large, V of Gamma(FP + FN + 1)."""
    predictions, references = np.array([1, 1, 1, 1, 0, 0, 0, 0]), np.array([1, 1, 1, 0, 1, 1, 0, 0])
    draws = f1(draw_classes(predictions, references, np.arange(2)))[:, 1]
    generator = np.random.default_rng(5)
    above, below = 2 * generator.standard_gamma(3.5, 100_000), generator.standard_gamma(4.0, 100_000)
    expected = np.percentile(above / (above + below), [2.5, 50, 97.5])
    assert np.percentile(draws, [2.5, 50, 97.5]) == pytest.approx(expected, abs=0.03)


def perfect(targets, count):
    if targets is SETS:
        labels = np.tile(np.eye(3), (count, 1))[:count]
        return ["accuracy", "f1", "precision", "recall"], labels * 2 - 1, labels
    classes = np.arange(count) % targets.num_labels
    return (
        ["accuracy", "f1", "precision", "recall", "matthews_correlation"],
        one_hot(classes, targets.num_labels),
        classes,
    )


@pytest.mark.parametrize("targets", [TWO, THREE, SETS])
def test_six_rows_that_are_all_right_say_little(targets):
    names, predictions, labels = perfect(targets, 6)
    values, intervals = measured(load_metrics(names, targets), predictions, labels)
    assert set(intervals) == set(values) == set(names)
    for name, (low, high) in intervals.items():
        assert high == values[name] == 1.0
        assert 0.2 < low < 0.85, name


@pytest.mark.parametrize("targets", [TWO, THREE, SETS])
def test_a_thousand_rows_say_much_and_take_little_time(targets):
    generator = np.random.default_rng(0)
    names, _, labels = perfect(targets, 1000)
    outputs = generator.normal(size=(1000, targets.num_labels))
    metrics = load_metrics(names, targets)
    prediction = EvalPrediction(outputs, labels)
    values = metrics(prediction)
    started = time.process_time()
    intervals = metrics.intervals(prediction, values)
    assert time.process_time() - started < 1.5  # about 0.1 s on a free core
    for name, (low, high) in intervals.items():
        assert low < values[name] < high and high - low < 0.16


def test_the_recall_of_a_class_of_three_rows_is_that_of_three_rows():
    classes = np.array([1] * 3 + [0] * 57)
    _, intervals = measured(load_metrics(["recall"], TWO), one_hot(classes, 2), classes)
    assert intervals["recall"][0] < 0.6


def test_a_mean_over_many_classes_that_are_all_right_is_not_drawn_down_by_imagined_rows():
    targets = Targets(SINGLE_LABEL, tuple(map(str, range(100))))
    classes = np.arange(200) % 100
    _, intervals = measured(load_metrics(["f1"], targets), one_hot(classes, 100), classes)
    assert 0.93 < intervals["f1"][0] < 0.995 and intervals["f1"][1] == 1.0


def test_a_mean_over_classes_goes_as_far_up_as_down_within_its_bounds():
    draws = np.linspace(0.2, 0.8, 1001)[:, None]
    low, high = interval_of_mean(0.7, draws)
    assert low == pytest.approx(0.7 - 0.485, abs=0.001) and high == 1.0


def test_classes_that_occur_nowhere_change_nothing():
    classes = np.array([0, 1, 0, 1, 1, 0])
    many = Targets(SINGLE_LABEL, tuple("abcdefgh"))
    found = [
        measured(load_metrics(["f1"], targets), one_hot(classes, targets.num_labels), classes)[1]["f1"]
        for targets in (THREE, many)
    ]
    assert found[0] == found[1]


def test_an_error_has_students_interval_of_its_logarithm():
    errors = np.array([1.0, 2.0, 3.0, 6.0])
    half = stats.t.ppf(0.975, 3) * errors.std(ddof=1) / errors.mean() / 2
    assert error_interval(errors) == pytest.approx((3 / np.exp(half), 3 * np.exp(half)))


def test_errors_are_intervals_of_their_own_units():
    generator = np.random.default_rng(0)
    labels = generator.normal(size=40)
    outputs = (labels + generator.normal(size=40))[:, None]
    names = ["mse", "rmse", "mae", "r2", "r_squared", "pearson", "pearsonr", "spearmanr"]
    values, intervals = measured(load_metrics(names, NUMBER), outputs, labels)
    assert set(intervals) == set(names)
    assert all(low < values[name] < high for name, (low, high) in intervals.items())
    assert intervals["rmse"] == pytest.approx(np.sqrt(intervals["mse"]))
    assert intervals["r2"] == intervals["r_squared"] and intervals["r2"][1] < 1
    fisher = np.arctanh(values["pearson"]) - 1.96 / np.sqrt(37)
    assert intervals["pearson"][0] <= np.tanh(fisher) + 1e-3


@pytest.mark.parametrize("names", [["mse", "mae", "rmse"], ["r2", "pearson", "spearmanr"]])
def test_predictions_without_any_error_have_no_interval(names):
    labels = np.arange(6.0)
    assert measured(load_metrics(names, NUMBER), labels[:, None], labels)[1] == {}


def test_what_so_few_rows_cannot_say_is_left_out():
    one = np.array([2.0])
    assert error_interval(one) is None and r2_interval(one, one + 1) is None
    three = np.array([1.0, 2.0, 4.0])
    assert pearson_interval(0.9, three, three**2) is None and spearman_interval(0.5, 3) is None


def test_a_constant_prediction_has_no_correlation_and_no_interval():
    values, intervals = measured(load_metrics(["pearson", "mae"], NUMBER), np.ones((6, 1)), np.arange(6.0))
    assert values["pearson"] == 0.0 and list(intervals) == ["mae"]


def test_a_number_that_others_define_otherwise_has_no_interval():
    metrics = load_metrics(["accuracy"], TWO)
    prediction = EvalPrediction(one_hot([0, 1], 2), np.array([0, 1]))
    assert metrics.intervals(prediction, {"accuracy": 0.25, "theirs": 0.5}) == {}


def test_sentences_are_weighed_whole():
    labels = np.array([[1, 2, 0], [0, 1, -100]] * 3)
    values, intervals = measured(load_word_metrics(["seqeval"], TAGS), labels, labels)
    assert set(values.values()) == {1.0} and set(intervals) == set(values)
    assert all(0.3 < low < 0.85 and high == 1.0 for low, high in intervals.values())


def test_images_are_weighed_whole_and_classes_that_occur_nowhere_have_no_interval():
    metrics = load_segmentation_metrics(["mean_iou"], MASKS)
    counts = np.array([[[90, 0, 0], [0, 10, 0], [0, 0, 0]]] * 6)
    values, intervals = measured(metrics, counts, np.zeros((6, 1)))
    assert set(intervals) == set(values) and "iou_never" not in values
    assert all(0.3 < low < 0.85 and high == 1.0 for low, high in intervals.values())
    assert measured(metrics, counts, np.zeros((6, 1)))[1] == intervals, "the images of the set before are gone"


def test_images_of_several_batches_count_together():
    metrics = load_segmentation_metrics(["mean_iou"], MASKS)
    counts = np.random.default_rng(0).integers(0, 50, size=(8, 3, 3))
    values, whole = measured(metrics, counts, np.zeros((8, 1)))
    metrics(EvalPrediction(counts[:5], np.zeros((5, 1))), compute_result=False)
    assert metrics(EvalPrediction(counts[5:], np.zeros((3, 1)))) == values
    assert metrics.intervals(EvalPrediction(counts[5:], np.zeros((3, 1))), values) == whole


def test_masks_of_no_known_pixel_have_the_widest_interval():
    metrics = load_segmentation_metrics(["mean_iou"], MASKS)
    values, intervals = measured(metrics, np.zeros((2, 3, 3), dtype=int), np.zeros((2, 1)))
    assert set(intervals) <= set(values)
