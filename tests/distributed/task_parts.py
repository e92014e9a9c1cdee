"""Queries and one step of training of several tasks; on one process, and as a part of processes_script.py."""

from pathlib import Path
from typing import Any

from segmentation_data import CONFIGS
from tiny_tasks import QUERY, STEP, TASKS, make_trainer

ESTIMATORS: dict[str, dict[str, Any]] = {
    "finite_difference": {"num_perturbations": 5},
    "gradient_sketch": {"num_projections": 64},
}


def query(folder: Path, task: str, estimator: str, output: Path) -> dict[str, Any]:
    asked = {"estimator": estimator, **ESTIMATORS[estimator]}
    found = make_trainer(folder, task, output / f"{task}-{estimator}", acquisition_kwargs=asked).query(QUERY)
    return {"indices": found.indices.tolist(), "scores": found.scores.tolist()}


def one_step(folder: Path, task: str, output: Path, processes: int) -> dict[str, float]:
    """Return the gradient of a step of `STEP` rows, with nothing random in it, and what the evaluation measured."""
    without_batch_norm = {"model_config": {"model_type": "dpt", **CONFIGS["dpt"]}} if task == "segmentation" else {}
    trainer = make_trainer(
        folder,
        task,
        output / f"{task}-step",
        **without_batch_norm,
        per_device_train_batch_size=STEP // processes,
        logging_strategy="steps",
        logging_steps=1,
        num_rounds=1,
    )
    trainer.augmentation = None
    trainer.train()
    norm = next(float(entry["grad_norm"]) for entry in trainer.state.log_history if "grad_norm" in entry)
    return {"gradient": norm, **trainer.history[0].metrics}


def work(folder: Path, output: Path, processes: int) -> dict[str, Any]:
    return {
        "queries": {f"{task} by {name}": query(folder, task, name, output) for task in TASKS for name in ESTIMATORS},
        "steps": {task: one_step(folder, task, output, processes) for task in TASKS if task != "token_classification"},
    }
