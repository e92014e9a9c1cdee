"""Done on several processes by tests of this folder; what each process found goes to ``FOLDER/found-RANK.json``."""

import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import shard_parts
import task_parts
from tiny_run import make_model, make_pool, make_trainer, outcome
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainerCallback

from hf_noise_al import ActiveTrainer, HeldOutLabels, LabelFile

ROUNDS: dict[str, Any] = {
    "num_train_epochs": 2,
    "save_strategy": "steps",
    "save_steps": 1,
    "per_device_train_batch_size": 2,
    "acquisition_kwargs": {"num_perturbations": 2},
}


class Stop(TrainerCallback):
    """Stop the second round: by an exception, or by killing the process."""

    def __init__(self, kill: bool) -> None:
        self.kill = kill
        self.trainings = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainings += 1

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainings == 2 and state.global_step == 3:
            if not self.kill:
                raise KeyboardInterrupt
            if args.process_index == args.world_size - 1:
                os.kill(os.getpid(), signal.SIGKILL)


def gradient_norms(folder: Path, processes: int) -> list[float]:
    found = []
    for accumulation in (1, 2):
        trainer = make_trainer(
            folder / f"gradient-{accumulation}",
            pool=make_pool(16),
            trainer={
                "model": make_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
                "annotator": HeldOutLabels([0]),
            },
            per_device_train_batch_size=16 // processes // accumulation,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            logging_strategy="steps",
            logging_steps=1,
            max_grad_norm=1e9,
        )
        trainer.fine_tune()
        found += [float(entry["grad_norm"]) for entry in trainer.state.log_history if "grad_norm" in entry]
    return found


ESTIMATORS: dict[str, dict[str, Any]] = {
    "finite_difference": {"num_perturbations": 5},
    "gradient_sketch": {"num_projections": 64},
}
ONE_BY_ONE = {"estimator": "gradient_sketch", "one_by_one": True, "num_projections": 64}


def query_trainer(folder: Path, acquisition: str, rows: int, **settings: Any) -> ActiveTrainer:
    """Return a trainer that will query by `acquisition`, which may also name an estimator, or "one_by_one"."""
    settings_of = {name: {"estimator": name, **chosen} for name, chosen in ESTIMATORS.items()}
    chosen = {**settings_of, "one_by_one": ONE_BY_ONE}.get(acquisition)
    return make_trainer(
        folder / f"query-{acquisition}-{rows}",
        pool=make_pool(rows),
        acquisition="noise_stability" if chosen else acquisition,
        acquisition_kwargs=chosen,
        **settings,
    )


def query(folder: Path, acquisition: str, rows: int = 203, size: int = 30) -> dict[str, Any]:
    trainer = query_trainer(folder, acquisition, rows)
    before = torch.get_rng_state()
    found = trainer.query(size)
    return {
        "indices": found.indices.tolist(),
        "scores": found.scores.tolist(),
        "random state kept": torch.equal(before, torch.get_rng_state()),
    }


def queries(folder: Path) -> dict[str, Any]:
    others = ("entropy", "random", "core_set", "badge", "bald")
    found = {name: query(folder, name) for name in (*ESTIMATORS, *others)}
    found["one_by_one"] = query(folder, "one_by_one", rows=31, size=7)
    few = {f"few by {name}": query(folder, name, rows=3, size=2) for name in (*ESTIMATORS, "badge", "bald")}
    return {**found, **few}


def parameters(trainer: ActiveTrainer) -> list[float]:
    return [float(parameter.detach().double().sum()) for parameter in trainer.model.parameters()]


def first_look_then_training(folder: Path, fresh: bool) -> dict[str, Any]:
    trainer = make_trainer(folder / f"look-{fresh}", fresh=fresh, num_rounds=2, per_device_train_batch_size=2)
    trainer.evaluate()
    trainer.query(4)
    trainer.train()
    return {
        "wrapped": isinstance(trainer.model_wrapped, DistributedDataParallel),
        "parameters": parameters(trainer),
        "rows": [annotation.row for annotation in trainer.pool.annotations],
    }


def plain(trainer: ActiveTrainer) -> dict[str, Any]:
    found = outcome(trainer)
    return {
        "annotations": [[a.row, a.label, a.round, a.score] for a in found["annotations"]],
        "history": found["history"],
        "weights": parameters(trainer),
    }


def whole_run(folder: Path) -> dict[str, Any]:
    trainer = make_trainer(folder / "whole", **ROUNDS)
    trainer.train()
    return plain(trainer)


def run_stop_and_resume(folder: Path) -> dict[str, Any]:
    stopped = make_trainer(folder / "parts", trainer={"callbacks": [Stop(kill=False)]}, **ROUNDS)
    with suppress(KeyboardInterrupt):
        stopped.train()
    resumed = make_trainer(folder / "parts", **ROUNDS)
    resumed.train(resume_from_checkpoint=True)
    return plain(resumed)


def killed_run(folder: Path) -> dict[str, Any]:
    resume = (folder / "killed" / "active_state.json").exists()
    callbacks = [] if resume else [Stop(kill=True)]
    trainer = make_trainer(folder / "killed", trainer={"callbacks": callbacks}, **ROUNDS)
    trainer.train(resume_from_checkpoint=resume)
    return plain(trainer)


def unanswered(folder: Path) -> str:
    """What a process hears where the labels that a query asks for are not there."""
    missing = LabelFile(folder / "nobody-wrote-this.jsonl")
    pool = make_pool().remove_columns(["label"])
    trainer = make_trainer(folder / "unanswered", pool=pool, trainer={"annotator": missing})
    try:
        trainer.train()
    except ValueError as error:
        return str(error)
    return "nothing"


def main(folder: Path, parts: Sequence[str]) -> None:
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    work = {
        "gradients": lambda: gradient_norms(folder, processes),
        "queries": lambda: queries(folder),
        "look": lambda: [first_look_then_training(folder, fresh) for fresh in (False, True)],
        "whole": lambda: whole_run(folder),
        "resume": lambda: run_stop_and_resume(folder),
        "killed": lambda: killed_run(folder),
        "shards": shard_parts.work,
        "unanswered": lambda: unanswered(folder),
        "tasks": lambda: task_parts.work(folder / "tasks", folder / "tasks" / "several", processes),
    }
    found = {"processes": processes, **{part: work[part]() for part in parts}}
    (folder / f"found-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
    torch.distributed.destroy_process_group()  # its threads, still there at exit, can abort the process
