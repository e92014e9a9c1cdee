"""Every kind of output head: a run that is stopped within a round and resumed ends as one that never was."""

from pathlib import Path
from typing import Any

import pytest
from tiny_run import assert_same_outcome, outcome
from tiny_tasks import TASKS, make_trainer, save
from transformers import TrainerCallback


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
