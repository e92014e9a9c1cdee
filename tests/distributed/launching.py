"""How tests start a script on several processes of this machine."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers

ROOT = Path(__file__).resolve().parent.parent.parent
RESUMES = int(transformers.__version__.split(".")[0]) >= 5
"""Whether upstream resumes a training on several processes."""
only_if_upstream_resumes = pytest.mark.skipif(
    not RESUMES, reason="transformers 4 cannot load an optimizer on several processes without an accelerator"
)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run(
    script: str, launcher: str, processes: int, folder: Path, *parts: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Start `script` on `processes` processes with `folder` and `parts` as its arguments; wait for its end.

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
        config = ROOT / "recipes" / "accelerate" / f"{launcher}.yaml"
        command = ["accelerate.commands.launch", "--config_file", str(config), "--num_processes", str(processes)]
        command += ["--main_process_port", str(free_port())]
    return subprocess.run(
        [sys.executable, "-m", *command, script, str(folder), *parts],
        env={**os.environ, **variables, "PYTHONPATH": os.pathsep.join([str(ROOT), inherited]), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def launch(
    script: str, launcher: str, processes: int, folder: Path, *parts: str, check: bool = True, **environment: str
) -> list[dict[str, Any]]:
    """Start the script and return what each process wrote to ``found-RANK.json``; without `check` it must fail."""
    done = run(script, launcher, processes, folder, *parts, **environment)
    assert (done.returncode == 0) == check, f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    if not check:
        return []
    found = [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(processes)]
    assert [each["processes"] for each in found] == [processes] * processes
    return found
