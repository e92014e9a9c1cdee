"""Costs against the number of candidates, and against the number of processes with one thread each."""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from variants import VARIANTS

from hf_noise_al.settings.recipe import InvalidArgument

SCRIPT = Path(__file__).with_name("acquisition.py")
DEFAULT = ["forward", "gradient_sketch_512"]
HEAD = ["| variant | candidates | processes | forward passes | seconds |", "| --- | --: | --: | --: | --: |"]


def scale(
    recipe: Path, flags: Sequence[str], options: argparse.Namespace
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Run the benchmark for each size and each number of processes; after each yield its lines, and all rows so far."""
    names = DEFAULT if options.variants == list(VARIANTS) else options.variants
    places = [(size, None) for size in options.sizes] + [(options.candidates, number) for number in options.processes]
    rows: list[dict[str, Any]] = []
    for size, processes in places:
        head, found = _run(recipe, flags, options, names, size, processes)
        lines = [_line(row, size, processes or 1) for row in found]
        if not rows:
            lines = [head, "", *HEAD, *lines]
        rows += [{**row, "candidates": size, "processes": processes or 1} for row in found]
        yield "\n".join(lines), rows


def _line(row: dict[str, Any], size: int, processes: int) -> str:
    reason = row.get("reason")
    cost = f"not available: {reason} | |" if reason else f"{row['cost']:.2f} | {row['seconds']:.2f} |"
    return f"| {row['name']} | {size:,} | {processes} | {cost}"


def _run(
    recipe: Path,
    flags: Sequence[str],
    options: argparse.Namespace,
    names: Sequence[str],
    size: int,
    processes: int | None,
) -> tuple[str, list[dict[str, Any]]]:
    """Return the lines about the machine, and the rows; without `processes` it is one, with as many threads as here."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads() if processes is None else 1)}
    launch: list[str] = []
    if processes is not None and processes > 1:
        if not torch.cuda.is_available():
            environment["ACCELERATE_USE_CPU"] = "true"
        launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
        launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        launch += ["--main_process_port", str(_free_port())]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "rows.json"
        command = [sys.executable, *launch, str(SCRIPT), str(recipe), *flags]
        command += ["--candidates", str(size), "--repeats", str(options.repeats), "--dtype", options.dtype]
        command += ["--skip_memory", "--json", str(answer), "--variants", *names]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            said, own = done.stderr.strip().splitlines(), "acquisition.py: "
            refusals = [line.removeprefix(own) for line in said if line.startswith(own)]
            reason = (refusals or said or ["no message"])[-1]
            raise InvalidArgument(f"Failed with {size} candidates on {processes or 1} processes: {reason}")
        return done.stdout.partition("\n\n")[0], json.loads(answer.read_text())["rows"]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
