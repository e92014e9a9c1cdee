"""A trial on a few rows refuses, before the first round, what would fail late; it leaves everything as it was."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny_run import VOCABULARY, accuracy, collate, make_model, make_pool, make_trainer
from torch import nn
from transformers import EvalPrediction
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_noise_al import ActiveTrainer, NoiseStability
from hf_noise_al.commands import main as cli
from hf_noise_al.commands.prepare import prepare
from hf_noise_al.commands.run import train
from hf_noise_al.settings.parsing import parse


def in_numbers(rows: Dataset) -> Dataset:
    return rows.remove_columns("label").add_column("label", [float(n) for n in range(len(rows))])


def error_of(prediction: EvalPrediction) -> dict[str, float]:
    return {"mae": float(np.abs(prediction.predictions[:, 0] - prediction.label_ids).mean())}


REGRESSION = {"eval_dataset": in_numbers(make_pool(6)), "compute_metrics": error_of}


def never_trains(trainer: ActiveTrainer, monkeypatch: pytest.MonkeyPatch) -> ActiveTrainer:
    monkeypatch.setattr(trainer, "training_step", lambda *_, **__: pytest.fail("trained"))
    return trainer


def refused(trainer: ActiveTrainer, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect a refusal of `train` with nothing trained, and no state on the disk that would say that a run began."""
    with pytest.raises(ValueError, match=message):
        never_trains(trainer, monkeypatch).train()
    assert not (Path(str(trainer.args.output_dir)) / "active_state.json").exists()


# ---- training ------------------------------------------------------------------------------------------------------


def test_label_smoothing_of_numbers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(
        tmp_path,
        pool=in_numbers(make_pool()),
        label_smoothing_factor=0.1,
        trainer={**REGRESSION, "model": make_model(1)},
    )
    refused(
        trainer, "Cannot train: a few rows .*`label_smoothing_factor` is 0.1, which works .*: leave it", monkeypatch
    )


def test_columns_that_a_collator_cannot_take_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def strict(rows: list[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        if "text" in rows[0]:
            raise TypeError("too many dimensions 'str'")
        return collate(rows)

    trainer = make_trainer(tmp_path, remove_unused_columns=False, trainer={"data_collator": strict})
    refused(trainer, r"TypeError: too many dim.* `remove_unused_columns` is False, .*text\): leave the", monkeypatch)
    make_trainer(tmp_path, num_rounds=1, trainer={"data_collator": strict}).train()


class Other(nn.Module):
    """Returns what it is told to, beside logits."""

    def __init__(self, loss: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.embedding, self.head, self.loss = nn.Embedding(VOCABULARY, 4), nn.Linear(4, 2), loss

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor | None = None
    ) -> SequenceClassifierOutput:
        logits = self.head(self.embedding(input_ids).mean(dim=1))
        return SequenceClassifierOutput(loss=None if labels is None else self.loss(logits), logits=logits)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda logits: logits.sum(dim=1), r"the loss is of shape \(2,\). Let the model, or `compute_loss_func`, re"),
        (lambda logits: logits.detach().sum(), "the loss depends on no weight that is trained. Let some weights"),
        (
            lambda logits: logits @ torch.zeros(3),
            "a few rows were tried before the first round, and that failed with Runtime",
        ),
    ],
)
def test_a_loss_that_trains_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: Callable[[torch.Tensor], Any], message: str
) -> None:
    trainer = make_trainer(tmp_path, trainer={"model": Other(loss)}, acquisition_kwargs={"num_perturbations": 2})
    refused(trainer, f"Cannot train: {message}", monkeypatch)


def test_labels_that_were_just_told_are_tried_before_they_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool().remove_columns("label")
    trainer = make_trainer(tmp_path, pool=pool, trainer={"model": Other(lambda logits: logits @ torch.zeros(3))})
    trainer.annotate([3, 5], [0, 1])
    with pytest.raises(ValueError, match="Cannot train: a few rows were tried"):
        never_trains(trainer, monkeypatch).fine_tune()


@pytest.mark.parametrize("labels", [3, 4])
def test_a_round_without_a_batch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: int) -> None:
    trainer = make_trainer(tmp_path, dataloader_drop_last=True, initial_size=labels, num_rounds=1)
    if labels == 3:
        refused(trainer, "would train on nothing: it has 3 labels, and .* a batch of fewer than 4", monkeypatch)
    else:
        assert trainer.train().global_step == 1


# ---- queries -------------------------------------------------------------------------------------------------------


def test_a_perturbation_that_leaves_no_finite_output_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    with torch.no_grad():
        model.classifier.weight.fill_(3e38)  # finite by itself
        model.bert.pooler.dense.weight.zero_()
        model.bert.pooler.dense.bias.zero_()
    acquisition = NoiseStability(noise_scale=1.0, num_perturbations=2, estimator="finite_difference")
    trainer = make_trainer(tmp_path, trainer={"model": model, "acquisition": acquisition})
    refused(trainer, "NaN or infinite", monkeypatch)


def test_what_the_gradient_sketch_cannot_follow_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mixed(Other):
        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor | None = None
        ) -> SequenceClassifierOutput:
            output = super().forward(input_ids, attention_mask, labels)
            return SequenceClassifierOutput(loss=output.loss, logits=output.logits - output.logits.mean(dim=0))

    model = Mixed(lambda logits: logits.square().sum())
    settings = {"estimator": "gradient_sketch"}
    trainer = make_trainer(tmp_path, trainer={"model": model}, acquisition_kwargs=settings)
    refused(trainer, "The gradient sketch cannot tell examples apart at head.weight", monkeypatch)


def test_a_rehearsal_is_the_same_choice_with_one_pass() -> None:
    class Watched(NoiseStability):
        pass

    small = Watched(noise_scale=0.5, num_perturbations=50, estimator="gradient_sketch").rehearsal()
    assert type(small) is NoiseStability, "what a user wrote sees real queries alone"
    assert (small.noise_scale, small.estimator) == (0.5, "gradient_sketch")
    assert small.num_perturbations == small.num_output_projections == small.num_projections == 1


# ---- evaluation ----------------------------------------------------------------------------------------------------


def intent(rows: Dataset) -> Dataset:
    return rows.rename_column("label", "intent")


@pytest.mark.parametrize("several", [False, True])
def test_labels_called_as_in_the_pool_are_measured(tmp_path: Path, several: bool) -> None:
    rows = intent(make_pool(20, seed=1))
    trainer = make_trainer(
        tmp_path,
        pool=intent(make_pool()),
        label_column="intent",
        num_rounds=1,
        trainer={"eval_dataset": {"a": rows, "b": make_pool(20, seed=1)} if several else rows},
    )
    trainer.train()
    plain = make_trainer(tmp_path / "plain", num_rounds=1)
    plain.train()
    if several:
        assert trainer.history[0].metrics["eval_a_accuracy"] == plain.history[0].metrics["eval_accuracy"]
        assert trainer.history[0].metrics["eval_b_accuracy"] == plain.history[0].metrics["eval_accuracy"]
    else:
        assert trainer.history[0].metrics == plain.history[0].metrics
    assert trainer.evaluate(rows)["eval_accuracy"] == trainer.predict(rows).metrics["test_accuracy"]


@pytest.mark.parametrize(
    ("arguments", "rows", "message"),
    [
        (
            {},
            make_pool(6).remove_columns("label"),
            "the evaluation set has no labels; its columns are input_ids, attention_mask, text. Give it the column",
        ),
        ({}, {"a": make_pool(6), "b": intent(make_pool(6))}, "the evaluation set 'b' has no labels; .*intent"),
        ({"label_names": ["foo"]}, make_pool(6), r"`label_names` is \['foo'\], .* Set `label_names` to \['labels'\]"),
        ({"prediction_loss_only": True}, make_pool(6), "`prediction_loss_only` is set, .* Leave it out"),
    ],
)
def test_a_metric_that_would_never_be_computed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], rows: Any, message: str
) -> None:
    trainer = make_trainer(tmp_path, trainer={"eval_dataset": rows}, **arguments)
    refused(trainer, f"`compute_metrics` would never be called: {message}", monkeypatch)


@pytest.mark.parametrize(
    ("count", "message"),
    [(0, "The evaluation set has 0 rows, and nothing"), (6, "`dataloader_drop_last` drops a batch of fewer than 8")],
)
def test_an_evaluation_set_without_a_batch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, message: str
) -> None:
    rows = make_pool(6).select(range(count))
    refused(make_trainer(tmp_path, trainer={"eval_dataset": rows}, dataloader_drop_last=True), message, monkeypatch)


def test_without_a_metric_only_the_loss_that_is_waited_for_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = {"compute_metrics": None, "eval_dataset": make_pool(6).remove_columns("label")}
    best = {"metric_for_best_model": "loss", "eval_strategy": "epoch"}
    refused(make_trainer(tmp_path, trainer=trainer, **best), "is 'loss', and no evaluation would measure", monkeypatch)
    made = make_trainer(tmp_path, trainer=trainer, num_rounds=1, log_level="warning")
    with caplog.at_level("WARNING", "hf_noise_al"):
        made.train()
    assert made.history[0].metrics == {}
    assert "Rounds will have no metrics: the evaluation set has no labels" in caplog.text


def test_a_metric_sees_no_few_rows(tmp_path: Path) -> None:
    seen = []

    def measure(prediction: EvalPrediction) -> dict[str, float]:
        seen.append(len(prediction.label_ids))
        return accuracy(prediction)

    make_trainer(tmp_path, num_rounds=1, trainer={"compute_metrics": measure}).train()
    assert seen == [20]


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        ({"output_hidden_states": True}, {}, "predictions of the evaluation set are a tuple of 2, and it takes one"),
        ({"output_attentions": True, "attn_implementation": "eager"}, {}, "asks for `output_attentions`: leave them"),
        ({}, {"eval_do_concat_batches": False}, "predictions of the evaluation set are a list, one entry for each"),
    ],
)
def test_predictions_that_a_metric_cannot_take_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any],
    settings: dict[str, Any],
    message: str,
) -> None:
    trainer = {"model": make_model(**config)}
    refused(make_trainer(tmp_path / "a", trainer=trainer, **settings), message, monkeypatch)

    def measure(prediction: EvalPrediction) -> dict[str, float]:
        parts = prediction.predictions if isinstance(prediction.predictions, list) else [prediction.predictions]
        return {"parts": len(parts)}

    def logits_alone(outputs: Any, labels: Any) -> Any:
        return outputs[0] if isinstance(outputs, tuple) else outputs

    fits = {**trainer, "compute_metrics": measure, "preprocess_logits_for_metrics": logits_alone}
    make_trainer(tmp_path / "b", trainer=fits, num_rounds=1, **settings).train()


def test_an_evaluation_of_ones_own_is_left_alone(tmp_path: Path) -> None:
    class Own(ActiveTrainer):
        def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
            return {"eval_own": 1.0}

    rows = make_pool(6).remove_columns("label")
    made = make_trainer(tmp_path, num_rounds=1)
    own = Own(
        model=make_model(),
        args=made.args,
        train_dataset=make_pool(),
        eval_dataset=rows,
        compute_metrics=accuracy,
        data_collator=collate,
    )
    own.train()
    assert own.history[0].metrics == {"eval_own": 1.0}


# ---- nothing is changed --------------------------------------------------------------------------------------------


def test_a_trial_leaves_weights_modes_gradients_and_random_states(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tmp_path)
    trainer.model.train()
    trainer.model.bert.embeddings.eval()
    modes = [module.training for module in trainer.model.modules()]
    weights = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    with caplog.at_level("INFO", "hf_noise_al"):
        trainer._trial_run.try_out(trainer.acquisition, trainer.annotator)
    assert trainer._trial_run.tried == {"query", "training", "evaluation"}
    assert [module.training for module in trainer.model.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in trainer.model.state_dict().items())
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0]) and (np.random.get_state()[1] == states[1]).all()
    assert not caplog.records and logging.root.manager.disable == logging.NOTSET
    assert list(tmp_path.iterdir()) == [] and trainer.state.log_history == []


# ---- hf-noise-al run -----------------------------------------------------------------------------------------------


@pytest.fixture
def words(tmp_path: Path, tiny_bert_folder: Path, make_texts: Callable[..., Dataset]) -> list[str]:
    """The words of a command that runs two rounds."""
    (tmp_path / "data").mkdir()
    for name, count in (("train", 20), ("validation", 12)):
        make_texts(count).to_parquet(str(tmp_path / "data" / f"{name}.parquet"))
    (tmp_path / "recipe.yaml").write_text(
        f"{{task: text_classification, dataset_name: {tmp_path / 'data'}, model_name_or_path: {tiny_bert_folder}, "
        f"output_dir: {tmp_path / 'out'}, num_rounds: 2, initial_size: 4, query_size: 2, max_steps: 1, use_cpu: true, "
        "acquisition_kwargs: {num_perturbations: 2}, save_strategy: 'no', disable_tqdm: true, report_to: none}"
    )
    return ["run", str(tmp_path / "recipe.yaml")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prediction_loss_only", "true"], "`prediction_loss_only` is set"),
        (["--label_names", "foo"], "`label_names` is ['foo']"),
        (["--task", "text_regression", "--label_smoothing_factor", "0.1"], "`label_smoothing_factor` is 0.1"),
    ],
)
def test_the_command_refuses_what_would_fail_late(
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(ActiveTrainer, "training_step", lambda *_, **__: pytest.fail("trained"))
    assert cli.main([*words, *flags]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("hf-noise-al: ") and message in told


@pytest.mark.parametrize(
    ("flags", "config"),
    [
        (["--remove_unused_columns", "false"], {}),
        (["--eval_do_concat_batches", "false"], {}),
        ([], {"output_attentions": True, "output_hidden_states": True, "attn_implementation": "eager"}),
        ([], {"return_dict": False}),
    ],
)
def test_the_command_does_without_settings_of_collators_and_metrics(
    words: list[str], tmp_path: Path, tiny_bert_folder: Path, flags: list[str], config: dict[str, Any]
) -> None:
    shutil.copytree(tiny_bert_folder, tmp_path / "model")
    known = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**known, **config}))
    flags = [*flags, "--per_device_eval_batch_size", "2", "--model_name_or_path", str(tmp_path / "model")]
    job = prepare(*parse(Path(words[1]), flags))
    for name, value in config.items():
        assert getattr(job.trainer.model.config, name, value) == value
    train(job)
    assert len(job.trainer.history) == 2
    assert all(job.curve.metric in record.metrics for record in job.trainer.history)


def test_a_configuration_that_contradicts_itself_is_refused(
    words: list[str], tmp_path: Path, tiny_bert_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_bert_folder, tmp_path / "model")
    known = json.loads((tmp_path / "model" / "config.json").read_text())
    contradiction = {"output_attentions": True, "attn_implementation": "sdpa"}
    (tmp_path / "model" / "config.json").write_text(json.dumps({**known, **contradiction}))
    done = cli.main([*words, "--model_name_or_path", str(tmp_path / "model")])
    if done:  # transformers 4 takes another attention instead, as some models of transformers 5 do
        assert done == 2
        assert "Cannot use the model's configuration: The `output_attentions`" in capsys.readouterr().err
