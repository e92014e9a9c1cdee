import dataclasses
import json
import math
import os

import pytest
from scipy import stats

from hf_noise_al.experiments.learning_curve import (
    Estimate,
    LearningCurve,
    aubc,
    compare,
    format_estimate,
    format_rounds,
    format_table,
    labels_to_reach,
    mean_interval,
    to_json,
)


def make_curve(values, acquisition="noise_stability", seed=0, budgets=(100, 200, 400), **changes):
    points = [
        {
            "round": i,
            "num_labeled": budget,
            "query_size": 100,
            "train_seconds": 1.25 + i,
            "acquisition_seconds": 2.5,
            "metrics": {"eval_accuracy": value, "eval_loss": 9.0},
        }
        for i, (budget, value) in enumerate(zip(budgets, values, strict=True))
    ]
    curve = LearningCurve(
        task="text_classification",
        dataset="mrpc",
        model="minilm",
        acquisition=acquisition,
        seed=seed,
        metric="eval_accuracy",
        greater_is_better=True,
        points=tuple(points),
    )
    return dataclasses.replace(curve, **changes)


# One run as data and as a file


def test_reads_labels_and_values_of_the_chosen_metric():
    curve = make_curve([0.5, 0.7, 0.8])
    assert curve.num_labeled == (100, 200, 400)
    assert curve.values == (0.5, 0.7, 0.8)
    assert dataclasses.replace(curve, metric="eval_loss").values == (9.0, 9.0, 9.0)


def test_metric_that_was_not_measured_is_named_with_those_that_were():
    with pytest.raises(ValueError, match="No metric `eval_f1` in round 0; it has eval_accuracy, eval_loss"):
        _ = make_curve([0.5, 0.7, 0.8], metric="eval_f1").values


@pytest.mark.parametrize("as_folder", [True, False])
def test_save_and_load_give_the_same_curve(tmp_path, as_folder):
    curve = make_curve([0.5, 0.7, 0.8])
    file = tmp_path / "new" / "learning_curve.json"
    curve.save(file)
    assert LearningCurve.load(file.parent if as_folder else file) == curve


def test_file_has_the_agreed_keys(tmp_path):
    make_curve([0.5, 0.7, 0.8], seed=3).save(tmp_path / "learning_curve.json")
    document = json.loads((tmp_path / "learning_curve.json").read_text())
    assert {key: value for key, value in document.items() if key != "points"} == {
        "version": 1,
        "task": "text_classification",
        "dataset": "mrpc",
        "model": "minilm",
        "acquisition": "noise_stability",
        "seed": 3,
        "metric": "eval_accuracy",
        "greater_is_better": True,
    }
    assert document["points"][1] == {
        "round": 1,
        "num_labeled": 200,
        "query_size": 100,
        "train_seconds": 2.25,
        "acquisition_seconds": 2.5,
        "metrics": {"eval_accuracy": 0.7, "eval_loss": 9.0},
    }


def test_save_keeps_the_old_file_whole_when_it_cannot_finish(tmp_path, monkeypatch):
    file = tmp_path / "learning_curve.json"
    make_curve([0.5, 0.7, 0.8]).save(file)
    before = file.read_bytes()

    def fail(*names):
        raise OSError("killed")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="killed"):
        make_curve([0.1, 0.2, 0.3]).save(file)
    assert file.read_bytes() == before


def test_save_leaves_nothing_but_the_file(tmp_path):
    make_curve([0.5, 0.7, 0.8]).save(tmp_path / "learning_curve.json")
    make_curve([0.5, 0.7, 0.9]).save(tmp_path / "learning_curve.json")
    assert [path.name for path in tmp_path.iterdir()] == ["learning_curve.json"]


def test_nan_becomes_null_in_the_file_and_nan_again(tmp_path):
    make_curve([math.nan, 0.7, math.inf]).save(tmp_path / "learning_curve.json")
    assert "NaN" not in (tmp_path / "learning_curve.json").read_text()
    values = LearningCurve.load(tmp_path).values
    assert math.isnan(values[0])
    assert values[1] == 0.7
    assert math.isnan(values[2])


def test_load_without_a_file_says_what_to_pass(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"learning_curve\.json\. Pass the output_dir of a finished run"):
        LearningCurve.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No learning curve at .*nowhere"):
        LearningCurve.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[: len(text) // 2], "line .* column"),
        (lambda text: "", "line 1 column 1"),
        (lambda text: "[]", "expected a JSON object, found list"),
        (
            lambda text: text.replace('"version": 1', '"version": 2'),
            "it has version 2, this hf_noise_al reads version 1",
        ),
        (lambda text: text.replace('"version": 1,', ""), "it has version None"),
        (lambda text: text.replace('"seed": 0,', ""), "`seed` should be int, found None"),
        (lambda text: text.replace('"seed": 0', '"seed": "0"'), "`seed` should be int, found '0'"),
        (lambda text: text.replace("true", "1"), "`greater_is_better` should be bool, found 1"),
        (lambda text: text.replace('"num_labeled": 200', '"num_labeled": null'), "a point needs `num_labeled`"),
        (
            lambda text: text.replace('"eval_accuracy": 0.7', '"eval_accuracy": "high"'),
            "`eval_accuracy` of round 1 should be a number or null, found 'high'",
        ),
        (lambda text: text.replace('"metrics"', '"measures"'), "a point needs `num_labeled` and `metrics`"),
    ],
)
def test_damaged_file_is_refused_by_name_with_the_reason(tmp_path, damage, reason):
    file = tmp_path / "learning_curve.json"
    make_curve([0.5, 0.7, 0.8]).save(file)
    text = file.read_text()
    assert damage(text) != text
    file.write_text(damage(text))
    with pytest.raises(ValueError, match=rf"Cannot read the learning curve .*learning_curve\.json: .*{reason}"):
        LearningCurve.load(tmp_path)


def test_binary_file_is_refused_by_name(tmp_path):
    (tmp_path / "learning_curve.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match=r"Cannot read the learning curve .*learning_curve\.json"):
        LearningCurve.load(tmp_path)


# Numbers of one curve


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


# Several runs


def make_study():
    """Two seeds of each, AUBC by hand: ours 0.7 and 0.75; random 0.6 and 0.7."""
    return [
        make_curve([0.5, 0.7, 0.8], seed=0),
        make_curve([0.6, 0.75, 0.8], seed=1),
        make_curve([0.4, 0.6, 0.7], "random", seed=0),
        make_curve([0.5, 0.7, 0.8], "random", seed=1),
    ]


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


# Text


def test_json_holds_every_field():
    ours = json.loads(to_json(compare(make_study())))[0]
    assert set(ours) == {field.name for field in dataclasses.fields(compare(make_study())[0])}
    assert ours["mean"] == pytest.approx([0.55, 0.725, 0.8])
    assert ours["aubc"]["mean"] == pytest.approx(compare(make_study())[0].aubc.mean)


def test_json_has_null_for_nan():
    document = json.loads(to_json(compare([make_curve([math.nan, 0.7, 0.8])])), parse_constant=pytest.fail)
    assert document[0]["mean"] == [None, 0.7, 0.8]


def test_table_of_acquisitions():
    runs = [make_curve([0.5, 0.7, 0.8]), make_curve([0.4, 0.6, 0.7], "random"), make_curve([0.1, 0.2, 0.3], "margin")]
    assert format_table(compare(runs)).splitlines() == [
        "mrpc, minilm: eval_accuracy (higher is better), mean ± 95 % interval over seeds",
        "",
        "acquisition      seeds    AUBC  AUBC - random  at 400 labels  labels needed  labels saved",
        "noise_stability      1  0.7000        +0.1000         0.8000            200          50 %",
        "random               1  0.6000              -         0.7000            400           0 %",
        "margin               1  0.2167        -0.3833         0.3000    not reached             -",
        "",
        "Labels needed: to reach 0.7000, the best mean of random.",
    ]


def test_table_without_the_baseline_says_so():
    table = format_table(compare([make_curve([0.5, 0.7, 0.8])]))
    assert table.endswith("No run of `random` to compare with.")
    assert "not reached" not in table


def test_table_shows_intervals_of_several_seeds():
    assert "0.8000 ± 0.0000" in format_table(compare(make_study()))


def test_table_of_rounds():
    assert format_rounds(make_curve([0.5, math.nan, 0.75]).points, "eval_accuracy").splitlines() == [
        "round  labels  query size  train s  query s  eval_accuracy",
        "0         100         100      1.2      2.5         0.5000",
        "1         200         100      2.2      2.5            nan",
        "2         400         100      3.2      2.5         0.7500",
    ]


# On how many rows, with which interval


def with_rows(curve, num_rows, intervals=None):
    """Return `curve` as this release writes it."""
    ends = intervals or [[value - 0.1, value + 0.1] for value in curve.values]
    points = [
        {**point, "num_rows": {"eval_accuracy": count, "eval_loss": count}, "intervals": {"eval_accuracy": pair}}
        for point, count, pair in zip(curve.points, num_rows, ends, strict=True)
    ]
    return dataclasses.replace(curve, points=tuple(points))


def test_a_curve_knows_its_rows_and_intervals_after_a_journey_to_the_disk(tmp_path):
    curve = with_rows(make_curve([0.5, 0.7, 0.8]), [6, 6, 6])
    curve.save(tmp_path / "learning_curve.json")
    again = LearningCurve.load(tmp_path)
    assert again.num_rows == (6, 6, 6)
    assert again.intervals == curve.intervals == tuple((value - 0.1, value + 0.1) for value in curve.values)
    loss = dataclasses.replace(again, metric="eval_loss")
    assert loss.num_rows == (6, 6, 6) and loss.intervals == (None, None, None)


def test_a_curve_of_an_earlier_release_knows_neither():
    curve = make_curve([0.5, 0.7, 0.8])
    assert curve.num_rows == curve.intervals == (None, None, None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_rows": {"eval_accuracy": "6"}}, "`num_rows` of round 0 should be a whole number, found '6'"),
        ({"num_rows": [6]}, r"`num_rows` of round 0 should be an object, found \[6\]"),
        ({"intervals": {"eval_accuracy": [0.5]}}, r"`intervals` of round 0 should be two numbers, found \[0.5\]"),
        ({"intervals": {"eval_accuracy": [0.5, None]}}, "should be two numbers"),
    ],
)
def test_rows_and_intervals_that_are_none_are_refused_with_the_file(tmp_path, change, told):
    curve = make_curve([0.5], budgets=(100,))
    dataclasses.replace(curve, points=({**curve.points[0], **change},)).save(tmp_path / "learning_curve.json")
    with pytest.raises(ValueError, match=told):
        LearningCurve.load(tmp_path)


def test_a_table_of_rounds_shows_interval_and_rows_and_fits_a_terminal():
    points = with_rows(make_curve([0.5, 0.7, 1.0]), [6, 6, 1000], [[0.19, 0.81], None, [0.61, 1.0]]).points
    table = format_rounds([*points[:2], {**points[2], "round": 12, "num_labeled": 12000}], "eval_accuracy")
    assert table.splitlines() == [
        "round  labels  query size  train s  query s  eval_accuracy   95 % interval     n",
        "0         100         100      1.2      2.5         0.5000  0.190 to 0.810     6",
        "1         200         100      2.2      2.5         0.7000                     6",
        "12      12000         100      3.2      2.5         1.0000  0.610 to 1.000  1000",
    ]
    assert max(map(len, table.splitlines())) <= 80


def test_rounds_of_an_earlier_release_stand_beside_those_of_this_one():
    _, old, _ = make_curve([0.5, 0.7, 0.8]).points
    new, *_ = with_rows(make_curve([0.5, 0.7, 0.8]), [6, 6, 6]).points
    lines = format_rounds([new, old], "eval_accuracy").splitlines()
    assert lines[1].endswith("0.400 to 0.600  6") and lines[2].rstrip().endswith("0.7000")


def test_a_comparison_says_on_how_many_rows_and_one_seed_has_the_interval_of_them():
    runs = [with_rows(make_curve([0.5, 0.7, 0.8], seed=seed), [20 + seed] * 3) for seed in (0, 1)]
    old = make_curve([0.5, 0.6, 0.7], "random")
    ours, theirs = compare([*runs, old])
    assert ours.num_rows == (20, 20, 20) and theirs.num_rows == (None, None, None)
    assert ours.intervals == (None, None, None), "of two seeds there is the interval of seeds"
    (alone,) = compare(runs[:1])
    assert alone.intervals == runs[0].intervals and None not in alone.intervals
    assert json.loads(to_json([alone]))[0]["num_rows"] == [20, 20, 20]


def test_the_table_of_acquisitions_has_the_rows_where_a_run_says():
    old = make_curve([0.5, 0.6, 0.7], "random")
    header, ours, theirs, *_ = format_table(
        compare([with_rows(make_curve([0.5, 0.7, 0.8]), [6, 8, 9]), old])
    ).splitlines()[2:]
    assert header.endswith("labels saved    n") and ours.endswith("  6-9") and theirs.endswith("    -")
    assert "n: rows that the metric was measured on." in format_table(compare([with_rows(old, [6] * 3)]))
    assert format_table(compare([old])).splitlines()[2].endswith("labels saved")


def test_estimate_as_text():
    assert format_estimate(None) == "-"
    assert format_estimate(Estimate(0.5, None)) == "0.5000"
    assert format_estimate(Estimate(0.5, 0.0123), decimals=3) == "0.500 ± 0.012"
    assert format_estimate(Estimate(0.5, 0.01), sign="+") == "+0.5000 ± 0.0100"
