"""Seeded runs end as they did when they were stored: a change of the code that moves a pick has to say so."""

import json
import shutil
from pathlib import Path

import pytest
import tiny_tasks
from golden_runs import GOLDEN, RUNS, run
from stored_command import SETTINGS, STORED, end, write_data

from hf_noise_al.commands.main import main

COUNTS = ("round", "num_labeled", "query_size", "num_rows")
EXPECTED = json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("golden")
    tiny_tasks.save(folder / "data")
    return folder / "data"


@pytest.mark.slow  # the older transformers draw other initial weights
@pytest.mark.parametrize("name", RUNS)
def test_a_seeded_run_ends_as_it_did(name: str, data: Path, tmp_path: Path) -> None:
    found, expected = run(name, data, tmp_path), EXPECTED[name]
    assert found.keys() == expected.keys()
    for exact in ("rows", "rounds", "labels", "num_labeled"):
        assert found[exact] == expected[exact], exact
    assert found["scores"] == [
        None if score is None else pytest.approx(score, rel=1e-4) for score in expected["scores"]
    ]
    for metrics, values in zip(found["metrics"], expected["metrics"], strict=True):
        assert metrics == pytest.approx(values, rel=1e-4, abs=1e-6)
    assert found["weights"].keys() == expected["weights"].keys()
    for tensor, numbers in expected["weights"].items():
        assert found["weights"][tensor] == pytest.approx(numbers, rel=1e-4, abs=1e-6), tensor


def test_every_stored_run_is_compared() -> None:
    assert list(EXPECTED) == RUNS


@pytest.mark.slow
def test_a_run_of_the_command_that_waits_for_labels_goes_on_as_it_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was stored is a run whose second query waits for its labels; what it asks for and leaves stays the same."""
    shutil.copytree(STORED / "run", tmp_path / "run")
    settings = write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text("{}\n")
    words = ["run", "recipe.yaml", *tiny_tasks.flags({**SETTINGS, **settings}), "--resume_from_checkpoint", "true"]
    codes: list[int] = []
    found, expected = (
        end(tmp_path, lambda: codes.append(main(words))),
        json.loads((STORED / "expected.json").read_text()),
    )
    assert codes == [2, 0], "after the first answers another query waits, after the second the run is over"
    for note, before in zip(found["annotations"], expected["annotations"], strict=True):
        assert note == {**before, "score": before["score"] and pytest.approx(before["score"], rel=1e-4)}
    for point, before in zip(found["points"], expected["points"], strict=True):
        kept = {"round", "num_labeled", "query_size", "num_rows"}
        assert {name: point[name] for name in kept & point.keys()} == {
            name: before[name] for name in kept & before.keys()
        }
        assert point["metrics"] == pytest.approx(before["metrics"], rel=1e-4)
    assert found["files"] == expected["files"]
