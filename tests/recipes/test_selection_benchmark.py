"""The benchmark of selections at the size of a smoke test."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

SCRIPT = Path(__file__).resolve().parents[2] / "recipes" / "benchmarks" / "selection.py"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("selection_benchmark", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "selection_benchmark", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "_version", lambda package: "")  # whatever is installed here
    return module


def test_prints_one_table_and_writes_the_figures(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "figures.json"
    benchmark.main(["--sizes", "60", "80", "--width", "8", "--k", "5", "--repeats", "2", "--json", str(target)])
    table = capsys.readouterr().out
    rows = json.loads(target.read_text())["rows"]
    assert [row["name"] for row in rows[:4]] == [
        f"{variant}, log normal lengths 60 x 8" for variant in ("plain", "lazy", "small-text", "scikit-activeml")
    ]
    assert len(rows) == 16, "four variants, two kinds of rows, two sizes"
    for row in rows:
        assert (
            (row.get("note") == "not installed")
            == (row["seconds"] is None)
            == ("lazy" not in row["name"] and "plain" not in row["name"])
        )
        assert row["seconds"] is None or row["ratio"] > 0
    assert all(row["ratio"] == 1 for row in rows if row["name"].startswith("plain"))
    assert f"torch {torch.__version__}" in table and "5 choices, median of 2" in table
    assert table.count("| equal lengths 80 x 8 |") == 4


@pytest.mark.parametrize("suffix", [".npy", ".pt", ".safetensors"])
def test_measures_rows_of_a_file(benchmark: ModuleType, tmp_path: Path, suffix: str) -> None:
    rows, path = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), tmp_path / f"rows{suffix}"
    if suffix == ".npy":
        np.save(path, rows.numpy())
    elif suffix == ".pt":
        torch.save(rows, path)
    else:
        save_file({"rows": rows}, path)
    assert torch.equal(benchmark.load_rows(path), rows)
    figures = benchmark.run([], k=100, repeats=1, rows_file=path, variants=["plain", "lazy"])
    assert [figure.rows for figure in figures] == [f"rows{suffix} 30 x 4"] * 2


def test_refuses_files_that_hold_no_rows(benchmark: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="Use a .pt, .npy or .safetensors file"):
        benchmark.load_rows(tmp_path / "rows.csv")
    np.save(tmp_path / "flat.npy", np.zeros(3))
    with pytest.raises(SystemExit, match="must hold one tensor of two dimensions"):
        benchmark.load_rows(tmp_path / "flat.npy")


def test_skips_what_does_not_fit_and_says_so(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "free_memory", lambda: 3.0 * 60 * 8 * 4)
    monkeypatch.setitem(benchmark.COPIES, "plain", 3.5)
    plain, lazy = benchmark.run([60], width=8, k=5, repeats=1, variants=["plain", "lazy"])[:2]
    assert plain.seconds is None and plain.note.startswith("does not fit: needs")
    assert lazy.seconds > 0 and lazy.ratio is None
    assert {figure.note for figure in benchmark.run([600], width=8, k=5, repeats=1)} == {"the rows do not fit"}


def test_ends_when_the_lazy_choice_is_another(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(benchmark.VARIANTS, "lazy", lambda rows, k: torch.arange(k))
    with pytest.raises(SystemExit, match="The lazy choice of .* is not the plain one"):
        benchmark.run([60], width=8, k=5, repeats=1, variants=["plain", "lazy"])


@pytest.mark.parametrize(
    "words", [["--repeats", "0"], ["--sizes", "0"], ["--k", "0"], ["--rows", "none.npy"], ["--json", "none/x.json"]]
)
def test_wrong_input_is_refused_before_anything_is_measured(
    benchmark: ModuleType, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(words)
    said = capsys.readouterr()
    assert ("Set it to at least 1." in said.err or "There is no f" in said.err) and not said.out
