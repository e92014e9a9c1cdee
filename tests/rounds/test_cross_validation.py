"""Cross-validation: which row is in which fold, what is measured, and that the round itself does not notice."""

import logging
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
import tiny_tasks
import torch
from tiny_run import accuracy, assert_same_outcome, make_model, make_pool, outcome
from transformers import EvalPrediction, TrainerCallback

from hf_noise_al import ActiveTrainer, ActiveTrainingArguments
from hf_noise_al.rounds.cross_validation import deal_folds
from hf_noise_al.run_folder.history import RoundRecord

make_trainer = partial(tiny_run.make_trainer, acquisition="entropy", acquisition_kwargs=None)
"""The cheapest queries whose picks follow from the weights."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Seen(TrainerCallback):
    """Keeps the texts that each training saw, and the weights that it began with."""

    def __init__(self) -> None:
        self.texts: list[set[str]] = []
        self.starts: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.texts.append({str(tokens) for tokens in kwargs["train_dataloader"].dataset["input_ids"]})
        self.starts.append(float(sum(p.detach().double().sum() for p in kwargs["model"].parameters())))


class Stop(TrainerCallback):
    """Stops the training of this number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.number -= 1
        if self.number < 0:
            raise KeyboardInterrupt


def without_cv(record: RoundRecord) -> dict[str, float]:
    return {name: value for name, value in record.metrics.items() if not name.startswith("cv_")}


# Which row is in which fold


@pytest.mark.parametrize(("rows", "folds"), [(2, 2), (7, 3), (20, 5), (11, 11)])
@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_every_row_is_in_one_fold_and_folds_are_of_one_size(rows: int, folds: int, kind: str) -> None:
    labels = [row % 3 if kind == "classes" else row / 2 for row in range(rows)]
    dealt = deal_folds(labels, folds, generator())
    assert sorted(row for fold in dealt for row in fold) == list(range(rows))
    assert len(dealt) == folds and max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_classes_are_shared_out_alike() -> None:
    labels = [0] * 13 + [1] * 7 + [2] * 2
    for fold in deal_folds(labels, 4, generator()):
        count = Counter(labels[row] for row in fold)
        assert 3 <= count[0] <= 4 and 1 <= count[1] <= 2 and count[2] <= 1


def test_the_deal_is_random_and_follows_the_generator() -> None:
    labels = [0] * 20
    assert deal_folds(labels, 4, generator(1)) == deal_folds(labels, 4, generator(1))
    assert deal_folds(labels, 4, generator(1)) != deal_folds(labels, 4, generator(2))


# What a round with folds measures


def test_every_labeled_row_is_predicted_once_by_a_model_that_has_not_seen_it(tmp_path: Path) -> None:
    seen, measured = Seen(), []

    def keep(prediction: EvalPrediction) -> dict[str, float]:
        measured.append(len(prediction.predictions))
        return accuracy(prediction)

    trainer = make_trainer(
        tmp_path, num_rounds=1, initial_size=10, eval_folds=3, trainer={"callbacks": [seen], "compute_metrics": keep}
    )
    trainer.train()
    *folds, whole = seen.texts
    assert [len(texts) for texts in folds] == [6, 7, 7] and len(whole) == 10
    held_out = [whole - texts for texts in folds]
    assert set.union(*held_out) == whole and sum(map(len, held_out)) == 10
    assert len(set(seen.starts)) == 1, "every training starts from the initial weights"
    assert measured == [10, 20], "all folds are measured together, then the evaluation set"
    (record,) = trainer.history
    assert record.num_rows == {"eval_loss": 20, "eval_accuracy": 20, "cv_loss": 10, "cv_accuracy": 10}
    assert 0 <= record.metrics["cv_accuracy"] <= 1 and record.metrics["cv_loss"] > 0


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("strategy", ["no", "epoch"])
def test_folds_change_nothing_of_the_run_itself(tmp_path: Path, fresh: bool, strategy: str) -> None:
    settings = {"fresh": fresh, "save_strategy": strategy, "num_rounds": 2}
    plain, folded = (
        make_trainer(tmp_path / str(folds), eval_folds=folds, **settings)  # type: ignore[arg-type]
        for folds in (None, 2)
    )
    plain.train(), folded.train()
    found, expected = outcome(folded), outcome(plain)
    found["history"] = [(r.round, r.num_labeled, r.query_size, without_cv(r)) for r in folded.history]
    assert_same_outcome(found, expected)
    assert all("cv_accuracy" in record.metrics for record in folded.history)
    kept = sorted(path.name for path in (tmp_path / "2" / "_rounds").iterdir())
    assert kept == sorted(path.name for path in (tmp_path / "None" / "_rounds").iterdir())


def test_the_best_model_of_a_fold_may_be_taken(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path,
        num_rounds=1,
        eval_folds=2,
        num_train_epochs=2,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
    )
    trainer.train()
    assert trainer.history[0].num_rows["cv_accuracy"] == 8
    assert not list((tmp_path / "_rounds").glob("*-folds"))


def test_without_an_evaluation_set_the_labeled_rows_are_measured_alone(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, num_rounds=2, eval_folds=2, trainer={"eval_dataset": None})
    trainer.train()
    assert [set(record.metrics) for record in trainer.history] == [{"cv_loss", "cv_accuracy"}] * 2
    assert [record.num_rows["cv_accuracy"] for record in trainer.history] == [8, 14]


def test_without_metrics_there_is_the_loss(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, num_rounds=1, eval_folds=2, trainer={"compute_metrics": None})
    trainer.train()
    assert set(trainer.history[0].metrics) == {"eval_loss", "cv_loss"}


def test_metrics_of_batches_get_all_predictions_at_once(tmp_path: Path) -> None:
    calls: list[tuple[int, bool]] = []

    def by_batch(prediction: EvalPrediction, compute_result: bool = False) -> dict[str, float]:
        assert isinstance(prediction.predictions, torch.Tensor)
        calls.append((len(prediction.predictions), compute_result))
        return {"accuracy": 0.5} if compute_result else {}

    trainer = make_trainer(
        tmp_path,
        num_rounds=1,
        eval_folds=2,
        batch_eval_metrics=True,
        trainer={"eval_dataset": None, "compute_metrics": by_batch},
    )
    trainer.train()
    assert calls == [(8, True)] and trainer.history[0].metrics["cv_accuracy"] == 0.5


def test_a_run_that_was_stopped_in_a_fold_ends_with_the_same_numbers(tmp_path: Path) -> None:
    whole = make_trainer(tmp_path / "whole", num_rounds=2, eval_folds=2)
    whole.train()
    for number in (4, 5):  # of round 1: in its second fold, and in its own training
        folder = tmp_path / str(number)
        stopped = make_trainer(folder, num_rounds=2, eval_folds=2, trainer={"callbacks": [Stop(number)]})
        with pytest.raises(KeyboardInterrupt):
            stopped.train()
        assert len(stopped.history) == 1 and "log" not in vars(stopped)
        resumed = make_trainer(folder, num_rounds=2, eval_folds=2)
        resumed.train(resume_from_checkpoint=True)
        assert_same_outcome(outcome(resumed), outcome(whole))
        assert [r.intervals for r in resumed.history] == [r.intervals for r in whole.history]


def test_folds_write_no_logs_and_give_everything_back(tmp_path: Path) -> None:
    class Logs(TrainerCallback):
        entries: list[int] = []  # noqa: RUF012

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.entries.append(state.global_step)

    def entries(folds: int | None) -> int:
        Logs.entries = []
        trainer = make_trainer(
            tmp_path / str(folds), num_rounds=1, eval_folds=folds, logging_strategy="epoch", save_strategy="epoch",
            trainer={"callbacks": [Logs()]},
        )  # fmt: skip
        trainer.train()
        assert str(trainer.args.save_strategy.value) == "epoch" and trainer.compute_metrics is accuracy
        assert len(trainer.train_dataset) == 8
        return len(Logs.entries)

    assert entries(2) == entries(None) > 0


# What cannot be


def test_fewer_rows_than_folds_are_as_many_folds_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tmp_path, num_rounds=1, initial_size=2, eval_folds=5, log_level="warning")
    with caplog.at_level(logging.WARNING, "hf_noise_al"):
        trainer.train()
    assert trainer.history[0].num_rows["cv_accuracy"] == 2
    assert "`eval_folds` is 5, and 2 rows are labeled: they are 2 folds." in caplog.text


def test_a_single_labeled_row_is_refused_before_any_training(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, num_rounds=1, initial_size=1, eval_folds=2)
    with pytest.raises(ValueError, match=r"Cannot cross-validate \(`eval_folds`\) over 1 labeled row: .* Raise"):
        trainer.train()
    assert trainer.pool.num_labeled == 0
    trainer.annotate([0], [1])
    with pytest.raises(ValueError, match="Cannot cross-validate"):
        trainer.fine_tune()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"eval_folds": 1}, "`eval_folds` must be at least 2, got 1"),
        ({"eval_folds": 2.0}, "`eval_folds` must be a whole number"),
        ({"eval_folds": 2, "warm_start": True}, "cannot be used with `warm_start`: each fold would start from weights"),
        ({"eval_folds": 2, "include_for_metrics": ["inputs"]}, r"cannot be used with `include_for_metrics` \(inputs\)"),
    ],
)
def test_settings_that_folds_cannot_be_right_with_are_refused(
    tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        ActiveTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **settings)


def test_a_run_does_not_go_on_with_other_folds(tmp_path: Path) -> None:
    make_trainer(tmp_path, num_rounds=1, eval_folds=2).train()
    with pytest.raises(ValueError, match="eval_folds"):
        make_trainer(tmp_path, num_rounds=2, eval_folds=3).train(resume_from_checkpoint=True)


# Rows and intervals of an evaluation set, and few of them


class Known:
    """An accuracy with its interval, as the tasks have it."""

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        return accuracy(prediction)

    def intervals(self, prediction: EvalPrediction, values: dict[str, float]) -> dict[str, tuple[float, float]]:
        assert values == accuracy(prediction)
        return {"accuracy": (values["accuracy"] - 0.1, values["accuracy"] + 0.1)}


def test_every_evaluation_set_has_its_rows_and_intervals(tmp_path: Path) -> None:
    sets = {"a": make_pool(7, seed=1), "b": make_pool(9, seed=2)}
    trainer = make_trainer(
        tmp_path, num_rounds=1, eval_folds=2, trainer={"eval_dataset": sets, "compute_metrics": Known()}
    )
    trainer.train()
    (record,) = trainer.history
    assert {record.num_rows[f"eval_a_{name}"] for name in ("loss", "accuracy")} == {7}
    assert {record.num_rows[f"eval_b_{name}"] for name in ("loss", "accuracy")} == {9}
    assert set(record.intervals) == {"eval_a_accuracy", "eval_b_accuracy", "cv_accuracy"}
    for name, (low, high) in record.intervals.items():
        assert np.mean([low, high]) == pytest.approx(record.metrics[name])
    assert set(record.num_rows) == set(record.metrics)


@pytest.mark.parametrize(("rows", "warnings"), [(20, 1), (49, 1), (50, 0)])
def test_few_evaluation_rows_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rows: int, warnings: int
) -> None:
    trainer: ActiveTrainer = make_trainer(
        tmp_path, num_rounds=2, log_level="warning", trainer={"eval_dataset": make_pool(rows), "model": make_model()}
    )
    with caplog.at_level(logging.WARNING, "hf_noise_al"):
        trainer.train()
    assert caplog.text.count(f"the evaluation set has {rows} rows") == warnings


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    tiny_tasks.save(folder)
    return folder


@pytest.mark.parametrize("task", tiny_tasks.TASKS)
def test_every_task_can_be_cross_validated(tmp_path: Path, tasks: Path, task: str) -> None:
    settings = {"num_rounds": 1, "eval_folds": 2, "log_level": "error"}
    trainer = tiny_tasks.make_trainer(tasks, task, tmp_path / "run", **settings)
    trainer.train()
    (record,) = trainer.history
    names = {name.removeprefix("cv_") for name in record.metrics if name.startswith("cv_")}
    summaries = {name.removeprefix("eval_") for name in record.metrics if "_" not in name.removeprefix("eval_")}
    assert names >= summaries and record.num_rows["cv_loss"] == tiny_tasks.STEP
    measured = {name for name in record.metrics if not name.endswith("_loss")}
    assert measured <= record.intervals.keys(), "every number of every task has an interval"
    for name, (low, high) in record.intervals.items():
        assert low <= record.metrics[name] <= high and low < high
