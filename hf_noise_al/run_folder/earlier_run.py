"""What people did for an earlier run in a folder, kept in one place before another run starts there."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from ..exchange.query_file import forget_open_lines
from ..files.atomic import sync_folder
from ..files.run_names import (
    CURVE_FILE,
    JOURNAL_FILE,
    PICTURE_FILE,
    QUERIES_FOLDER,
    SET_ASIDE_FILE,
    SETTINGS_FILE,
    STATE_FILE,
)
from ..refusals import Refusal

OWN_FILES = (STATE_FILE, JOURNAL_FILE)
"""What a run writes for itself: nobody's label file."""
_RESULTS = (CURVE_FILE, PICTURE_FILE, SETTINGS_FILE, SET_ASIDE_FILE)
_KEPT = re.compile(r"previous-\d+")


def keep_earlier_run(folder: Path, label_file: Path | None) -> Path | None:
    """Move the labels, queries, settings and curve of an earlier run in `folder` to its first free ``previous-N``.

    The state goes first: when this is cut off, no run is in the folder, nothing is lost, and the next call moves the
    rest. What people answer in goes last.

    Args:
        folder: Of the run.
        label_file: What the new run was told to read answers from. It stays where it is, for who names it means the
            answers in it: they would look like lost if they were gone from there when they are read. A file, and the
            query files, are copied. Of the query files, only what people typed stays: the rest asks for an earlier
            run. Another folder may hold much more than answers, and no run writes to it.

    Returns:
        Where things are kept; None where there was nothing.
    """
    own = [folder / name for name in (STATE_FILE, *_RESULTS, QUERIES_FOLDER, JOURNAL_FILE)]
    if not any((folder / name).exists() for name in (*OWN_FILES, QUERIES_FOLDER)):
        return None
    kept = _first_free(folder)
    kept.mkdir()
    stays = None if label_file is None else _entry_of(folder, label_file)
    if stays is not None and stays not in own and stays.is_file():
        own.append(stays)
    for path in own:
        if path == stays:
            _copy(path, kept / path.name)
        elif path.exists():
            os.replace(path, kept / path.name)
            sync_folder(kept)
            sync_folder(folder)
    if stays == folder / QUERIES_FOLDER:
        forget_open_lines(stays)
    return kept


def is_kept(folder: Path) -> bool:
    """Return whether `folder` is one that an earlier run was moved to."""
    return _KEPT.fullmatch(folder.name) is not None


def refuse_own_file(folder: Path, label_file: Path) -> None:
    """Raise ValueError where `label_file` is one that the run in `folder` writes its own labels to."""
    for name in OWN_FILES:
        if label_file.resolve() == (folder / name).resolve():
            raise Refusal(
                f"{label_file} cannot be the label file: a run keeps what it was told under this name, and would write "
                "over it. Give it another name, such as answers.jsonl."
            )


def _first_free(folder: Path) -> Path:
    number = 1
    while (kept := folder / f"previous-{number}").exists():
        number += 1
    return kept


def _entry_of(folder: Path, path: Path) -> Path | None:
    """Return what in `folder` is `path` or holds it; None where that is elsewhere, or kept from an earlier run."""
    if not path.exists():
        return None
    whole = path.absolute()
    for entry in (whole, *whole.parents):  # step by step, for links on the way
        if entry.parent.samefile(folder):
            return None if is_kept(entry) else folder / entry.name
    return None


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)
    sync_folder(target.parent)
