"""Checksums of the files in a folder, so that what is read is what was written."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from ..refusals import Refusal
from .atomic import write_atomically
from .run_names import CHECKSUMS_FILE


def write_checksums(folder: Path) -> None:
    """Flush every file in `folder` and below it to the disk, and write their sizes and checksums beside them."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / CHECKSUMS_FILE):
        with open(path, "r+b") as file:
            os.fsync(file.fileno())
        found[path.relative_to(folder).as_posix()] = _identity(path)
    write_atomically(folder / CHECKSUMS_FILE, json.dumps(found, indent=1))


def check_folder(folder: Path) -> None:
    """Raise ValueError where the files in `folder` are not those that `write_checksums` saw.

    A folder without checksums, as the first release left it, is taken as it is where it holds anything.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        raise Refusal(
            f"Cannot resume: the weights in {folder} are gone. Restore the folder, or start afresh in another "
            "`output_dir`."
        )
    if not (folder / CHECKSUMS_FILE).exists():
        return
    try:
        expected = dict(json.loads((folder / CHECKSUMS_FILE).read_text(encoding="utf-8")).items())
        wrong = [name for name in expected if _identity(folder / name) != expected[name]]
    except (OSError, ValueError, AttributeError) as error:
        raise Refusal(_damaged(folder, CHECKSUMS_FILE, str(error))) from error
    if wrong:
        raise Refusal(_damaged(folder, wrong[0], "it is not what was written"))


def _damaged(folder: Path, name: str, reason: str) -> str:
    return (
        f"Cannot resume: {folder / name} is damaged ({reason}). Restore the folder, or start afresh in another "
        "`output_dir`."
    )


def _identity(path: Path) -> list[object]:
    """Return the size of a file and the checksum of its bytes."""
    if not path.is_file():
        return [0, "no file"]
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return [path.stat().st_size, digest.hexdigest()]
