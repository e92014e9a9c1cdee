"""How tests start a script on several processes of this machine: forked from this one, or as new interpreters."""

import json
import multiprocessing.connection
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils.launch import prepare_multi_gpu_env

ROOT = Path(__file__).resolve().parent.parent.parent
RESUMES = int(transformers.__version__.split(".")[0]) >= 5
"""Whether upstream resumes a training on several processes."""
only_if_upstream_resumes = pytest.mark.skipif(
    not RESUMES, reason="transformers 4 cannot load an optimizer on several processes without an accelerator"
)
LIMIT = 400
"""Seconds that the processes may take."""
GRACE = 60
"""Seconds that the others may take to end once one of them has failed."""

Main = Callable[[Path, Sequence[str]], None]
"""The main function of a script: it does the parts in the folder and writes ``found-RANK.json``."""


class Ended(NamedTuple):
    """How processes ended: the exit code of each (minus the signal, where one ended it), and what they wrote."""

    exit_codes: list[int]
    output: str


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def config_words(config: str, processes: int, port: int) -> list[str]:
    """Return the options of `accelerate launch` for a file in recipes/accelerate."""
    path = ROOT / "recipes" / "accelerate" / f"{config}.yaml"
    return ["--config_file", str(path), "--num_processes", str(processes), "--main_process_port", str(port)]


# ---- new interpreters: what users do; each takes ten seconds to import torch and transformers --------------------


def run(
    script: str, launcher: str, processes: int, folder: Path, *parts: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Start `script` on `processes` new interpreters with `folder` and `parts` as its arguments; wait for its end.

    Args:
        script: The file.
        launcher: "torchrun", or the name of a file in recipes/accelerate for `accelerate launch`.
        processes: How many.
        folder: Where it works.
        parts: What it does.
        environment: Variables for it.
    """
    inherited = os.environ.get("PYTHONPATH", "")
    variables = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    if launcher == "torchrun":
        command = ["torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(free_port())]
    else:
        command = ["accelerate.commands.launch", *config_words(launcher, processes, free_port())]
    return subprocess.run(
        [sys.executable, "-m", *command, script, str(folder), *parts],
        env={**os.environ, **variables, "PYTHONPATH": os.pathsep.join([str(ROOT), inherited]), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def launch(
    script: str, launcher: str, processes: int, folder: Path, *parts: str, check: bool = True, **environment: str
) -> list[dict[str, Any]]:
    """Start new interpreters and return what each wrote to ``found-RANK.json``; without `check` they must fail."""
    done = run(script, launcher, processes, folder, *parts, **environment)
    assert (done.returncode == 0) == check, f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return read_found(folder, processes) if check else []


# ---- forked from this process: all is imported already -----------------------------------------------------------


def run_forked(main: Main, config: str, processes: int, folder: Path, *parts: str, **environment: str) -> Ended:
    """Call `main(folder, parts)` on forked processes that are one gloo group; wait for their ends.

    The environment is what `accelerate launch` makes of the file `config` of recipes/accelerate. Where a process
    fails, nobody ends the others, as a launcher would: they hear of it by themselves.
    """
    fork = multiprocessing.get_context("fork")
    port = free_port()
    variables = {**launched_environment(config, processes, port), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    variables |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "ACCELERATE_USE_CPU": "true"}
    variables |= environment
    arguments = [(main, rank, folder, parts, variables) for rank in range(processes)]
    ranks: list[BaseProcess] = [fork.Process(target=_rank, args=each, daemon=True) for each in arguments]
    for process in ranks:
        process.start()
    end = time.monotonic() + LIMIT
    while any(process.is_alive() for process in ranks) and time.monotonic() < end:
        if any(process.exitcode for process in ranks):
            end = min(end, time.monotonic() + GRACE)
        multiprocessing.connection.wait([process.sentinel for process in ranks if process.is_alive()], timeout=1)
    for process in ranks:
        process.kill()
        process.join()
    output = "\n".join((folder / f"output-{rank}.txt").read_text() for rank in range(processes))
    return Ended([process.exitcode or 0 for process in ranks], output)


def fork(
    main: Main, config: str, processes: int, folder: Path, *parts: str, check: bool = True, **environment: str
) -> list[dict[str, Any]]:
    """Fork processes and return what each wrote to ``found-RANK.json``; without `check` each of them must fail."""
    ended = run_forked(main, config, processes, folder, *parts, **environment)
    assert [code == 0 for code in ended.exit_codes] == [check] * processes, (
        f"{ended.exit_codes}\n{ended.output[-8000:]}"
    )
    return read_found(folder, processes) if check else []


def _rank(main: Main, rank: int, folder: Path, parts: Sequence[str], variables: dict[str, str]) -> None:
    """Be process `rank`: as a new interpreter is, but for the modules that are imported."""
    output = os.open(folder / f"output-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # pytest's are files of its own
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.update(variables, RANK=str(rank), LOCAL_RANK=str(rank))
    os.chdir(folder)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    random.seed()
    np.random.seed()
    torch.manual_seed(rank)
    torch.set_num_threads(1)
    main(folder, parts)
    torch.distributed.destroy_process_group()


def launched_environment(config: str, processes: int, port: int) -> dict[str, str]:
    """Return the variables that `accelerate launch` adds for a file in recipes/accelerate."""
    arguments = launch_command_parser().parse_args([*config_words(config, processes, port), "script.py"])
    checked, *_ = _validate_launch_command(arguments)
    variables: dict[str, str] = prepare_multi_gpu_env(checked)
    return {name: value for name, value in variables.items() if os.environ.get(name) != value}


def read_found(folder: Path, processes: int) -> list[dict[str, Any]]:
    """Return what each process wrote, and remove it, so that nobody takes it for what the next ones found."""
    paths = [folder / f"found-{rank}.json" for rank in range(processes)]
    found: list[dict[str, Any]] = [json.loads(path.read_text()) for path in paths]
    for path in paths:
        path.unlink()
    assert [each["processes"] for each in found] == [processes] * processes
    return found
