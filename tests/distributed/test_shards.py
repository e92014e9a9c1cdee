"""Rows that stay on 2 and 4 processes give the choice of one process that holds them all."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import shards_script

from hf_noise_al.selection import k_center_greedy

pytestmark = pytest.mark.slow  # it starts interpreters

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module", params=[2, 4])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder, processes = tmp_path_factory.mktemp("shards"), request.param
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")]),
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(HERE / "shards_script.py"), str(rank), str(processes), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    for process in started:
        _, messages = process.communicate(timeout=400)
        assert process.returncode == 0, messages[-6000:]
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(processes)]


def test_shards_give_the_choice_of_one_process_however_the_rows_are_dealt(found: list[dict[str, Any]]) -> None:
    expected = {name: k_center_greedy(*case).tolist() for name, case in shards_script.cases().items()}
    assert len(expected) == 21
    for process in found:
        assert set(process["choices"]) == {*shards_script.DEALS_OF[len(found)], "every row kept exact"}
        for deal, choices in process["choices"].items():
            assert choices == expected, deal


def test_a_fault_on_one_process_fails_on_every_process_and_is_named(found: list[dict[str, Any]]) -> None:
    last = len(found) - 1
    for process in found:
        errors = process["errors"]
        assert "row 13 holds NaN or infinity (1 of 20 rows do)" in errors["not finite"]
        assert "Cannot query 21 of 20 unlabeled examples" in errors["too many"]
        assert f"Cannot use the shard of process {last}. Its indices must be" in errors["not ascending"]
        assert f"{' + '.join([str(20 // len(found))] * len(found))} rows of 20 candidates" in errors["held twice"]
        assert "columns and 4 + 4 bytes a number. Give all rows the same columns and dtype" in errors["columns"]
