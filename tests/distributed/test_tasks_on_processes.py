"""Every kind of output head on one process and on two: the same picks, the same gradients, the same measures."""

from pathlib import Path
from typing import Any

import launching
import processes_script
import pytest
import task_parts
import tiny_tasks
from tiny_tasks import QUERY, TASKS

pytestmark = pytest.mark.slow  # it starts processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    tiny_tasks.save(folder / "tasks")
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    return task_parts.work(folder / "tasks", folder / "tasks" / "alone", 1)


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    """What each of two processes found."""
    return launching.fork(processes_script.main, "ddp", 2, folder, "tasks")


@pytest.mark.parametrize("estimator", list(task_parts.ESTIMATORS))
@pytest.mark.parametrize("task", list(TASKS))
def test_two_processes_ask_for_the_same_rows(
    task: str, estimator: str, alone: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    name = f"{task} by {estimator}"
    assert len(set(alone["queries"][name]["indices"])) == QUERY
    for each in two:
        assert each["tasks"]["queries"][name] == alone["queries"][name]


@pytest.mark.parametrize("task", ["tabular_regression", "segmentation", "image_classification"])
def test_two_processes_learn_and_measure_the_same(task: str, alone: dict[str, Any], two: list[dict[str, Any]]) -> None:
    # Trainer's mean of the loss counts a last batch that is filled up by the rows it was filled with
    expected = {name: value for name, value in alone["steps"][task].items() if name != "eval_loss"}
    assert expected["gradient"] > 0 and len(expected) > 1
    for each in two:
        measured = {name: value for name, value in each["tasks"]["steps"][task].items() if name != "eval_loss"}
        assert measured == pytest.approx(expected, rel=1e-3, nan_ok=True)
