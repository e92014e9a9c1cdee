"""The notebooks: executed at smoke size, stored with their outputs."""

import base64
from pathlib import Path

import nbformat
import pytest
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


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert all(picture.startswith(b"\x89PNG") for picture in pictures(notebook))
    assert path.stat().st_size < 2**20, "pictures small enough for a repository"
