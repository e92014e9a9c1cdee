"""What several files ask of two processes and of four is asked of them together, once."""

from pathlib import Path
from typing import Any

import launching
import processes_script
import pytest
import tiny_tasks


@pytest.fixture(scope="session")
def two_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    tiny_tasks.save(folder / "tasks")
    return folder


@pytest.fixture(scope="session")
def two(two_folder: Path) -> list[dict[str, Any]]:
    """What each of two processes found, by part."""
    parts = [
        "gradients",
        "queries",
        "look",
        "shards",
        "tasks",
        "unanswered",
        "whole",
        *(["resume"] if launching.RESUMES else []),
    ]
    return launching.fork(processes_script.main, "ddp", 2, two_folder, *parts)


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of four processes found, by part."""
    folder = tmp_path_factory.mktemp("four")
    return launching.fork(processes_script.main, "ddp", 4, folder, "queries", "shards")
