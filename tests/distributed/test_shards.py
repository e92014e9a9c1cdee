"""Rows that stay on 2 and 4 processes give the choice of one process that holds them all."""

from typing import Any

import launching
import processes_script
import pytest
import shard_parts

from hf_noise_al.selection.k_center import k_center_greedy

pytestmark = pytest.mark.slow  # it starts processes


@pytest.fixture(scope="module", params=[2, 4])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the processes found."""
    processes, folder = request.param, tmp_path_factory.mktemp("shards")
    return [each["shards"] for each in launching.fork(processes_script.main, "ddp", processes, folder, "shards")]


def test_shards_give_the_choice_of_one_process_however_the_rows_are_dealt(found: list[dict[str, Any]]) -> None:
    expected = {name: k_center_greedy(*case).tolist() for name, case in shard_parts.cases().items()}
    assert len(expected) == 21
    for process in found:
        assert set(process["choices"]) == {*shard_parts.DEALS_OF[len(found)], "every row kept exact"}
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
