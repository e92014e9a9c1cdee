"""Several processes on one machine, by gloo: the same picks, whole training, one writer, exact resume."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import launching
import processes_script
import pytest
import torch
from launching import only_if_upstream_resumes
from tiny_run import read_state

pytestmark = pytest.mark.slow  # it starts processes

fork = partial(launching.fork, processes_script.main)


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def two_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two(two_folder: Path) -> list[dict[str, Any]]:
    """What each of two processes found, by part."""
    parts = ["gradients", "queries", "look", "unanswered", "whole", *(["resume"] if launching.RESUMES else [])]
    return fork("ddp", 2, two_folder, *parts)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of four processes found, by part."""
    return fork("ddp", 4, tmp_path_factory.mktemp("four"), "queries")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    with threads(1):
        return {
            "queries": processes_script.queries(folder),
            "gradients": processes_script.gradient_norms(folder, processes=1),
        }


def test_two_processes_ask_for_the_same_rows_in_the_same_order(
    two: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    for found in two:
        assert found["queries"] == alone["queries"]
    assert all(found["random state kept"] for found in alone["queries"].values())


def test_processes_that_accelerate_launches_do_what_forked_ones_do(tmp_path: Path, two: list[dict[str, Any]]) -> None:
    parts = ["gradients", "whole"]
    for found in launching.launch(processes_script.__file__, "ddp", 2, tmp_path, *parts):
        assert {part: found[part] for part in parts} == {part: two[0][part] for part in parts}


@pytest.mark.long
def test_processes_that_torchrun_starts_ask_for_what_forked_ones_ask(
    tmp_path: Path, four: list[dict[str, Any]]
) -> None:
    for found in launching.launch(processes_script.__file__, "torchrun", 4, tmp_path, "queries"):
        assert found["queries"] == four[0]["queries"]


def test_every_process_hears_that_a_query_has_no_answers(two: list[dict[str, Any]]) -> None:
    first, second = (found["unanswered"] for found in two)
    assert first.startswith("There is no label file") and second == first


def test_the_number_of_threads_does_not_change_the_picks(tmp_path: Path, alone: dict[str, Any]) -> None:
    with threads(2):
        found = processes_script.queries(tmp_path)
    for name, expected in alone["queries"].items():
        assert found[name]["indices"] == expected["indices"]
        assert found[name]["scores"] == pytest.approx(expected["scores"], rel=1e-3)


def test_gradients_do_not_depend_on_the_number_of_processes(two: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    norms = [norm for found in (*two, alone) for norm in found["gradients"]]
    assert len(norms) == 6
    assert norms == pytest.approx([norms[0]] * 6, rel=1e-4)


@pytest.mark.parametrize("fresh", [False, True])
def test_looking_before_the_first_training_leaves_the_processes_together(
    two: list[dict[str, Any]], fresh: bool
) -> None:
    first, second = (found["look"][fresh] for found in two)
    assert first["wrapped"] and second["wrapped"]
    assert first == second


@only_if_upstream_resumes
def test_a_run_stopped_on_two_processes_resumes_exactly(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert found["resume"] == two[0]["whole"]


def test_one_process_writes(two: list[dict[str, Any]], two_folder: Path) -> None:
    run = two_folder / "whole"
    assert {path.name for path in run.iterdir()} == {".lock", "_rounds", "active_state.json", "labels.jsonl", "queries"}
    assert {path.name for path in (run / "_rounds").iterdir()} == {"initial", "02"}
    state = read_state(run)
    assert len(state["annotations"]) == 20
    assert not [path for path in two_folder.rglob("*previous*")], "nothing was written twice"
    assert not [path for path in two_folder.rglob("*.incomplete")]
    assert (run / "_rounds" / "02" / "model" / "weights.safetensors").exists()


def test_four_processes_ask_for_the_same_rows_in_the_same_order(
    four: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    for found in four:
        assert found["queries"] == alone["queries"]


@only_if_upstream_resumes
def test_a_run_killed_on_two_processes_resumes_exactly(tmp_path: Path, two: list[dict[str, Any]]) -> None:
    fork("ddp", 2, tmp_path, "killed", check=False)
    assert read_state(tmp_path / "killed")["round"] == 1
    for found in fork("ddp", 2, tmp_path, "killed"):
        assert found["killed"] == two[0]["whole"]
