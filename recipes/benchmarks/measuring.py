"""Seconds, interleaved and against a unit; peak memory; and what it was measured on."""

import ctypes
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from variants import VARIANTS, Bench, Unavailable

from hf_noise_al.observing.unchanged import untouched_random_state

LIBRARIES = "torch transformers datasets accelerate numpy hf-noise-al baal small-text scikit-activeml".split()
PEERS = ("baal", "small_text", "scikit_activeml")


@dataclass(frozen=True)
class Row:
    """What one variant cost, or why it did not run."""

    name: str
    cost: float | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    reason: str | None = None

    def with_peak(self, peak: int | None) -> "Row":
        return replace(self, peak_bytes=peak)

    def as_json(self) -> dict[str, Any]:
        """Return the fields; `reason` only where the variant did not run."""
        return {name: value for name, value in asdict(self).items() if name != "reason" or value is not None}


def measure(bench: Bench, names: Sequence[str], repeats: int) -> list[Row]:
    """Run every variant `repeats` times in turn, a unit before each; return a row for each name."""
    unit = VARIANTS["forward"](bench)
    runs: dict[str, Callable[[], object]] = {}
    reasons: dict[str, str] = {}
    for name in dict.fromkeys(names):
        try:
            runs[name] = unit if name == "forward" else ready(bench, name)
        except Unavailable as error:
            reasons[name] = " ".join(str(error).split())
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    costs: dict[str, list[float]] = {name: [] for name in runs}
    bar = tqdm(total=repeats * len(runs), unit="run", disable=not bench.is_main_process)
    for _ in range(repeats):
        units: list[float] = []
        found: dict[str, float] = {}
        for name, run in runs.items():
            bar.set_description(name)
            units.append(seconds_of(bench, unit))
            if name != "forward":
                found[name] = seconds_of(bench, run)
            bar.update()
        middle = statistics.median(units) if units else 0.0
        for name in runs:
            seconds[name].append(found.get(name, middle))
            costs[name].append(seconds[name][-1] / middle)
    bar.close()
    return [
        Row(name, reason=reasons[name])
        if name in reasons
        else Row(name, statistics.median(costs[name]), statistics.median(seconds[name]))
        for name in dict.fromkeys(names)
    ]


def ready(bench: Bench, name: str) -> Callable[[], object]:
    """Return the variant `name`, ready to run, after it ran on a few rows.

    Raises:
        Unavailable: it cannot be made, or refuses this model. A library of others may fail in any way.
    """
    expected = (Unavailable, ValueError, *((Exception,) if name.startswith(PEERS) else ()))
    try:
        few = bench.few()
        seconds_of(few, VARIANTS[name](few))
        return VARIANTS[name](bench)
    except expected as error:
        kind = "" if isinstance(error, (Unavailable, ValueError)) else f"{type(error).__name__}: "
        raise Unavailable(f"{kind}{error}") from error


def seconds_of(bench: Bench, run: Callable[[], object]) -> float:
    """Return how long `run` takes, on all processes together."""
    with untouched_random_state(), bench.precision():
        _wait(bench)
        started = time.perf_counter()
        run()
        _wait(bench)
        return time.perf_counter() - started


def peak_bytes(bench: Bench, name: str) -> int | None:
    """Return the bytes of the model's tensors and what memory grew by, at its highest, during one run.

    None where the system does not tell.
    """
    tensors = [*bench.model.parameters(), *bench.model.buffers()]
    model = sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())
    if name == "forward":
        few, candidates = bench.few().candidates(), bench.candidates()
        few.observe(few.observable)  # a whole pass would leave behind what the measured one is to take

        def run() -> object:
            return candidates.observe(candidates.observable)

    else:
        run = ready(bench, name)
    gc.collect()
    if bench.trainer.args.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds_of(bench, run)
        return model + torch.cuda.max_memory_allocated() - before
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)  # what set-up left behind would hide what the run takes
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark starts anew
    except OSError:
        return None
    before = _resident("VmRSS")
    seconds_of(bench, run)
    return model + _resident("VmHWM") - before


def describe_machine(bench: Bench) -> list[str]:
    """Return three lines: machine and device, processes and threads, versions."""
    device = bench.trainer.args.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    memory = ""
    with suppress(AttributeError, OSError, ValueError):
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    versions = [f"python {platform.python_version()}"]
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions.append(f"{library} {version(library)}")
    return [
        f"{platform.platform()}, {os.cpu_count()} cores{memory}; {device.type}: {name}",
        f"processes: {bench.trainer.accelerator.num_processes}, threads of each: {torch.get_num_threads()}",
        ", ".join(versions),
    ]


def _wait(bench: Bench) -> None:
    if bench.trainer.args.device.type == "cuda":
        torch.cuda.synchronize()
    bench.trainer.accelerator.wait_for_everyone()


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{field}:"))


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
