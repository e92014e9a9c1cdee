"""Every kind of output head on one process and on two: the same picks, the same gradients, the same measures."""

from pathlib import Path
from typing import Any

import launching
import pytest
import tasks_script
from tiny_tasks import QUERY, TASKS, save

pytestmark = pytest.mark.slow  # it starts interpreters


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    folder: Path = tmp_path_factory.mktemp("tasks")
    save(folder)
    alone = tasks_script.work(folder, folder / "alone", 1)
    return alone, launching.launch(tasks_script.__file__, "ddp", 2, folder)


@pytest.mark.parametrize("estimator", list(tasks_script.ESTIMATORS))
@pytest.mark.parametrize("task", list(TASKS))
def test_two_processes_ask_for_the_same_rows(task: str, estimator: str, found: Any) -> None:
    alone, two = found
    name = f"{task} by {estimator}"
    assert len(set(alone["queries"][name]["indices"])) == QUERY
    for each in two:
        assert each["queries"][name] == alone["queries"][name]


@pytest.mark.parametrize("task", ["tabular_regression", "segmentation", "image_classification"])
def test_two_processes_learn_and_measure_the_same(task: str, found: Any) -> None:
    alone, two = found
    # Trainer's mean of the loss counts a last batch that is filled up by the rows it was filled with
    expected = {name: value for name, value in alone["steps"][task].items() if name != "eval_loss"}
    assert expected["gradient"] > 0 and len(expected) > 1
    for each in two:
        measured = {name: value for name, value in each["steps"][task].items() if name != "eval_loss"}
        assert measured == pytest.approx(expected, rel=1e-3, nan_ok=True)
