"""What a run is made of: default metrics, folders in use, finished runs, the flags of repeats."""

from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from hf_noise_al.commands.existing_runs import is_finished, refuse_folder_in_use
from hf_noise_al.commands.prepare import Job, prepare
from hf_noise_al.commands.run import _repeats, train
from hf_noise_al.experiments.learning_curve import LearningCurve
from hf_noise_al.measuring.intervals import wilson
from hf_noise_al.run_folder.history import RoundRecord
from hf_noise_al.settings.parsing import parse
from hf_noise_al.settings.recipe import InvalidArgument


@pytest.fixture
def job(tmp_path: Path, tiny_bert_folder: Path, make_texts: Callable[..., Dataset]) -> Callable[..., Job]:
    """Return a function that prepares a run of one round on texts with the columns and the splits of MNLI."""
    rows = make_texts(12, num_labels=3).rename_column("text", "premise")
    rows = rows.add_column("hypothesis", rows["premise"][:])
    splits = ("train", "validation_matched", "validation_mismatched")
    DatasetDict(dict.fromkeys(splits, rows)).save_to_disk(tmp_path / "mnli")
    own = f"--dataset_name={tmp_path}/mnli --model_name_or_path={tiny_bert_folder} --output_dir={tmp_path}/out"
    fast = "--num_rounds 1 --initial_size 4 --max_steps 1 --use_cpu true --save_strategy no --disable_tqdm true"

    def make(*flags: str) -> Job:
        return prepare(*parse(None, [*own.split(), *fast.split(), "--eval_split", *splits[1:], *flags]))

    return make


def test_mnli_is_measured_on_both_sets_by_its_own_metric(job: Callable[..., Job]) -> None:
    made = job("--dataset_config_name", "mnli")
    assert made.curve.metric == "eval_matched_accuracy"
    train(made)
    metrics = LearningCurve.load(made.folder).points[0]["metrics"]
    assert set(metrics) == {
        "eval_matched_accuracy",
        "eval_matched_loss",
        "eval_mismatched_accuracy",
        "eval_mismatched_loss",
    }


@pytest.mark.parametrize(
    ("flags", "metric", "rises"),
    [
        ([], "eval_matched_accuracy", True),
        (["--metric", "f1", "accuracy"], "eval_matched_f1", True),
        (["--metric_for_curve", "mismatched_loss"], "eval_mismatched_loss", False),
        (["--metric_for_curve", "loss", "--metric_greater_is_better", "true"], "eval_matched_loss", True),
    ],
)
def test_the_curve_shows_what_was_asked_for(
    job: Callable[..., Job], flags: list[str], metric: str, rises: bool
) -> None:
    curve = job(*flags).curve
    assert (curve.metric, curve.greater_is_better) == (metric, rises)


def test_a_finished_run_is_known_by_its_points_and_its_card(job: Callable[..., Job]) -> None:
    made = job()
    assert not is_finished(made.arguments)
    train(made)
    assert is_finished(made.arguments)
    longer = parse(
        None, ["--dataset_name=x", "--model_name_or_path=x", f"--output_dir={made.folder}", "--num_rounds=2"]
    )
    assert not is_finished(longer[2])
    (made.folder / "README.md").unlink()
    assert not is_finished(made.arguments)


def test_a_run_that_is_being_extended_is_not_finished(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after its last round, before the model is saved: the card of the shorter run must not stand for it."""
    train(job("--query_size", "2"))
    longer = job("--query_size", "2", "--num_rounds", "2", "--resume_from_checkpoint", "true")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(longer.trainer, "save_model", killed)
    with pytest.raises(KeyboardInterrupt):
        train(longer)
    assert len(LearningCurve.load(longer.folder).points) == 2
    assert not is_finished(longer.arguments)


@pytest.mark.parametrize("error", [ValueError("no such glyph\n^"), ImportError("no matplotlib"), OSError(28, "full")])
def test_a_picture_that_cannot_be_drawn_costs_nothing_but_itself(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    made = job()
    monkeypatch.setattr("hf_noise_al.commands.run.plot_curves", fail)
    monkeypatch.setattr(made.trainer, "train", lambda **_: None)
    made.trainer.history.append(RoundRecord(0, 4, 4, 1.0, 0.0, {"eval_matched_accuracy": 0.5}))
    caplog.set_level("WARNING", "hf_noise_al")
    train(made)
    assert {"README.md", "learning_curve.json", "model.safetensors"} <= {path.name for path in made.folder.iterdir()}
    (told,) = [record.getMessage() for record in caplog.records]
    assert f"Cannot draw {made.folder / 'learning_curve.png'}: " in told and "\n" not in told
    assert f"`hf-noise-al compare {made.folder} --plot learning_curve.png`" in told


def few_labels(tmp_path: Path, tiny_bert_folder: Path, rows: Dataset, *flags: str) -> Job:
    """Return a run over one csv file."""
    rows.to_csv(str(tmp_path / "rows.csv"))
    own = f"--dataset_name={tmp_path}/rows.csv --model_name_or_path={tiny_bert_folder} --output_dir={tmp_path}/out"
    fast = "--num_rounds 2 --initial_size 8 --query_size 4 --max_steps 1 --use_cpu true --save_strategy no"
    rest = "--disable_tqdm true --acquisition random --report_to none"
    return prepare(*parse(None, [*own.split(), *fast.split(), *rest.split(), *flags]))


def test_a_score_of_few_rows_says_so_in_table_log_file_card_and_picture(
    tmp_path: Path, tiny_bert_folder: Path, make_texts: Callable[..., Dataset], caplog: pytest.LogCaptureFixture
) -> None:
    made = few_labels(tmp_path, tiny_bert_folder, make_texts(60), "--log_level", "info")
    with caplog.at_level("INFO", "hf_noise_al"):
        table = train(made).splitlines()
    last = made.trainer.history[-1]
    value, (low, high) = last.metrics["eval_accuracy"], last.intervals["eval_accuracy"]
    assert (low, high) == pytest.approx(wilson(round(6 * value), 6))
    assert table[0].split()[-5:] == ["eval_accuracy", "95", "%", "interval", "n"]
    assert table[-1].endswith(f"{value:.4f}  {low:.3f} to {high:.3f}  6")
    assert f"eval_accuracy {value:.4f} [{low:.3f} to {high:.3f}, n = 6]" in caplog.text
    assert caplog.text.count("the evaluation set has 6 rows") == 1
    (_, point) = LearningCurve.load(made.folder).points
    assert point["num_rows"]["eval_accuracy"] == 6 and point["intervals"]["eval_accuracy"] == [low, high]
    card = (made.folder / "README.md").read_text()
    assert f"{value:.4f} ({low:.3f} to {high:.3f})" in card and "**Few rows to measure on" in card


def test_a_csv_of_few_labels_is_cross_validated_and_nothing_is_set_aside(
    tmp_path: Path, tiny_bert_folder: Path, make_texts: Callable[..., Dataset]
) -> None:
    flags = ["--eval_folds", "2", "--validation_fraction", "0", "--metric_for_curve", "cv_accuracy"]
    made = few_labels(tmp_path, tiny_bert_folder, make_texts(20), *flags)
    assert made.trainer.pool.size == 20 and made.trainer.eval_dataset is None
    table = train(made).splitlines()
    assert "cv_accuracy" in table[0] and [line.split()[-1] for line in table[1:]] == ["8", "12"]
    curve = LearningCurve.load(made.folder)
    assert (curve.metric, curve.greater_is_better, curve.num_rows) == ("cv_accuracy", True, (8, 12))
    assert all(low <= value <= high for value, (low, high) in zip(curve.values, curve.intervals, strict=True))
    assert "cross-validated over the labeled rows" in (made.folder / "README.md").read_text()


def test_setting_nothing_aside_without_folds_is_refused(
    tmp_path: Path, tiny_bert_folder: Path, make_texts: Callable[..., Dataset]
) -> None:
    with pytest.raises(InvalidArgument, match=r"`validation_fraction` is 0, .*`eval_folds`, such as 5"):
        few_labels(tmp_path, tiny_bert_folder, make_texts(20), "--validation_fraction", "0")


def test_a_folder_in_use_is_refused_unless_resumed_or_replaced(tmp_path: Path) -> None:
    (tmp_path / "active_state.json").write_text("{}")

    def arguments(*flags: str) -> None:
        made = parse(None, ["--dataset_name=x", "--model_name_or_path=x", f"--output_dir={tmp_path}", *flags])
        refuse_folder_in_use([made[2]])

    with pytest.raises(InvalidArgument, match="already holds a run. Continue it with `--resume_from_checkpoint true`"):
        arguments()
    arguments("--resume_from_checkpoint", "true")
    arguments("--start_afresh", "true")
    arguments("--output_dir", str(tmp_path / "other"))


def test_repeats_of_a_baseline_have_no_settings_of_the_acquisition_beside_it(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"dataset_name: x\nmodel_name_or_path: x\noutput_dir: {tmp_path}\nacquisition.noise_scale: 1e-2\n"
    )
    flags = ["--baselines", "random", "bald", "--acquisition.num_perturbations", "7", "--seeds", "0", "1"]
    parts = [training for *_, training in _repeats(recipe, flags, parse(recipe, flags)[2])]
    own = {"noise_scale": 0.01, "num_perturbations": 7}
    expected = [("noise_stability", own), ("random", {}), ("bald", {})]
    assert [(part.acquisition, part.acquisition_kwargs) for part in parts] == 2 * expected
    assert [part.seed for part in parts] == [0, 0, 0, 1, 1, 1]


def test_labels_are_held_out_whatever_their_column_was_called(job: Callable[..., Job]) -> None:
    made = job("--label_column", "label")
    assert made.arguments.label_column == "labels"
    assert made.trainer.pool.num_labeled == 0
    assert made.curve.points == ()


@pytest.mark.parametrize(
    ("task", "acquisition", "reason"),
    [
        ("text_regression", "margin", "it compares the probabilities of classes"),
        ("tabular_regression", "badge", "it compares the probabilities of classes"),
        ("token_classification", "bald", "it compares one prediction of each example under dropout"),
    ],
)
def test_an_acquisition_that_a_task_has_no_use_for_is_refused_before_anything_is_loaded(
    task: str, acquisition: str, reason: str, tmp_path: Path
) -> None:
    flags = ["--task", task, "--dataset_name", "nowhere/at/all", "--model_name_or_path", "nowhere/at/all"]
    flags += ["--acquisition", acquisition, "--output_dir", str(tmp_path)]
    with pytest.raises(InvalidArgument, match=f"{acquisition} cannot work on {task}: {reason}. Use core_set, "):
        prepare(*parse(None, flags))
