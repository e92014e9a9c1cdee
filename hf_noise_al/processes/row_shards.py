"""Shards: the candidates spread over processes, each row on one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ..refusals import Refusal


@dataclass(frozen=True, eq=False)
class Shard:
    """The candidates whose rows this process holds, possibly none; every candidate is held by exactly one process."""

    indices: Tensor
    """Their positions among all candidates, ascending: (n,)."""
    size: int
    """How many candidates all processes hold together."""
    device: torch.device | str = "cpu"
    """Where the processes exchange numbers: a CPU for gloo, this process's GPU for NCCL."""
    group: dist.ProcessGroup | None = None
    """The processes; None for all of them, or for this one alone where none others were started."""

    def gather(self, values: Tensor) -> Tensor:
        """Return the (V,) `values` of each of the P processes in double precision, the same on all: (P, V)."""
        mine = values.detach().to(self.device, torch.float64)
        if not (dist.is_available() and dist.is_initialized()):
            return mine[None].cpu()
        everybody = [torch.empty_like(mine) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(everybody, mine, group=self.group)
        return torch.stack(everybody).cpu()

    def gather_rows(self, values: Tensor) -> Tensor:
        """Return the values of all candidates, of which this process has the (n,) `values`: (size,), on the CPU."""
        everyone = torch.zeros(self.size, dtype=torch.float64)
        everyone[self.indices] = values.detach().cpu().double()
        return self.gather(everyone).sum(dim=0).to(values.dtype)  # each is zero but on one process: the sum is exact

    def position(self, number: int) -> int | None:
        """Return where this process holds the candidate `number`, None where another does."""
        position = int(torch.searchsorted(self.indices, number))
        return position if position < len(self.indices) and int(self.indices[position]) == number else None

    def check(self, rows: Tensor) -> Tensor:
        """Return the (n, D) `rows` of this process, with D columns also where it holds none.

        Raises:
            ValueError: on every process, where one's rows do not fit its indices or the others' rows, or where the
                shards together are not the candidates.
        """
        low, high = (int(self.indices.min()), int(self.indices.max())) if len(self.indices) else (0, 0)
        fits = len(rows) == len(self.indices) and 0 <= low and high < max(self.size, 1)
        fits = fits and bool((self.indices.diff() > 0).all())
        kind = (rows.shape[1], rows.element_size()) if len(rows) else (-1, -1)
        facts = self.gather(torch.tensor([fits, len(self.indices), int(self.indices.sum()), *kind])).long()
        wrong = (facts[:, 0] == 0).nonzero()[:, 0].tolist()
        if wrong:
            raise Refusal(
                f"Cannot use the shard of process {wrong[0]}. Its indices must be as many as its rows, ascending, "
                f"distinct and between 0 and {self.size - 1}, the number of candidates less one."
            )
        held = facts[:, 1].tolist()
        if sum(held) != self.size or int(facts[:, 2].sum()) != self.size * (self.size - 1) // 2:
            raise Refusal(
                f"The processes hold {_listed(held)} rows of {self.size} candidates, which must be each candidate "
                "once. Deal every candidate to exactly one process."
            )
        kinds = facts[facts[:, 1] > 0, 3:].unique(dim=0)
        if len(kinds) > 1:
            raise Refusal(
                f"The processes hold rows of {_listed(kinds[:, 0].tolist())} columns and "
                f"{_listed(kinds[:, 1].tolist())} bytes a number. Give all rows the same columns and dtype."
            )
        return rows if len(rows) or not len(kinds) else rows.new_zeros(0, int(kinds[0, 0]))


def _listed(values: Sequence[int]) -> str:
    return " + ".join(map(str, values))
