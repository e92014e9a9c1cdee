"""Means, intervals, areas and labels saved, over seeds."""

import dataclasses
import json
import math

import pytest
from scipy import stats
from test_learning_curve import make_curve, make_study, with_rows

from hf_noise_al.experiments.comparison import Estimate, aubc, compare, labels_to_reach, mean_interval, to_json


def test_aubc_is_the_trapezoid_over_the_range():
    # (100 * (0.5 + 0.7) / 2 + 200 * (0.7 + 0.8) / 2) / 300 = (60 + 150) / 300
    assert aubc([100, 200, 400], [0.5, 0.7, 0.8]) == pytest.approx(0.7)


def test_aubc_of_a_flat_curve_is_its_height():
    assert aubc([7, 19, 23, 100], [0.25] * 4) == pytest.approx(0.25)


def test_aubc_of_one_point_is_its_value():
    assert aubc([100], [0.6]) == 0.6


def test_aubc_of_rounds_without_new_labels_is_their_mean():
    assert aubc([100, 100], [0.6, 0.8]) == pytest.approx(0.7)


@pytest.mark.parametrize(("labels", "values"), [([], []), ([1, 2], [0.5]), ([2, 1], [0.5, 0.6])])
def test_aubc_refuses_what_is_no_curve(labels, values):
    with pytest.raises(ValueError, match="Need one value for each of growing label counts"):
        aubc(labels, values)


def test_interval_is_the_t_interval_of_scipy():
    samples = [0.81, 0.84, 0.79, 0.90]
    estimate = mean_interval(samples)
    low, high = stats.t.interval(0.95, 3, loc=sum(samples) / 4, scale=stats.sem(samples))
    assert estimate.mean - estimate.half_width == pytest.approx(low)
    assert estimate.mean + estimate.half_width == pytest.approx(high)


def test_interval_of_two_samples_by_hand():
    # deviation 0.1 * sqrt(2) / 2, over sqrt(2) = 0.05; t(0.975, 1 degree) = 12.7062
    estimate = mean_interval([0.7, 0.8])
    assert estimate.mean == pytest.approx(0.75)
    assert estimate.half_width == pytest.approx(12.7062 * 0.05, rel=1e-5)


def test_one_sample_has_no_interval():
    assert mean_interval([0.5]) == Estimate(0.5, None)


def test_labels_to_reach_is_linear_between_budgets():
    assert labels_to_reach([100, 200, 400], [0.5, 0.7, 0.8], 0.75) == pytest.approx(300)
    assert labels_to_reach([100, 200, 400], [0.5, 0.7, 0.8], 0.55) == pytest.approx(125)


def test_labels_to_reach_at_the_budgets_themselves():
    assert labels_to_reach([100, 200, 400], [0.5, 0.7, 0.8], 0.7) == 200
    assert labels_to_reach([100, 200, 400], [0.5, 0.7, 0.8], 0.4) == 100


def test_labels_to_reach_takes_the_first_crossing_of_a_curve_that_falls_again():
    assert labels_to_reach([100, 200, 300, 400], [0.5, 0.7, 0.4, 0.9], 0.6) == pytest.approx(150)


def test_labels_to_reach_is_none_where_never_reached():
    assert labels_to_reach([100, 200], [0.5, 0.7], 0.71) is None


def test_labels_to_reach_of_a_metric_that_should_fall():
    assert labels_to_reach([100, 200], [0.9, 0.5], 0.6, greater_is_better=False) == pytest.approx(175)
    assert labels_to_reach([100, 200], [0.9, 0.5], 0.4, greater_is_better=False) is None


def test_labels_to_reach_does_not_interpolate_from_nan():
    assert labels_to_reach([100, 200], [math.nan, 0.7], 0.6) == 200


def test_one_comparison_per_acquisition_in_order_of_appearance():
    ours, random = compare(make_study())
    assert (ours.acquisition, random.acquisition) == ("noise_stability", "random")
    assert ours.seeds == random.seeds == (0, 1)
    assert ours.budgets == (100, 200, 400)


def test_mean_and_interval_per_budget():
    ours, _ = compare(make_study())
    assert ours.mean == pytest.approx((0.55, 0.725, 0.8))
    assert ours.half_width == pytest.approx((12.7062 * 0.05, 12.7062 * 0.025, 0.0), rel=1e-5)


def test_aubc_and_paired_difference_by_hand():
    ours, random = compare(make_study())
    areas = [(60 + 150) / 300, (67.5 + 155) / 300], [(50 + 130) / 300, (60 + 150) / 300]
    assert ours.aubc.mean == pytest.approx(sum(areas[0]) / 2)
    assert random.aubc.mean == pytest.approx(sum(areas[1]) / 2)
    differences = [ours - other for ours, other in zip(*areas, strict=True)]
    assert ours.aubc_difference.mean == pytest.approx(sum(differences) / 2)
    assert ours.aubc_difference.half_width == pytest.approx(
        12.7062 * abs(differences[0] - differences[1]) / 2, rel=1e-5
    )
    assert random.aubc_difference is None


def test_difference_pairs_seeds_whatever_the_order_of_the_runs():
    assert compare(make_study()[::-1])[1] == compare(make_study())[0]


def test_difference_uses_common_seeds_only():
    extra = make_curve([0.0, 0.0, 0.0], seed=7)
    with_extra, _ = compare([*make_study(), extra])
    assert with_extra.seeds == (0, 1, 7)
    assert with_extra.aubc_difference == compare(make_study())[0].aubc_difference


def test_no_common_seed_gives_no_difference():
    ours, _ = compare([make_curve([0.5, 0.7, 0.8], seed=0), make_curve([0.4, 0.6, 0.7], "random", seed=1)])
    assert ours.aubc_difference is None


def test_labels_needed_and_saved_beside_the_best_mean_of_the_baseline():
    ours, random = compare(make_study())
    # the best mean of random is 0.75 at 400 labels; ours has 0.725 at 200 and 0.8 at 400
    assert ours.target == random.target == pytest.approx(0.75)
    assert random.labels_needed == 400
    assert random.labels_saved_percent == 0
    assert ours.labels_needed == pytest.approx(200 + 200 / 3)
    assert ours.labels_saved_percent == pytest.approx(100 / 3)


def test_baseline_that_falls_again_is_measured_where_it_was_best():
    runs = [make_curve([0.9, 0.9, 0.9]), make_curve([0.5, 0.8, 0.6], "random")]
    ours, random = compare(runs)
    assert (random.target, random.labels_needed) == (0.8, 200)
    assert (ours.labels_needed, ours.labels_saved_percent) == (100, 50)


def test_best_of_the_baseline_not_reached():
    ours, _ = compare([make_curve([0.5, 0.6, 0.7]), make_curve([0.5, 0.6, 0.8], "random")])
    assert ours.labels_needed is None
    assert ours.labels_saved_percent is None


def test_metric_that_should_fall():
    runs = [make_curve([0.9, 0.5, 0.3]), make_curve([0.9, 0.7, 0.5], "random")]
    ours, random = compare([dataclasses.replace(run, greater_is_better=False) for run in runs])
    assert random.target == 0.5
    assert ours.labels_needed == 200
    assert ours.labels_saved_percent == pytest.approx(50)


def test_another_baseline():
    ours, random = compare(make_study(), baseline="noise_stability")
    assert ours.aubc_difference is None
    assert random.aubc_difference.mean == pytest.approx(-compare(make_study())[0].aubc_difference.mean)


def test_single_seed_has_means_without_intervals():
    ours, _ = compare([make_curve([0.5, 0.7, 0.8]), make_curve([0.4, 0.6, 0.7], "random")])
    assert ours.mean == (0.5, 0.7, 0.8)
    assert ours.half_width is None
    assert ours.aubc.half_width is None
    assert ours.aubc_difference == Estimate(pytest.approx(0.1), None)


def test_single_run_without_a_baseline():
    (ours,) = compare([make_curve([0.5, 0.7, 0.8])])
    assert ours.aubc == Estimate(pytest.approx(0.7), None)
    assert (ours.aubc_difference, ours.target, ours.labels_needed, ours.labels_saved_percent) == (None,) * 4


def test_nan_round_spoils_its_own_budget_only():
    ours, random = compare([make_curve([math.nan, 0.7, 0.8]), make_curve([math.nan, 0.6, 0.7], "random")])
    assert math.isnan(ours.mean[0])
    assert ours.mean[1:] == (0.7, 0.8)
    assert random.target == 0.7
    assert ours.labels_needed == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [("task", "text_regression"), ("dataset", "rte"), ("model", "bert"), ("metric", "eval_loss")],
)
def test_runs_that_differ_are_refused_by_field(field, value):
    runs = [make_curve([0.5, 0.7, 0.8]), make_curve([0.4, 0.6, 0.7], "random", **{field: value})]
    with pytest.raises(ValueError, match=f"Cannot compare runs of different `{field}`: .* and {value}"):
        compare(runs)


def test_different_budgets_are_refused():
    runs = [make_curve([0.5, 0.7, 0.8]), make_curve([0.4, 0.6], "random", budgets=(100, 200))]
    with pytest.raises(ValueError, match=r"different `num_labeled`: \(100, 200, 400\) and \(100, 200\)"):
        compare(runs)


def test_same_acquisition_and_seed_twice_is_refused():
    runs = [make_curve([0.5, 0.7, 0.8], seed=4), make_curve([0.5, 0.6, 0.8], seed=5), make_curve([0, 0, 0], seed=4)]
    with pytest.raises(ValueError, match="Found 2 runs of noise_stability with seed 4"):
        compare(runs)


@pytest.mark.parametrize("runs", [[], [make_curve([], budgets=())]])
def test_nothing_to_compare_is_refused(runs):
    with pytest.raises(ValueError, match="pass at least one run, each with at least one finished round"):
        compare(runs)


def test_json_holds_every_field():
    ours = json.loads(to_json(compare(make_study())))[0]
    assert set(ours) == {field.name for field in dataclasses.fields(compare(make_study())[0])}
    assert ours["mean"] == pytest.approx([0.55, 0.725, 0.8])
    assert ours["aubc"]["mean"] == pytest.approx(compare(make_study())[0].aubc.mean)


def test_json_has_null_for_nan():
    document = json.loads(to_json(compare([make_curve([math.nan, 0.7, 0.8])])), parse_constant=pytest.fail)
    assert document[0]["mean"] == [None, 0.7, 0.8]


def test_a_comparison_says_on_how_many_rows_and_one_seed_has_the_interval_of_them():
    runs = [with_rows(make_curve([0.5, 0.7, 0.8], seed=seed), [20 + seed] * 3) for seed in (0, 1)]
    old = make_curve([0.5, 0.6, 0.7], "random")
    ours, theirs = compare([*runs, old])
    assert ours.num_rows == (20, 20, 20) and theirs.num_rows == (None, None, None)
    assert ours.intervals == (None, None, None), "of two seeds there is the interval of seeds"
    (alone,) = compare(runs[:1])
    assert alone.intervals == runs[0].intervals and None not in alone.intervals
    assert json.loads(to_json([alone]))[0]["num_rows"] == [20, 20, 20]
