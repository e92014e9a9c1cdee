"""One process at a time in a folder: who is there is named, and a killed one leaves nothing behind."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from hf_noise_al.files.run_names import HOLDER_FILE
from hf_noise_al.run_folder import run_lock
from hf_noise_al.run_folder.run_lock import RunLock


def hold(folder: Path, held: Event, worker_seconds: float) -> None:
    """Hold the lock for a minute, beside a process that has it open, too, as data loading workers have."""
    lock = RunLock()
    lock.acquire(folder)
    if os.fork() == 0:
        time.sleep(worker_seconds)
        os._exit(0)
    held.set()
    time.sleep(60)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[BaseProcess]:
    """Another process that holds the lock of the folder."""
    fork = multiprocessing.get_context("fork")
    held = fork.Event()
    process = fork.Process(target=hold, args=(tmp_path, held, 1.0))
    process.start()
    assert held.wait(60)
    yield process
    process.kill()
    process.join()


def test_a_second_process_is_refused_and_a_kill_frees_the_folder_also_from_its_worker(
    tmp_path: Path, holder: BaseProcess
) -> None:
    assert holder.pid is not None
    started = time.monotonic()
    with pytest.raises(ValueError, match=f"Process {holder.pid} on .* works in .*Wait for it or end it"):
        RunLock().acquire(tmp_path)
    assert time.monotonic() - started < 5, "the living are not waited for"
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    lock = RunLock()
    lock.acquire(tmp_path)
    assert json.loads((tmp_path / HOLDER_FILE).read_text())["process"] == os.getpid()
    lock.release()


def test_a_lock_that_a_dead_process_leaves_for_good_is_refused_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "WAIT_SECONDS", 0.3)
    lock = RunLock()
    lock.acquire(tmp_path)
    (tmp_path / HOLDER_FILE).write_text(json.dumps({"process": 2**22 - 1, "host": os.uname().nodename}))
    with pytest.raises(ValueError, match="Process 4194303 on .* works in"):
        RunLock().acquire(tmp_path)
    (tmp_path / HOLDER_FILE).write_text("half a fi")
    with pytest.raises(ValueError, match="Another process works in"):
        RunLock().acquire(tmp_path)
    lock.release()
    RunLock().acquire(tmp_path)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"Cannot write to .*file/run: .*Pass another `output_dir`"):
        RunLock().acquire(tmp_path / "file" / "run")


def test_a_file_system_without_locks_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(run_lock.FileLock, "acquire", refuse)
    lock = RunLock()
    with caplog.at_level("WARNING", "hf_noise_al"):
        lock.acquire(tmp_path)
    lock.release()
    assert "has no locks: let one process at a time work there" in caplog.text
