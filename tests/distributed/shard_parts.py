"""Choices by processes that each hold a part of the rows; a part of processes_script.py."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hf_noise_al.processes.row_shards import Shard
from hf_noise_al.selection.k_center import choose, k_center_greedy

Deal = Callable[[int, int], Tensor]
"""(candidates, processes) -> the process of each candidate."""
DEALS: dict[str, Deal] = {
    "in turn": lambda size, processes: torch.arange(size) % processes,
    "in blocks": lambda size, processes: torch.arange(size) * processes // size,
    "all to the last": lambda size, processes: torch.full((size,), processes - 1),
    "none to the first": lambda size, processes: 1 + torch.arange(size) % (processes - 1),
    "at random": lambda size, processes: torch.randint(processes, (size,), generator=generator(size)),
}
DEALS_OF = {2: [*DEALS], 4: ["none to the first", "at random"]}  # every choice waits for the slowest of four


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows_by_name() -> dict[str, Tensor]:
    normal = torch.randn(50, 6, generator=generator())
    return {
        "normal": normal,
        "double precision": torch.randn(30, 5, generator=generator(1), dtype=torch.float64) * 1e-3 + 1,
        "ties": torch.eye(4)[torch.arange(36) % 4] * (torch.arange(36) % 3)[:, None],
        "duplicates": normal[:7].repeat(6, 1),
        "zeros": torch.zeros(11, 3),
        "huge on one process": torch.cat([normal[:40], 1e30 * normal[:1]]),
        "fewer than processes": normal[:2],
    }


def cases() -> dict[str, tuple[Tensor, int, Tensor | None, int | None]]:
    """Rows, k, centers and first of each case; every process makes them all and keeps its part."""
    found: dict[str, tuple[Tensor, int, Tensor | None, int | None]] = {}
    for name, rows in rows_by_name().items():
        found[name] = rows, min(len(rows), 20), None, None
        found[f"{name}, first"] = rows, min(len(rows), 6), None, len(rows) // 2
        found[f"{name}, centers"] = rows, min(len(rows), 6), rows[:2] + 0.5, None
    return found


def choices(deal: Deal, block_rows: int | None) -> dict[str, list[int]]:
    found = {}
    for name, (rows, k, centers, first) in cases().items():
        part, shard = part_of(rows, deal)
        found[name] = choose(shard.check(part), k, centers, first, shard, block_rows).tolist()
    return found


def part_of(rows: Tensor, deal: Deal) -> tuple[Tensor, Shard]:
    indices = (deal(len(rows), dist.get_world_size()) == dist.get_rank()).nonzero()[:, 0]
    # a process without rows has seen no output of the model and knows neither its width nor its type
    return rows[indices] if len(indices) else torch.zeros(0, 0), Shard(indices, len(rows))


def errors() -> dict[str, str]:
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    rows = torch.ones(20, 3)
    broken = rows.clone()
    broken[13, 1] = torch.nan
    part, shard = part_of(rows, DEALS["in turn"])
    mine = rank == last
    calls: dict[str, Callable[[], Tensor]] = {
        "not finite": lambda: k_center_greedy(part_of(broken, DEALS["in turn"])[0], 2, shard=shard),
        "too many": lambda: k_center_greedy(part, 21, shard=shard),
        "not ascending": lambda: k_center_greedy(
            part, 2, shard=Shard(shard.indices.flip(0) if mine else shard.indices, 20)
        ),
        "held twice": lambda: k_center_greedy(
            part, 2, shard=Shard(shard.indices if not mine else torch.arange(len(part)), 20)
        ),
        "columns": lambda: k_center_greedy(part[:, :2] if mine else part, 2, shard=shard),
    }
    found = {}
    for name, call in calls.items():
        try:
            found[name] = str(call().tolist())
        except ValueError as error:
            found[name] = str(error)
    return found


def work() -> dict[str, Any]:
    """Return the choices for every deal, those that keep every row exact, and the errors."""
    if not dist.is_initialized():  # no trainer was made before
        dist.init_process_group("gloo")
    found = {name: choices(DEALS[name], 4) for name in DEALS_OF[dist.get_world_size()]}
    return {"choices": {**found, "every row kept exact": choices(DEALS["in turn"], None)}, "errors": errors()}
