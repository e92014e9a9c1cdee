"""One process at a time in a folder: who is there is named, and a killed one leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_noise_al.files.run_names import HOLDER_FILE
from hf_noise_al.run_folder import run_lock
from hf_noise_al.run_folder.run_lock import RunLock

HOLD = """
import os, sys, time
from pathlib import Path
from hf_noise_al.run_lock import RunLock
lock = RunLock()
lock.acquire(Path(sys.argv[1]))
if len(sys.argv) > 2 and os.fork() == 0:  # as a data loading worker, which has the lock open, too
    time.sleep(float(sys.argv[2]))
    os._exit(0)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator["subprocess.Popen[str]"]:
    words = [sys.executable, "-c", HOLD, str(tmp_path), *getattr(request, "param", [])]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("holder", [["1.0"]], indirect=True, ids=["with a worker"])
def test_a_second_process_is_refused_and_a_kill_frees_the_folder(
    tmp_path: Path, holder: "subprocess.Popen[str]"
) -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match=f"Process {holder.pid} on .* works in .*Wait for it or end it"):
        RunLock().acquire(tmp_path)
    assert time.monotonic() - started < 5, "the living are not waited for"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
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
