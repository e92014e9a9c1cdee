"""One process at a time works in the folder of a run."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout
from transformers.utils import logging

from ..files.run_names import HOLDER_FILE, LOCK_FILE
from ..refusals import Refusal

logger = logging.get_logger(__name__)

WAIT_SECONDS = 10.0
"""How long the lock of a dead process is waited for: its data loading workers hold it until they notice."""


class RunLock:
    """The lock of a run's folder. The system frees it when the process that holds it ends, however that happens."""

    def __init__(self) -> None:
        self._lock: FileLock | None = None
        self._holder: Path | None = None

    def acquire(self, folder: Path) -> None:
        """Take the lock of `folder`, which is made where it is missing.

        Raises:
            ValueError: another process works there (its number and machine are named), or nothing can be written.
        """
        holder, lock = folder / HOLDER_FILE, FileLock(folder / LOCK_FILE, thread_local=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _take(lock, holder)
            holder.write_text(json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
        except Timeout:
            raise Refusal(
                f"{_who(holder)} works in {folder}, and two would undo each other's labels. Wait for it or end it, "
                "or pass another `output_dir`."
            ) from None
        except NotImplementedError:
            logger.warning(f"The file system of {folder} has no locks: let one process at a time work there.")
            return
        except OSError as error:
            lock.release()
            raise Refusal(f"Cannot write to {folder}: {error}. Pass another `output_dir`.") from error
        self._lock, self._holder = lock, holder

    def release(self) -> None:
        """Let others work in the folder."""
        if self._lock is not None and self._holder is not None:
            with contextlib.suppress(OSError):
                self._holder.unlink()
            self._lock.release()
        self._lock = self._holder = None


def _take(lock: FileLock, holder: Path) -> None:
    """Take `lock`, which its `holder` leaves at once where that lives, and within seconds where it is dead."""
    give_up = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            lock.acquire(timeout=0)
            return
        except Timeout:
            if not _is_dead(holder) or time.monotonic() > give_up:
                raise
        time.sleep(0.1)


def _is_dead(holder: Path) -> bool:
    """Return whether the process that `holder` names was on this machine and is gone."""
    content = _read(holder)
    process = content.get("process")
    if content.get("host") != socket.gethostname() or not isinstance(process, int) or os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _who(holder: Path) -> str:
    content = _read(holder)
    if not content:
        return "Another process"
    return f"Process {content.get('process')} on {content.get('host')}"


def _read(holder: Path) -> dict[str, object]:
    try:
        content = json.loads(holder.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
