"""Every kind of output head: a run that is stopped within a round and resumed ends as one that never was."""

import os
import random
import signal
import time
from functools import partial
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


class StopInARound(TrainerCallback):
    """Stop as Ctrl-C does, after the first step of a training."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("tasks")
    save(folder)
    return folder


VIT: dict[str, Any] = {
    **{"image_size": 8, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "intermediate_size": 16},
}


@pytest.fixture(scope="module", params=[*TASKS, "vit"])
def whole(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what makes trainers of a task, and how a run of two rounds ends that goes through."""
    task, settings = request.param, {"max_steps": 2, "acquisition_kwargs": {"num_projections": 16}}
    if task == "vit":
        task, settings["model_config"] = "image_classification", {"model_type": "vit", **VIT}
    make = partial(make_trainer, folder, task, **settings, learning_rate=1e-2)
    trainer = make(tmp_path_factory.mktemp("whole"))
    trainer.train()
    assert [record.num_labeled for record in trainer.history] == [8, 14]
    return {"make": make, "outcome": outcome(trainer)}


def test_a_run_stopped_in_a_round_resumes_exactly(whole: dict[str, Any], tmp_path: Path) -> None:
    stopped = whole["make"](tmp_path)
    stopped.add_callback(StopInARound())
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    assert stopped.pool.num_labeled == 8 and not stopped.history
    resumed = whole["make"](tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert_same_outcome(outcome(resumed), whole["outcome"])


def test_a_run_resumed_after_a_finished_round_ends_as_one_that_went_on(whole: dict[str, Any], tmp_path: Path) -> None:
    whole["make"](tmp_path, num_rounds=1).train()
    resumed = whole["make"](tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert_same_outcome(outcome(resumed), whole["outcome"])


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
