"""Runs and comparisons as text."""

import math

from test_learning_curve import make_curve, make_study, with_rows

from hf_noise_al.experiments.comparison import Estimate, compare
from hf_noise_al.experiments.tables import format_estimate, format_rounds, format_table


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
