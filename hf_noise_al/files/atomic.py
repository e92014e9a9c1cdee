"""Files on the disk: replaced in one step or only appended to; what was written survives a power cut."""

from __future__ import annotations

import os
from pathlib import Path

from ..refusals import Refusal


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` to a temporary file beside `path`, flush it to the disk, and put it in the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.incomplete")
    data = content.encode() if isinstance(content, str) else content
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def append_at(path: Path, position: int, data: bytes) -> None:
    """Write `data` into the file at `path` from `position` on, flushed to the disk; cut what stood behind.

    Raises:
        ValueError: the file ends before `position`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    size = 0 if new else path.stat().st_size
    if size < position:
        raise Refusal(f"{path} has {size} bytes where {position} were written. Restore it from a copy.")
    with open(path, "wb" if new else "r+b") as file:
        file.truncate(position)
        file.seek(position)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in `folder` to the disk, where the system can: a rename is lost in a power cut otherwise."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_aside(path: Path) -> Path | None:
    """Rename an existing file at `path` to its first free ``NAME.previous-N.json``; return the new path."""
    if not path.exists():
        return None
    number = 1
    while (kept := path.with_name(f"{path.stem}.previous-{number}{path.suffix}")).exists():
        number += 1
    os.replace(path, kept)
    return kept
