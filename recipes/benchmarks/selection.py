"""How long greedy k-center takes: the lazy form, the plain loop (the unit), and other libraries.

    python recipes/benchmarks/selection.py --sizes 10000 100000 --json selection.json
    python recipes/benchmarks/selection.py --rows features.pt

Variants take turns, and each figure is the median over the repeats. A peer is measured where it is installed
(`pip install --pre small-text scikit-activeml`), once, in a process of its own that is ended after `--peer_seconds`.
Peers start from the longest row as the labeled one and not from the origin, so their choices differ; what is compared
is the work of choosing as many.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
from torch import Tensor

from hf_noise_al import k_center_greedy

Variant = Callable[[Tensor, int], Any]
"""Chooses so many of the (N, D) rows."""
COPIES = {"plain": 1.1, "lazy": 0.5, "small-text": 4.0, "scikit-activeml": 4.0}
"""Memory that a variant takes at most beside the rows, in copies of them."""


@dataclass(frozen=True)
class Figure:
    name: str
    rows: str
    seconds: float | None
    ratio: float | None
    """How many times faster than the plain loop on the same rows."""
    note: str = ""


def plain(rows: Tensor, k: int) -> Tensor:
    """Choose as `k_center_greedy` does, every distance computed: the unit."""
    squared = rows.square().sum(dim=1)
    differences = torch.empty_like(rows)  # one memory for all steps: half of the time goes into getting it anew
    chosen = []
    for _ in range(k):
        index = int(squared.argmax())
        chosen.append(index)
        torch.sub(rows, rows[index], out=differences)
        torch.minimum(squared, differences.square_().sum(dim=1), out=squared)
        squared[index] = -1
    return torch.tensor(chosen)


def small_text_greedy(rows: Tensor, k: int) -> Any:
    module = importlib.import_module("small_text.query_strategies.coresets")
    labeled = np.array([int(rows.norm(dim=1).argmax())])
    return module.greedy_coreset(
        rows.numpy(), np.delete(np.arange(len(rows)), labeled), labeled, k, distance_metric="euclidean"
    )


def scikit_activeml_core_set(rows: Tensor, k: int) -> Any:
    module = importlib.import_module("skactiveml.pool")
    labels = np.full(len(rows), np.nan)
    labels[int(rows.norm(dim=1).argmax())] = 0
    return module.CoreSet(random_state=0).query(rows.numpy(), labels, batch_size=k)


VARIANTS: dict[str, Variant] = {
    "plain": plain,
    "lazy": k_center_greedy,
    "small-text": small_text_greedy,
    "scikit-activeml": scikit_activeml_core_set,
}
PEERS = ("small-text", "scikit-activeml")


def log_normal_lengths(size: int, width: int) -> Tensor:
    """Rows of random direction whose lengths spread as those of deviations do."""
    source = torch.Generator().manual_seed(0)
    rows = torch.randn(size, width, generator=source)
    return rows.mul_(torch.randn(size, 1, generator=source).exp() / rows.norm(dim=1, keepdim=True))


def equal_lengths(size: int, width: int) -> Tensor:
    """Rows of length one in eight dimensions: each choice brings many rows closer, which laziness likes least."""
    source = torch.Generator().manual_seed(0)
    rows = torch.randn(size, 8, generator=source) @ torch.randn(8, width, generator=source)
    return rows.div_(rows.norm(dim=1, keepdim=True))


def load_rows(path: Path) -> Tensor:
    """Read (N, D) rows from a .npy file, or from a .pt or .safetensors file of one tensor."""
    if path.suffix == ".npy":
        rows = torch.from_numpy(np.load(path))
    elif path.suffix == ".pt":
        rows = torch.load(path, weights_only=True)
    elif path.suffix == ".safetensors":
        (rows,) = importlib.import_module("safetensors.torch").load_file(path).values()
    else:
        raise SystemExit(f"Cannot read rows from {path}. Use a .pt, .npy or .safetensors file.")
    if not isinstance(rows, Tensor) or rows.ndim != 2:
        raise SystemExit(f"{path} must hold one tensor of two dimensions: a row per candidate.")
    return rows.float() if rows.dtype != torch.float64 else rows


def measure(
    name: str,
    rows: Tensor,
    k: int,
    repeats: int,
    variants: Sequence[str] = tuple(VARIANTS),
    peer_seconds: float = 600,
) -> list[Figure]:
    """Time each of the variants on the (N, D) `rows`, in turns: a figure each, also for those that cannot run."""
    notes = {variant: note for variant in variants if (note := _obstacle(variant, rows))}
    seconds: dict[str, list[float]] = {variant: [] for variant in variants if variant not in notes}
    chosen: dict[str, Any] = {}
    for turn in range(repeats):
        for variant, taken in seconds.items():
            if variant in PEERS:
                if turn == 0:
                    notes[variant] = _measure_apart(variant, rows, k, peer_seconds, taken)
                continue
            start = time.perf_counter()
            chosen[variant] = VARIANTS[variant](rows, k)
            taken.append(time.perf_counter() - start)
            print(f"{name}: {variant} took {taken[-1]:.2f} s", file=sys.stderr, flush=True)
    if "plain" in chosen and "lazy" in chosen and not torch.equal(chosen["plain"], chosen["lazy"]):
        raise SystemExit(f"The lazy choice of {name} is not the plain one.")
    medians = {variant: statistics.median(taken) for variant, taken in seconds.items() if taken}
    unit = medians.get("plain")
    return [
        Figure(variant, name, medians[variant], unit and unit / medians[variant])
        if variant in medians
        else Figure(variant, name, None, None, notes[variant])
        for variant in variants
    ]


def _measure_apart(variant: str, rows: Tensor, k: int, limit: float, taken: list[float]) -> str:
    """Time a peer in a process of its own, and return why it could not be, if so."""
    context = mp.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_seconds, args=(variant, rows, k, sender), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(limit):
            return f"did not finish in {limit:g} s"
        taken.append(receiver.recv())
    except EOFError:
        return "failed, as its message above says"
    finally:
        process.kill()
        process.join()
    return ""


def _send_seconds(variant: str, rows: Tensor, k: int, sender: Any) -> None:
    warnings.simplefilter("ignore")
    VARIANTS[variant](rows[:20], 2)  # imports are no part of the work
    start = time.perf_counter()
    VARIANTS[variant](rows, k)
    sender.send(time.perf_counter() - start)


def _obstacle(variant: str, rows: Tensor) -> str:
    if variant in PEERS and not _version(variant):
        return "not installed"
    needed, free = COPIES[variant] * rows.numel() * rows.element_size(), free_memory()
    if needed > free:
        return f"does not fit: needs {needed / 2**30:.1f} GiB beside the rows, {free / 2**30:.1f} are free"
    return ""


def free_memory() -> float:
    """Return the bytes that can be taken without swapping, where the system tells."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def machine() -> str:
    """Say on what the figures were taken."""
    versions = [f"torch {torch.__version__}", *(f"{peer} {v}" for peer in PEERS if (v := _version(peer)))]
    processor = platform.processor() or platform.machine()
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} threads"
    return f"{processor}, {threads}, Python {platform.python_version()}, {', '.join(versions)}"


def format_table(figures: Sequence[Figure]) -> str:
    """Lay the figures out as a Markdown table."""
    lines = ["| rows | variant | seconds | times faster than plain |", "| --- | --- | --: | --: |"]
    for figure in figures:
        seconds = figure.note if figure.seconds is None else f"{figure.seconds:.2f}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.1f}"
        lines.append(f"| {figure.rows} | {figure.name} | {seconds} | {ratio} |")
    return "\n".join(lines)


def run(
    sizes: Sequence[int],
    width: int = 512,
    k: int = 1000,
    repeats: int = 3,
    rows_file: Path | None = None,
    variants: Sequence[str] = tuple(VARIANTS),
    peer_seconds: float = 600,
) -> list[Figure]:
    """Measure on rows of a file, or else on log-normal and on equal lengths in each of the sizes."""
    figures: list[Figure] = []
    if rows_file is not None:
        rows = load_rows(rows_file)
        name = f"{rows_file.name} {len(rows):,} x {rows.shape[1]}"
        return measure(name, rows, min(k, len(rows)), repeats, variants, peer_seconds)
    for size in sizes:
        for make in (log_normal_lengths, equal_lengths):
            name = f"{make.__name__.replace('_', ' ')} {size:,} x {width}"
            if 2.5 * size * width * 4 > free_memory():
                figures += [Figure(variant, name, None, None, "the rows do not fit") for variant in variants]
                continue
            figures += measure(name, make(size, width), min(k, size), repeats, variants, peer_seconds)
    return figures


def as_json(figures: Sequence[Figure]) -> dict[str, list[dict[str, Any]]]:
    """Return what `--json` writes."""
    return {
        "rows": [
            {
                "name": f"{f.name}, {f.rows}",
                "seconds": f.seconds,
                "ratio": f.ratio,
                **({"note": f.note} if f.note else {}),
            }
            for f in figures
        ]
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="numbers of rows")
    parser.add_argument("--width", type=int, default=512, help="numbers in a row")
    parser.add_argument("--k", type=int, default=1000, help="rows to choose")
    parser.add_argument("--repeats", type=int, default=3, help="turns, of which the median is shown")
    parser.add_argument("--rows", type=Path, help="a .pt, .npy or .safetensors file of rows, instead of random ones")
    parser.add_argument("--variants", nargs="+", choices=[*VARIANTS], default=[*VARIANTS], help="what to measure")
    parser.add_argument("--peer_seconds", type=float, default=600, help="after which a peer is given up")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args(arguments)
    for name in ("sizes", "width", "k", "repeats"):
        value = getattr(options, name)
        if min(value if isinstance(value, list) else [value]) < 1:
            parser.error(f"`--{name}` is {value}. Set it to at least 1.")
    if options.rows is not None and not options.rows.is_file():
        parser.error(f"There is no file {options.rows}.")
    if options.json is not None and not options.json.parent.is_dir():
        parser.error(f"There is no folder {options.json.parent} to write `--json` to. Make it first.")
    figures = run(
        options.sizes,
        options.width,
        options.k,
        options.repeats,
        options.rows,
        options.variants,
        options.peer_seconds,
    )
    print(f"{machine()}; {options.k} choices, median of {options.repeats}\n\n{format_table(figures)}")
    if options.json:
        options.json.write_text(json.dumps(as_json(figures), indent=2) + "\n")


if __name__ == "__main__":
    main()
