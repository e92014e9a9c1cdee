"""The notebooks: executed at smoke size, stored with their outputs."""

import base64
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
import transformers
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.rglob("*.ipynb"))


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook: NotebookNode) -> list[bytes]:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs if "data" in output]
    return [base64.b64decode(output.data["image/png"]) for output in outputs if "image/png" in output.data]


def test_there_are_three() -> None:
    names = [path.name for path in NOTEBOOKS]
    assert names == ["01_quickstart.ipynb", "02_noise_stability_explained.ipynb", "03_your_own_task.ipynb"]


@pytest.fixture
def smoke_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Return the folder that a notebook is started in, small; what it sets in this process is put back."""
    started, temporary = tmp_path / "started", tmp_path / "temporary"
    started.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("HF_NOISE_AL_SMOKE", "1")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(started)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # a second one would wait for the tests beside
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    with torch.random.fork_rng():
        yield started
    transformers.logging.set_verbosity(verbosity)
    if bars:
        transformers.logging.enable_progress_bar()
    plt.close("all")


# A kernel for each notebook would import its libraries anew, for 15 seconds: the cells run in this process.
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path: Path, smoke_size: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bytes] = []

    def show() -> None:
        for number in plt.get_fignums():
            file = io.BytesIO()
            plt.figure(number).savefig(file, format="png")
            drawn.append(file.getvalue())
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    notebook = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", notebook)  # its classes say that they are from there
    for number, cell in enumerate(code_cells(nbformat.read(path, as_version=4)), start=1):
        exec(compile(cell.source, f"{path.name}, cell {number}", "exec"), notebook.__dict__)
        show()  # as a notebook does with what a cell left open
        stored = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        assert len(drawn) == len(stored), f"pictures of cell {number}"
        assert all(picture.startswith(b"\x89PNG") for picture in drawn)
        drawn.clear()
    assert not list(smoke_size.iterdir()), "a notebook leaves nothing where it was started"


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_in_a_kernel(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_NOISE_AL_SMOKE", "1")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # a notebook draws where it is
    stored = nbformat.read(path, as_version=4)
    notebook = nbformat.read(path, as_version=4)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert len(pictures(notebook)) == len(pictures(stored)) > 0
    assert not list(tmp_path.iterdir()), "a notebook leaves nothing where it was started"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_with_its_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), "executed once, in order"
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert pictures(notebook) and all(picture.startswith(b"\x89PNG") for picture in pictures(notebook))
    assert path.stat().st_size < 2**20, "pictures small enough for a repository"
