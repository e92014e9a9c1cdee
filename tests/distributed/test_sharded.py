"""FSDP2 and ZeRO-3 on processes of a CPU (simulated: accelerate is told that they are GPUs): one process's queries."""

import json
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import launching
import pytest
import sharded_script
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from launching import only_if_upstream_resumes
from tiny_run import make_model, read_state
from transformers import BertForSequenceClassification

from hf_noise_al.upstream.weight_files import load_weights, whole_weights

HAS_FSDP2 = "fsdp_version" in FullyShardedDataParallelPlugin.__dataclass_fields__
RUNS_ON_CPU = hasattr(torch.cpu.Stream, "record_event")
without_fsdp2 = pytest.mark.skipif(
    not (HAS_FSDP2 and RUNS_ON_CPU), reason="this accelerate has no FSDP2, or this torch runs it on accelerators only"
)
without_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")
STRATEGIES = [
    pytest.param("fsdp2", marks=without_fsdp2),
    pytest.param("zero3", marks=[pytest.mark.deepspeed, without_deepspeed]),
]
ENVIRONMENTS = {
    "ddp": {},
    "fsdp2": {"SIMULATED": "fsdp2"},
    "zero3": {
        "SIMULATED": "zero3",
        "DS_ACCELERATOR": "cpu",
        "ACCELERATE_USE_CPU": "false",
        "CUDA_VISIBLE_DEVICES": "",
    },
}
pytestmark = pytest.mark.slow  # it starts processes
QUERIES = ["entropy", "core_set", *(f"{few}{name}" for name in sharded_script.ESTIMATORS for few in ("", "few by "))]


def launch(strategy: str, processes: int, folder: Path, *parts: str, check: bool = True) -> list[dict[str, Any]]:
    if strategy == "zero3":  # DeepSpeed reads its settings from the environment when it is imported
        script, environment = sharded_script.__file__, ENVIRONMENTS[strategy]
        return launching.launch(script, strategy, processes, folder, *parts, check=check, **environment)
    main = sharded_script.main
    return launching.fork(main, strategy, processes, folder, *parts, check=check, **ENVIRONMENTS[strategy])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = {
            part: sharded_script.PARTS[part](folder) for part in ("queries", "deviations", "sketch", "runs", "lora")
        }
    finally:
        torch.set_num_threads(before)
    return json.loads(json.dumps(found))


@pytest.fixture(scope="module", params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def two_folder(strategy: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two(strategy: str, two_folder: Path) -> list[dict[str, Any]]:
    return launch(strategy, 2, two_folder, "queries", "deviations", "sketch in bfloat16", "runs", "lora")


@pytest.fixture(scope="module")
def uninterrupted(strategy: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run that nobody kills ends with."""
    first, _ = launch(strategy, 2, tmp_path_factory.mktemp("uninterrupted"), "uninterrupted")
    return dict(first["uninterrupted"])


@pytest.mark.parametrize("name", QUERIES)
def test_simulated_sharding_asks_for_the_rows_of_one_process(
    strategy: str, two: list[dict[str, Any]], alone: dict[str, Any], name: str
) -> None:
    expected = alone["queries"][name]
    assert not expected["sharded"]
    for found in two:
        assert found["queries"][name]["sharded"]
        assert found["queries"][name]["indices"] == expected["indices"]
        assert found["queries"][name]["scores"] == pytest.approx(expected["scores"], rel=1e-3)


@pytest.mark.long
def test_simulated_sharding_on_four_processes_asks_for_the_rows_of_one(
    strategy: str, tmp_path: Path, alone: dict[str, Any]
) -> None:
    for found in launch(strategy, 4, tmp_path, "queries"):
        assert set(found["queries"]) <= set(QUERIES)
        for name, query in found["queries"].items():
            assert query["indices"] == alone["queries"][name]["indices"]


def test_simulated_sharding_leaves_every_bit_of_the_weights(two: list[dict[str, Any]]) -> None:
    kept = [query["bits kept"] for found in two for query in found["queries"].values()]
    assert len(kept) >= 8 and all(kept)


def test_simulated_sharding_gives_the_deviations_of_one_process(
    two: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    expected = torch.tensor(alone["deviations"]["deviations"])
    assert expected.norm() > 0
    for found in two:
        rows = torch.tensor(found["deviations"]["deviations"])
        assert rows.shape == expected.shape
        assert (rows - expected).norm() <= 1e-5 * expected.norm()


def test_simulated_sharding_adds_the_noise_of_one_process(two: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    assert [found["deviations"]["smallest shard"] for found in two] == [1, 0], "one shard should be empty"
    for found in two:
        assert found["deviations"]["norms"] == pytest.approx(alone["deviations"]["norms"], rel=1e-6)
        assert found["deviations"]["moved"].keys() == alone["deviations"]["moved"].keys()
        for name, expected in alone["deviations"]["moved"].items():
            torch.testing.assert_close(
                torch.tensor(found["deviations"]["moved"][name]), torch.tensor(expected), rtol=1e-5, atol=1e-7
            )


def test_simulated_sharding_in_bfloat16_leaves_the_sketch_nearly_what_float32_makes_it(
    strategy: str, two: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    expected = torch.tensor(alone["sketch"]["rows"])
    for found in (each["sketch in bfloat16"] for each in two):
        rows = torch.tensor(found["rows"])
        assert not torch.equal(rows, expected)
        assert torch.corrcoef(torch.stack([rows.flatten(), expected.flatten()]))[0, 1] > 0.99
        assert found["bits kept"]
        if strategy == "fsdp2":  # ZeRO-3 has its precision from a file
            assert "weights are torch.bfloat16 or become it" in found["refusal"]


@pytest.mark.parametrize("name", ["model", "model_init", "regression"])
def test_simulated_sharding_runs_after_a_look_and_ends_as_one_process_does(
    two: list[dict[str, Any]], alone: dict[str, Any], name: str
) -> None:
    expected = alone["runs"][name]
    assert two[0]["runs"] == two[1]["runs"]
    found = two[0]["runs"][name]
    assert found["sharded"] and not expected["sharded"]
    assert found["looked"] == expected["looked"]
    assert found["weights"] == pytest.approx(expected["weights"], abs=1e-4)
    if name != "regression":  # its rows tie but for rounding
        assert [row for row, *_ in found["annotations"]] == [row for row, *_ in expected["annotations"]]


def test_simulated_sharding_writes_once_what_one_process_can_load(two: list[dict[str, Any]], two_folder: Path) -> None:
    run = two_folder / "model"
    assert {path.name for path in (run / "_rounds").iterdir()} == {"initial", "01"}
    assert not [path for path in two_folder.rglob("*") if "incomplete" in path.name or "previous" in path.name]
    assert "| 1 | 16 |" in (run / "README.md").read_text()
    saved, kept = BertForSequenceClassification.from_pretrained(run), make_model()
    assert saved.config.architectures == ["BertForSequenceClassification"]
    load_weights(kept, run / "_rounds" / "01" / "model")
    for model in (saved, kept):
        sums = [float(value.double().sum()) for value in whole_weights(model, keep=True).values()]
        assert sums == two[0]["runs"]["model"]["weights"]


@pytest.mark.parametrize("chosen", ["trainable", "all"])
def test_simulated_sharding_leaves_adapters_and_base_weights(
    two: list[dict[str, Any]], alone: dict[str, Any], chosen: str
) -> None:
    expected = alone["lora"][chosen]
    for found in (each["lora"][chosen] for each in two):
        assert found["sharded"] and found["trained"]
        assert found["bits kept"] and found["base bits kept by training"]
        assert found["picked"] == expected["picked"]
        assert [row for row, *_ in found["annotations"]] == [row for row, *_ in expected["annotations"]]
        assert found["weights"] == pytest.approx(expected["weights"], abs=1e-4)
    assert alone["lora"]["trainable"]["picked"] != alone["lora"]["all"]["picked"]


@only_if_upstream_resumes
@pytest.mark.long
@pytest.mark.parametrize("part", ["killed", "killed with shards"])
def test_simulated_sharding_killed_while_it_trains_resumes_exactly(
    strategy: str, tmp_path: Path, uninterrupted: dict[str, Any], part: str
) -> None:
    if strategy == "zero3" and part != "killed":
        pytest.skip("ZeRO-3 has one kind of checkpoint")
    launch(strategy, 2, tmp_path, part, check=False)
    assert read_state(tmp_path / "killed")["round"] == 1
    assert list((tmp_path / "killed" / "_rounds" / "01").glob("checkpoint-*"))
    for found in launch(strategy, 2, tmp_path, part):
        assert found[part] == uninterrupted


@pytest.mark.parametrize("strategy", [pytest.param("fsdp2", marks=[without_fsdp2, pytest.mark.long]), "ddp"])
def test_a_process_that_dies_in_a_query_ends_the_run_and_resume_repeats_the_query(
    tmp_path: Path, strategy: str
) -> None:
    main, environment = sharded_script.main, ENVIRONMENTS[strategy]
    started = time.monotonic()
    ended = launching.run_forked(main, strategy, 2, tmp_path, "mortal", DIE="1", **environment)
    assert time.monotonic() - started < 300, "the time-out of gloo is 30 minutes"
    assert ended.exit_codes == [1, -signal.SIGKILL]
    assert "Another process of this run died or stopped answering during a query" in ended.output
    state = read_state(tmp_path / "mortal")
    assert (state["round"], state["phase"], state["pending"]) == (1, "query", None)
    resumed, _ = launch(strategy, 2, tmp_path, "mortal")
    (tmp_path / "whole").mkdir()
    whole, _ = launch(strategy, 2, tmp_path / "whole", "mortal")
    assert resumed["mortal"] == whole["mortal"]
