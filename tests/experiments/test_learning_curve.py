import dataclasses
import json
import math
import os

import pytest

from hf_noise_al.experiments.learning_curve import LearningCurve


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


# Several runs


def make_study():
    """Two seeds of each, AUBC by hand: ours 0.7 and 0.75; random 0.6 and 0.7."""
    return [
        make_curve([0.5, 0.7, 0.8], seed=0),
        make_curve([0.6, 0.75, 0.8], seed=1),
        make_curve([0.4, 0.6, 0.7], "random", seed=0),
        make_curve([0.5, 0.7, 0.8], "random", seed=1),
    ]


# Text


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
