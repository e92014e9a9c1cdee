"""Metrics: the numbers of scikit-learn and scipy under the names of `evaluate`, from there where it answers."""

import logging
import textwrap
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics
from transformers import EvalPrediction

from hf_noise_al.pool.problem_type import MULTI_LABEL, REGRESSION
from hf_noise_al.tasks import Targets
from hf_noise_al.tasks import metrics as module
from hf_noise_al.tasks.curve_metric import check_best_metric, curve_metric, is_greater_better
from hf_noise_al.tasks.measures import GLUE_METRICS
from hf_noise_al.tasks.metrics import load_metrics
from hf_noise_al.tasks.targets import SINGLE_LABEL

BINARY = Targets(SINGLE_LABEL, ("no", "yes"))
THREE = Targets(SINGLE_LABEL, ("a", "b", "c"))
SETS = Targets(MULTI_LABEL, ("a", "b", "c"))
NUMBER = Targets(REGRESSION)


def random_answer(targets: Targets, seed: int = 0) -> EvalPrediction:
    generator = np.random.default_rng(seed)
    outputs = generator.normal(size=(40, targets.num_labels)).astype(np.float32)
    if targets is NUMBER:
        return EvalPrediction(outputs, generator.normal(size=40).astype(np.float32))
    if targets is SETS:
        return EvalPrediction(outputs, generator.integers(2, size=(40, 3)).astype(np.float32))
    return EvalPrediction(outputs, generator.integers(targets.num_labels, size=40))


@pytest.mark.parametrize("task", GLUE_METRICS)
def test_every_glue_task_has_its_own_metrics(task: str) -> None:
    targets = NUMBER if task == "stsb" else BINARY
    answer = random_answer(targets)
    found = load_metrics([f"glue/{task}"], targets)(answer)
    outputs, labels = answer.predictions, answer.label_ids
    if task == "stsb":
        expected = {
            "pearson": stats.pearsonr(outputs[:, 0], labels)[0],
            "spearmanr": stats.spearmanr(outputs[:, 0], labels)[0],
        }
    elif task == "cola":
        expected = {"matthews_correlation": sklearn_metrics.matthews_corrcoef(labels, outputs.argmax(1))}
    else:
        expected = {"accuracy": (labels == outputs.argmax(1)).mean()}
    if task in ("mrpc", "qqp"):
        expected["f1"] = sklearn_metrics.f1_score(labels, outputs.argmax(1))
    assert found == pytest.approx(expected)
    assert list(found) == list(expected)


def test_cross_validated_metrics_are_offered_with_folds_alone() -> None:
    assert curve_metric(["accuracy"], [""], "cv_accuracy", folds=True) == "cv_accuracy"
    assert curve_metric(["accuracy"], [""], folds=True) == "eval_accuracy"
    assert curve_metric(["accuracy"], [], folds=True) == "cv_accuracy", "without an evaluation set there is no other"
    assert curve_metric(["accuracy"], [], "cv_loss", folds=True) == "cv_loss"
    with pytest.raises(ValueError, match="Unknown `metric_for_curve` cv_accuracy"):
        curve_metric(["accuracy"], [""], "cv_accuracy")
    with pytest.raises(ValueError, match=r"Did you mean `cv_accuracy`\? It can be: cv_accuracy, cv_loss"):
        curve_metric(["accuracy"], [], "cv_acuracy", folds=True)
    with pytest.raises(ValueError, match="Unknown `metric_for_curve` accuracy"):
        curve_metric(["accuracy"], [], "accuracy", folds=True)


def test_intervals_are_no_metrics_to_choose() -> None:
    metrics = load_metrics(["accuracy", "f1"], BINARY)
    answer = random_answer(BINARY)
    assert metrics.names() == tuple(metrics(answer)) == ("accuracy", "f1")


def test_f1_is_of_class_one_macro_or_micro_by_the_number_of_classes() -> None:
    for targets, average in ((BINARY, "binary"), (THREE, "macro"), (SETS, "micro")):
        answer = random_answer(targets)
        decided = answer.predictions > 0 if targets is SETS else answer.predictions.argmax(1)
        expected = sklearn_metrics.f1_score(answer.label_ids, decided, average=average)
        assert load_metrics(["f1"], targets)(answer)["f1"] == pytest.approx(expected)


def test_multi_label_accuracy_counts_rows_that_are_right_in_every_label() -> None:
    answer = EvalPrediction(np.array([[1.0, -1, -1], [1, 1, -1]]), np.array([[1.0, 0, 0], [1, 0, 0]]))
    assert load_metrics(["accuracy", "f1"], SETS)(answer) == pytest.approx({"accuracy": 0.5, "f1": 0.8})


def test_regression_is_measured_on_the_single_output() -> None:
    answer = random_answer(NUMBER)
    found = load_metrics(["mse", "mae", "pearsonr"], NUMBER)(answer)
    errors = answer.predictions[:, 0] - answer.label_ids
    assert found["mse"] == pytest.approx((errors**2).mean())
    assert found["mae"] == pytest.approx(abs(errors).mean())


def test_errors_in_the_units_of_the_data_and_the_share_of_variance_are_measured() -> None:
    answer = random_answer(NUMBER)
    found = load_metrics(["rmse", "r2", "r_squared"], NUMBER)(answer)
    errors = answer.predictions[:, 0] - answer.label_ids
    share = 1 - (errors**2).mean() / answer.label_ids.var()
    assert found == pytest.approx({"rmse": (errors**2).mean() ** 0.5, "r2": share, "r_squared": share})


def test_a_metric_that_is_a_bare_number_gets_its_name_and_what_evaluate_lacks_is_not_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    class Loaded:
        def compute(self, **arguments: object) -> float:
            return 0.25

    monkeypatch.setattr(module.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("evaluate.load", lambda *names, **options: asked.append(names) or Loaded())
    assert load_metrics(["r_squared", "rmse"], NUMBER, trusted=True).names() == ("r_squared", "rmse")
    assert asked == [("r_squared",)]


def test_hidden_states_beside_the_outputs_are_left_alone() -> None:
    answer = random_answer(BINARY)
    with_states = EvalPrediction((answer.predictions, np.zeros((40, 7))), answer.label_ids)
    metrics = load_metrics(["accuracy"], BINARY)
    assert metrics(answer) == metrics(with_states)


def test_a_correlation_with_a_constant_prediction_counts_as_zero_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    answer = EvalPrediction(np.ones((4, 1)), np.arange(4.0))
    with caplog.at_level(logging.WARNING, "hf_noise_al"):
        assert load_metrics(["glue/stsb"], NUMBER)(answer) == {"pearson": 0.0, "spearmanr": 0.0}
    assert "pearson is not defined" in caplog.text


def test_outputs_that_are_not_finite_are_refused_with_the_row() -> None:
    outputs = np.zeros((4, 2))
    outputs[2, 1] = np.nan
    with pytest.raises(ValueError, match="output for evaluation row 2 is not finite: the training diverged"):
        load_metrics(["accuracy"], BINARY)(EvalPrediction(outputs, np.zeros(4)))


def test_an_unknown_metric_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"Cannot load the metric acuracy from `evaluate`\. Did you mean `accuracy`\?"):
        load_metrics(["acuracy"], BINARY, trusted=True)


def test_switching_to_our_own_numbers_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "hf_noise_al"):
        load_metrics(["accuracy"], BINARY, trusted=True)
    assert "Metric accuracy: computed with scikit-learn and scipy" in caplog.text


def test_a_metric_of_evaluate_is_used_where_it_can_be_loaded(tmp_path: Path) -> None:
    script = tmp_path / "agreement" / "agreement.py"
    script.parent.mkdir()
    script.write_text(
        textwrap.dedent(
            """
            import datasets
            import evaluate

            class Agreement(evaluate.Metric):
                def _info(self):
                    number = datasets.Value("int32")
                    kinds = datasets.Features({"predictions": number, "references": number})
                    return evaluate.MetricInfo(description="", citation="", features=kinds)

                def _compute(self, predictions, references):
                    return {"agreement": sum(p == r for p, r in zip(predictions, references)) / len(references)}
            """
        )
    )
    answer = random_answer(THREE)
    found = load_metrics([str(script.parent), "accuracy"], THREE, trusted=True)(answer)
    assert found["agreement"] == pytest.approx(found["accuracy"])


@pytest.mark.parametrize("name", ["mine", "owner/metric", "mean_iou", "./f1", "glue/unknown", "acuracy"])
def test_code_of_others_runs_only_where_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("mine", "f1", "accuracy"):  # evaluate takes a folder for the metric that it is called
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.py").write_text("raise SystemExit('ran')")
    monkeypatch.setattr(module.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("evaluate.load", lambda *names, **options: pytest.fail("loaded"))
    with pytest.raises(ValueError) as refused:
        load_metrics([name], BINARY)
    message = str(refused.value)
    assert f"The metric {name!r} is not one of this library." in message
    assert "running Python code of the Hub or of a folder" in message and "`--trust_remote_code true`" in message
    assert load_metrics(["f1", "accuracy", "glue/mrpc"], BINARY).names() == ("f1", "accuracy")


def test_evaluate_and_our_own_numbers_have_the_same_names_and_averages(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Loaded:
        def compute(self, **arguments: object) -> dict[str, float]:
            calls.append(arguments)
            return {"f1": 0.5}

    monkeypatch.setattr(module.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("evaluate.load", lambda *names, **options: calls.append(names) or Loaded())
    assert load_metrics(["f1"], THREE, trusted=True)(random_answer(THREE)) == {"f1": 0.5}
    assert load_metrics(["f1"], SETS, trusted=True).names() == ("f1",)
    load_metrics(["glue/mrpc"], BINARY, trusted=True)
    names = [call for call in calls if isinstance(call, tuple)]
    averages = [call["average"] for call in calls if isinstance(call, dict)]
    assert names == [("f1",), ("f1", "multilabel"), ("glue", "mrpc")]
    assert averages == ["macro", "micro"]


@pytest.mark.parametrize("targets", [BINARY, THREE, SETS, NUMBER])
def test_names_are_known_before_anything_is_measured(targets: Targets) -> None:
    wanted = ["mse", "pearsonr"] if targets is NUMBER else ["accuracy", "f1"]
    assert load_metrics(wanted, targets).names() == tuple(wanted)


def test_the_curve_shows_the_first_metric_or_the_one_asked_for() -> None:
    assert curve_metric(["accuracy", "f1"], [""]) == "eval_accuracy"
    assert curve_metric(["accuracy", "f1"], [""], "f1") == "eval_f1"
    assert curve_metric(["accuracy"], [""], "eval_loss") == "eval_loss"
    assert curve_metric(["accuracy"], ["matched", "mismatched"]) == "eval_matched_accuracy"
    assert curve_metric(["accuracy"], ["matched", "mismatched"], "accuracy") == "eval_matched_accuracy"
    assert curve_metric(["accuracy"], ["matched", "mismatched"], "mismatched_accuracy") == "eval_mismatched_accuracy"
    with pytest.raises(ValueError, match=r"Unknown `metric_for_curve` acuracy\. Did you mean `eval_accuracy`\?"):
        curve_metric(["accuracy"], [""], "acuracy")


def test_a_best_model_by_what_is_not_measured_is_refused() -> None:
    for known in ("accuracy", "eval_accuracy", "eval_loss"):
        check_best_metric(["accuracy"], [""], known)
    check_best_metric(["accuracy"], ["matched", "mismatched"], "mismatched_loss")
    message = r"Unknown `metric_for_best_model` accuracy\..* It can be: eval_matched_accuracy, eval_matched_loss"
    with pytest.raises(ValueError, match=message):
        check_best_metric(["accuracy"], ["matched"], "accuracy")


@pytest.mark.parametrize(
    ("metric", "rises"),
    [("eval_accuracy", True), ("eval_r2", True), ("eval_loss", False), ("eval_mse", False), ("eval_rmse", False)],
)
def test_errors_should_fall_and_the_rest_rise(metric: str, rises: bool) -> None:
    assert is_greater_better(metric) is rises


def test_a_correlation_of_one_row_is_not_defined(caplog: pytest.LogCaptureFixture) -> None:
    measure = load_metrics(["pearsonr", "spearmanr", "mse"], Targets(REGRESSION))
    found = measure(EvalPrediction(predictions=np.array([[1.0]]), label_ids=np.array([2.0])))
    assert found == {"pearsonr": 0.0, "spearmanr": 0.0, "mse": 1.0}
    assert "pearsonr" in caplog.text
