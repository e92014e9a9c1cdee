"""A run of `hf-noise-al` that waits for labels, kept in the folder `stored_command`; run this file to make it anew."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import tiny_tasks
from tiny_run import read_state

STORED = Path(__file__).with_suffix("")
SETTINGS: dict[str, Any] = {
    **{"task": "tabular_regression", "dataset_name": "data", "output_dir": "run", "label_file": "labels.jsonl"},
    **{"use_cpu": "true", "initial_size": 6, "query_size": 5, "num_rounds": 3, "max_steps": 2, "save_strategy": "no"},
    **{"report_to": "none", "disable_tqdm": "true", "split_seed": 3},
}


def write_data(folder: Path) -> dict[str, Any]:
    """Write the pool without labels, and the evaluation rows; return the settings of the task."""
    settings = tiny_tasks.save_tables(folder / "made")
    from datasets import Dataset, DatasetDict, load_from_disk

    splits: Any = load_from_disk(folder / "made" / "data")
    prices = splits["train"]["price"][:]
    train: Dataset = splits["train"].remove_columns("price").add_column("price", [None] * len(prices))
    DatasetDict({"train": train.cast(splits["validation"].features), "validation": splits["validation"]}).save_to_disk(
        folder / "data"
    )
    (folder / "prices.json").write_text(json.dumps(prices))
    return settings


def answer(folder: Path) -> None:
    """Label in `labels.jsonl` every row that was asked for."""
    prices = json.loads((folder / "prices.json").read_text())
    asked = [json.loads(line) for path in sorted(folder.glob("run/queries/*.jsonl")) for line in path.open()]
    lines = [json.dumps({"row": line["row"], "label": prices[line["row"]]}) for line in asked]
    (folder / "labels.jsonl").write_text("".join(f"{line}\n" for line in lines))


def end(folder: Path, run: Any) -> dict[str, Any]:
    """Answer and go on, by `run`, until the rounds are over; return rows, labels, scores and the curve."""
    for _ in range(2):
        answer(folder)
        run()
    state = read_state(folder / "run")
    curve = json.loads((folder / "run" / "learning_curve.json").read_text())
    return {"annotations": state["annotations"], "points": curve["points"], "files": files(folder / "run")}


def files(folder: Path) -> list[str]:
    """Return the files at the top of a run and those of its queries."""
    return sorted(path.relative_to(folder).as_posix() for path in [*folder.glob("*"), *folder.glob("queries/*")])


def main() -> None:
    from hf_noise_al.commands.main import main as command

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        os.chdir(folder)
        words = tiny_tasks.flags({**SETTINGS, **write_data(folder)})
        recipe = folder / "recipe.yaml"
        recipe.write_text("{}\n")
        (folder / "labels.jsonl").touch()
        resume = ["run", str(recipe), *words, "--resume_from_checkpoint", "true"]
        command(["run", str(recipe), *words])
        answer(folder)
        command(resume)
        shutil.rmtree(STORED, ignore_errors=True)
        shutil.copytree(folder / "run", STORED / "run")
        outcome = end(folder, lambda: command(resume))
        (STORED / "expected.json").write_text(json.dumps(outcome, indent=1))


if __name__ == "__main__":
    main()
