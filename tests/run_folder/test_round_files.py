"""Weights on the disk: complete or not there, and only the last ones kept. Kills are in test_resume.py."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import make_trainer
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import TrainOutput

from hf_noise_al.run_folder import round_files
from hf_noise_al.run_folder.round_files import RoundFiles


@pytest.fixture
def files(tmp_path: Path) -> RoundFiles:
    return RoundFiles(make_trainer(tmp_path))


def first_weight(files: RoundFiles) -> torch.Tensor:
    return next(iter(files.trainer.model.parameters()))


def test_a_saved_round_comes_back_with_its_output(files: RoundFiles) -> None:
    output = TrainOutput(4, 0.5, {"train_loss": 0.5})
    weight = first_weight(files).clone()
    files.save(2, output, 1.5)
    with torch.no_grad():
        first_weight(files).zero_()
    assert files.finished_training(2, 8) is None, "only a resumed run may use it"
    files.resumed_round = 2
    assert files.finished_training(2, 8) == (output, 1.5)
    assert torch.equal(first_weight(files), weight)


def test_a_failed_save_leaves_nothing_that_looks_complete(files: RoundFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: object, folder: Path, write: bool) -> None:
        (folder / "weights.safetensors").write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(round_files, "save_weights", fail)
    with pytest.raises(OSError, match="disk full"):
        files.save(0, TrainOutput(1, 0.0, {}), 1.0)
    assert not (files.round_folder(0) / "model").exists()
    assert files.output(0) is None


def test_only_the_last_weights_are_kept(files: RoundFiles) -> None:
    for number in range(3):
        files.save(number, TrainOutput(number, 0.0, {}), 1.0)
    files.forget_before(2)
    assert [path.parent.name for path in files.folder.glob("*/model")] == ["02"]


def test_a_round_starts_from_the_initial_weights(files: RoundFiles) -> None:
    weight = first_weight(files).clone()
    files.save_initial()
    with torch.no_grad():
        first_weight(files).zero_()
    assert files.begin(0, 8) is None
    assert torch.equal(first_weight(files), weight)


def test_clearing_takes_the_weights_back_and_removes_the_folder(files: RoundFiles) -> None:
    weight = first_weight(files).clone()
    files.save_initial()
    with torch.no_grad():
        first_weight(files).zero_()
    files.clear()
    assert torch.equal(first_weight(files), weight)
    assert not files.folder.exists()


def test_seconds_of_killed_processes_are_counted_until_their_last_checkpoint(tmp_path: Path) -> None:
    class KilledLater(TrainerCallback):
        def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
            if state.global_step == 1:
                raise KeyboardInterrupt
            trainer._round_started -= 1000  # as if it had taken so long

    settings = {"save_strategy": "steps", "save_steps": 1, "num_rounds": 1}
    trainer = make_trainer(tmp_path, trainer={"callbacks": [KilledLater()]}, **settings)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    for _ in range(2):  # the second time there is nothing left to do
        trainer = make_trainer(tmp_path, **settings)
        trainer.train(resume_from_checkpoint=True)
        assert 1000 < trainer.history[0].train_seconds < 1100


@pytest.mark.parametrize("text", [None, "", "nan", "inf", "-1", "soon"])
def test_seconds_that_are_not_known_count_as_none(files: RoundFiles, tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "round_seconds.txt").write_text(text)
    assert files.seconds_before(str(tmp_path)) == files.seconds_before(None) == 0
    (tmp_path / "round_seconds.txt").write_text("2.5")
    assert files.seconds_before(str(tmp_path)) == 2.5
