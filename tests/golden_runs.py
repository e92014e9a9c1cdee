"""Seeded runs whose picks, scores and weights are kept in `golden_runs.json`; run this file to make it anew."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_tasks
from tiny_run import make_trainer

from hf_noise_al import ActiveTrainer

GOLDEN = Path(__file__).with_suffix(".json")
FROZEN = ("noise_stability", "random", "entropy", "margin", "least_confidence", "core_set", "badge", "bald")
"""The acquisitions that there were when the runs were stored; a new one has no run to be compared with."""
SETTINGS_OF_TEXT: dict[str, dict[str, Any]] = {
    **{name: {"acquisition": name, "acquisition_kwargs": None} for name in FROZEN},
    "finite_difference": {"acquisition_kwargs": {"estimator": "finite_difference", "num_perturbations": 3}},
    "one_by_one": {"acquisition_kwargs": {"estimator": "gradient_sketch", "one_by_one": True}},
    "k_dpp": {"acquisition_kwargs": {"selection": "k_dpp"}},
    "k_means_plus_plus": {"acquisition_kwargs": {"selection": "k_means_plus_plus", "labeled_as_centers": True}},
    "top_k": {"acquisition_kwargs": {"selection": "top_k", "autocast": "bfloat16", "estimator": "gradient_sketch"}},
    "unit_rows": {"acquisition_kwargs": {"normalize_rows": True}, "candidate_size": 30},
    "warm_start": {"warm_start": True},
    "folds": {"eval_folds": 2},
    "stratified": {"initial_selection": "stratified", "fresh": True},
}
RUNS = [f"text/{name}" for name in SETTINGS_OF_TEXT] + [f"task/{name}" for name in tiny_tasks.TASKS]


def make_golden_trainer(name: str, data: Path, output: Path) -> ActiveTrainer:
    """Return the trainer of the run `name`; `data` is what `tiny_tasks.save` left."""
    kind, _, which = name.partition("/")
    if kind == "task":
        return tiny_tasks.make_trainer(data, which, output, num_rounds=3, max_steps=2)
    settings = dict(SETTINGS_OF_TEXT[which])
    if which == "bald":
        settings["acquisition_kwargs"] = {"num_samples": 3}
    return make_trainer(output, **settings)


def outcome_in_numbers(trainer: ActiveTrainer) -> dict[str, Any]:
    """Return picks, labels, scores, metrics, and two numbers for each tensor of weights."""
    return {
        "rows": [note.row for note in trainer.pool.annotations],
        "rounds": [note.round for note in trainer.pool.annotations],
        "labels": [note.label for note in trainer.pool.annotations],
        "scores": [note.score for note in trainer.pool.annotations],
        "metrics": [dict(sorted(record.metrics.items())) for record in trainer.history],
        "num_labeled": [record.num_labeled for record in trainer.history],
        "weights": {
            name: [float(value.double().norm()), float(value.double().flatten()[0])]
            for name, value in trainer.model.state_dict().items()
        },
    }


def run(name: str, data: Path, output: Path) -> dict[str, Any]:
    """Run `name` to its end and return its outcome."""
    trainer = make_golden_trainer(name, data, output)
    trainer.train()
    found: dict[str, Any] = json.loads(json.dumps(outcome_in_numbers(trainer)))
    return found


def main(say: Callable[[str], None] = print) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tiny_tasks.save(Path(folder) / "data")
        found = {}
        for number, name in enumerate(RUNS):
            found[name] = run(name, Path(folder) / "data", Path(folder) / str(number))
            say(f"{name}: {len(found[name]['rows'])} rows")
    lines = [f"{json.dumps(name)}: {json.dumps(values)}" for name, values in found.items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
