"""FSDP2 on two processes of a CPU (simulated: accelerate is told that they are GPUs): the queries of one process."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import launching
import pytest
import sharded_script
import torch
from accelerate.utils import FullyShardedDataParallelPlugin

HAS_FSDP2 = "fsdp_version" in FullyShardedDataParallelPlugin.__dataclass_fields__
pytestmark = [
    pytest.mark.slow,  # it starts interpreters
    pytest.mark.skipif(not HAS_FSDP2, reason="accelerate has FSDP2 from release 1.6 on"),
]
launch = partial(launching.launch, sharded_script.__file__, SIMULATED="1")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = {part: sharded_script.PARTS[part](folder) for part in ("queries", "deviations")}
    finally:
        torch.set_num_threads(before)
    return json.loads(json.dumps(found))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return launch("fsdp2", 2, tmp_path_factory.mktemp("two"), "queries", "deviations")


@pytest.mark.parametrize("name", ["noise_stability", "entropy", "core_set", "few"])
def test_simulated_fsdp2_asks_for_the_rows_of_one_process(
    two: list[dict[str, Any]], alone: dict[str, Any], name: str
) -> None:
    expected = alone["queries"][name]
    assert not expected["sharded"]
    for found in two:
        assert found["queries"][name]["sharded"]
        assert found["queries"][name]["indices"] == expected["indices"]
        assert found["queries"][name]["scores"] == pytest.approx(expected["scores"], rel=1e-3)


def test_simulated_fsdp2_on_four_processes_asks_for_the_rows_of_one(tmp_path: Path, alone: dict[str, Any]) -> None:
    for found in launch("fsdp2", 4, tmp_path, "queries"):
        for name, expected in alone["queries"].items():
            assert found["queries"][name]["indices"] == expected["indices"]


def test_simulated_fsdp2_leaves_every_bit_of_the_weights(two: list[dict[str, Any]]) -> None:
    kept = [query["bits kept"] for found in two for query in found["queries"].values()]
    assert len(kept) == 8 and all(kept)


def test_simulated_fsdp2_gives_the_deviations_of_one_process(two: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    expected = torch.tensor(alone["deviations"]["deviations"])
    assert expected.norm() > 0
    for found in two:
        rows = torch.tensor(found["deviations"]["deviations"])
        assert rows.shape == expected.shape
        assert (rows - expected).norm() <= 1e-5 * expected.norm()


def test_simulated_fsdp2_adds_the_noise_of_one_process(two: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    assert [found["deviations"]["smallest shard"] for found in two] == [1, 0], "one shard should be empty"
    for found in two:
        assert found["deviations"]["norms"] == pytest.approx(alone["deviations"]["norms"], rel=1e-6)
        assert found["deviations"]["moved"].keys() == alone["deviations"]["moved"].keys()
        for name, expected in alone["deviations"]["moved"].items():
            torch.testing.assert_close(
                torch.tensor(found["deviations"]["moved"][name]), torch.tensor(expected), rtol=1e-5, atol=1e-7
            )
