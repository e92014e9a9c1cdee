"""Every kind of output head: a run that is stopped within a round and resumed ends as one that never was."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from datasets import Dataset
from test_resume import in_child, load, wait_for
from tiny_run import assert_same_outcome, outcome
from tiny_tasks import TASKS, make_trainer, save
from transformers import TrainerCallback, ViTConfig, ViTForImageClassification


class StopInSecondRound(TrainerCallback):
    """Stop as Ctrl-C does, after the first step of the second training."""

    trainings = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainings += 1

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainings == 2:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("tasks")
    save(folder)
    return folder


@pytest.mark.parametrize("task", list(TASKS))
def test_a_stopped_run_resumes_exactly(task: str, folder: Path, tmp_path: Path) -> None:
    settings = {"num_rounds": 3, "max_steps": 2, "acquisition_kwargs": {"num_projections": 16}}
    whole = make_trainer(folder, task, tmp_path / "whole", **settings)
    whole.train()
    stopped = make_trainer(folder, task, tmp_path / "parts", **settings)
    stopped.add_callback(StopInSecondRound())
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    assert len(stopped.history) == 1
    resumed = make_trainer(folder, task, tmp_path / "parts", **settings)
    resumed.train(resume_from_checkpoint=True)
    assert [record.num_labeled for record in resumed.history] == [8, 14, 20]
    assert_same_outcome(outcome(resumed), outcome(whole))


VIT: dict[str, Any] = {
    **{"image_size": 8, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "intermediate_size": 16},
}


@pytest.mark.parametrize(("task", "model"), [*((task, None) for task in TASKS), ("image_classification", "vit")])
def test_a_run_resumed_after_a_finished_round_ends_as_one_that_went_on(
    task: str, model: str | None, folder: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"max_steps": 2, "acquisition_kwargs": {"num_projections": 16}, "learning_rate": 1e-2}
    if model is not None:
        settings["model_config"] = {"model_type": model, **VIT}
    whole = make_trainer(folder, task, tmp_path / "whole", **settings)
    whole.train()
    make_trainer(folder, task, tmp_path / "parts", **settings, num_rounds=1).train()
    resumed = make_trainer(folder, task, tmp_path / "parts", **settings)
    resumed.train(resume_from_checkpoint=True)
    assert [record.num_labeled for record in resumed.history] == [8, 14]
    assert_same_outcome(outcome(resumed), outcome(whole))


def test_each_round_of_a_vit_starts_from_its_initial_weights(tmp_path: Path) -> None:
    """transformers 5 writes the names of a ViT in another form than it has them."""
    config = ViTConfig(**VIT, num_channels=1, num_labels=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ViTForImageClassification(config)
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pool = Dataset.from_dict({"pixel_values": torch.rand(12, 1, 8, 8).tolist(), "label": [0, 1] * 6}).with_format(
        "torch"
    )
    started: list[bool] = []

    class Compare(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            started.append(all(tensor.equal(initial[name]) for name, tensor in model.state_dict().items()))

    trainer = tiny_run.make_trainer(
        tmp_path,
        pool=pool,
        trainer={"model": model, "data_collator": None, "eval_dataset": None, "callbacks": [Compare()]},
        **{"num_rounds": 2, "initial_size": 4, "query_size": 2},
    )
    trainer.train()
    assert started == [True, True]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["text", "vit", *TASKS])
def test_a_run_killed_at_random_moments_ends_as_one_that_never_was(kind: str, folder: Path, tmp_path: Path) -> None:
    generator, result = random.Random(kind), tmp_path / "result"

    def run(output: Path) -> dict[str, Any]:
        settings: dict[str, Any] = {"num_rounds": 3, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
        if kind == "text":
            trainer = tiny_run.make_trainer(output, **settings)
        else:
            settings |= {"acquisition_kwargs": {"num_projections": 16}}
            settings |= {"model_config": {"model_type": "vit", **VIT}} if kind == "vit" else {}
            trainer = make_trainer(folder, "image_classification" if kind == "vit" else kind, output, **settings)
        trainer.train(resume_from_checkpoint=(output / "active_state.json").exists())
        return outcome(trainer)

    started = time.monotonic()
    assert wait_for(in_child(lambda: run(tmp_path / "whole"), result)) == 0
    seconds, expected, kills, runs = time.monotonic() - started, load(result), 0, 0
    while kills < 20:
        output = tmp_path / f"run-{runs}"
        result.unlink()
        while not result.exists():
            child = in_child(lambda output=output: run(output), result)
            time.sleep(generator.uniform(0.02, 0.6) * seconds)
            os.kill(child, signal.SIGKILL)
            code = wait_for(child)
            assert code in (0, -signal.SIGKILL)
            kills += code == -signal.SIGKILL
            if kills == 20 and not result.exists():
                assert wait_for(in_child(lambda output=output: run(output), result)) == 0
        assert_same_outcome(load(result), expected)
        runs += 1
