"""Observation: every row of a data set through the model once, the same numbers on any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor, nn
from transformers.utils.logging import get_logger

from ..noise.gradient_sketch.sketch import GradientSketch
from ..observables.base import Observable
from ..pool.columns import LABEL_COLUMNS
from ..processes.row_shards import Shard
from ..processes.sharded_weights import is_sharded
from ..refusals import Refusal
from .collated_batches import Batch, CollatedBatches
from .out_of_memory import raise_on_all, with_smaller_batches
from .progress import Progress
from .unchanged import evaluation_mode

logger = get_logger(__name__)
Found = list[tuple[list[int], Tensor]]


class Observer:
    """Collate the rows once, in batches of similar length, and pass them through the model as often as asked.

    Batches are formed before they are dealt to the processes, so that each row is computed beside the same others,
    and with it every pick, is the same for any number of processes.

    Args:
        model: The model, not wrapped for distributed training.
        dataset: The rows, without labels.
        rows: Their numbers in the user's data set, for messages.
        collate: The data collator.
        prepare: Moves a batch to the device.
        batch_size: Rows in a batch of the longest rows; batches of shorter ones hold more, for as many tokens.
        train_batch_size: Rows in a batch of training. The gradient sketch takes half of that at a time: it keeps every
            layer's activations, as training does, and its projections beside them.
        accelerator: Knows the processes and the device.
        num_workers: Worker processes that collate.
        disable_tqdm: Show no progress bar.
        max_tokens_per_batch: Tokens in a batch, padding included, in the place of `batch_size`; where nobody knows how
            long rows are before they are collated, `batch_size` stays.
        label_columns: What the columns that a query must do without may be called, for messages.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        rows: Sequence[int],
        collate: Callable[[list[Any]], Any],
        prepare: Callable[[Any], Batch],
        batch_size: int,
        train_batch_size: int,
        accelerator: Accelerator,
        num_workers: int = 0,
        disable_tqdm: bool = False,
        max_tokens_per_batch: int | None = None,
        label_columns: Sequence[str] = LABEL_COLUMNS,
    ) -> None:
        self.model, self.dataset, self.rows = model, dataset, rows
        self.prepare, self.accelerator = prepare, accelerator
        self.progress = Progress(disable_tqdm or not accelerator.is_local_main_process)
        self.batches = CollatedBatches(
            dataset,
            collate,
            batch_size,
            max_tokens_per_batch,
            accelerator.process_index,
            accelerator.num_processes,
            equally_many=is_sharded(model),  # each forward pass needs every process
            num_workers=num_workers,
            label_columns=label_columns,
        )
        most, with_graph = self.batches.budget, max(1, train_batch_size // 2) * self.batches.longest
        self.limits = {False: most, True: min(most, with_graph)}
        """Most tokens in a batch: without a graph for a backward pass (False), and with one (True)."""

    def __call__(self, observable: Observable, description: str = "observe") -> Tensor:
        """Return one row per row of the data set, in its order, the same on every process: (N, D), on the CPU.

        Raises:
            ValueError: the observable does not return one finite row per example; a row that is not is named.
        """
        return self._check(self._gather(self._observe(observable, description)))

    def try_some(self, observable: Observable) -> None:
        """Pass two rows through the model, so that what cannot be observed is refused early."""
        count = min(2, len(self.rows))
        batch = self.batches.collate_first(count)
        with evaluation_mode(self.model), torch.no_grad():
            _check_rows(observable(self.model, self.prepare(batch)), count)

    @property
    def shard(self) -> Shard | None:
        """The rows that this process observes; None where there is one process."""
        if self.accelerator.num_processes == 1:
            return None
        indices = torch.tensor(self.batches.own_rows(), dtype=torch.long)
        return Shard(indices, len(self.rows), self.accelerator.device)

    def observe_shard(self, observable: Observable, description: str = "observe") -> Tensor:
        """Return the rows of `shard` alone, in their order: (n, D), on the CPU. To be called by every process."""
        found = self._observe(observable, description)
        width, dtype = self._width_and_dtype(found)
        positions = torch.tensor([row for batch, _ in found for row in batch], dtype=torch.long)
        rows = torch.cat([torch.zeros(0, width, dtype=dtype), *(values.to(dtype) for _, values in found)])
        rows = rows[positions.argsort()]
        error = None
        try:
            self._check(rows, sorted(positions.tolist()))
        except ValueError as raised:
            error = raised
        raise_on_all(error, self.accelerator, single_rows=self.batches.largest == 1)
        return rows

    def _observe(self, observable: Observable, description: str) -> Found:
        """Return what this process finds; where memory runs out on one process, all of them try smaller batches."""
        keeps_graph = isinstance(observable, GradientSketch)

        def attempt(budget: int) -> Found:
            before, unit = self.limits[keeps_graph], self.batches.unit
            if budget < before:
                logger.warning(f"Out of memory: observing again, {budget} instead of {before} {unit} at a time.")
                self.limits[keeps_graph] = budget
            if budget != self.batches.budget:
                self.batches.keep_to(budget)
            found, error = None, None
            try:
                found = self._pass(observable, description)
            except Exception as raised:
                if is_sharded(self.model):
                    raise  # the others wait for this process's part of the weights: they cannot exchange errors
                error = raised
            raise_on_all(error, self.accelerator, single_rows=self.batches.largest == 1)
            assert found is not None
            return found

        return with_smaller_batches(attempt, self.limits[keeps_graph])

    def _pass(self, observable: Observable, description: str) -> Found:
        found: Found = []
        batches = self.batches
        tokens = [len(positions) * batches.lengths[positions[0]] for positions in batches.positions]
        numbered = enumerate(zip(batches.positions, batches, strict=True))
        passes = getattr(observable, "passes", None)
        followed = self.progress.follow(numbered, tokens, passes, description)
        with closing(followed), evaluation_mode(self.model), torch.no_grad():
            for number, (positions, batch) in followed:
                rows = observable(self.model, self.prepare(batch))
                _check_rows(rows, len(positions))
                if number < batches.num_own:
                    found.append((positions, rows.cpu()))
        return found

    def _gather(self, found: Found) -> Tensor:
        width, dtype = self._width_and_dtype(found)
        rows = torch.zeros(len(self.rows), width, dtype=dtype)
        for positions, values in found:
            rows[positions] = values.to(dtype)
        if self.accelerator.num_processes > 1:
            shared = rows.to(self.accelerator.device)
            dist.all_reduce(shared)  # every row is zero but on one process, so the sum is exact
            rows = shared.cpu()
        return rows

    def _width_and_dtype(self, found: Found) -> tuple[int, torch.dtype]:
        width = found[0][1].shape[1] if found else 0
        wide = found[0][1].dtype == torch.float64 if found else False
        if self.accelerator.num_processes > 1:
            shape = torch.tensor([width, int(wide)], device=self.accelerator.device)
            dist.all_reduce(shape, op=dist.ReduceOp.MAX)
            width, wide = int(shape[0]), bool(shape[1])
        return width, torch.float64 if wide else torch.float32

    def _check(self, rows: Tensor, positions: Sequence[int] | None = None) -> Tensor:
        """Refuse `rows` that are not finite; they are those at `positions`, or all."""
        bad = (~torch.isfinite(rows)).any(dim=1).nonzero()[:, 0].tolist()
        if bad:
            first = bad[0] if positions is None else positions[bad[0]]
            raise Refusal(
                f"The model's output for row {self.rows[first]} of `train_dataset` is NaN or infinite "
                f"({len(bad)} of {len(rows)} rows are). Check that input and the training that came before: "
                "a learning rate too high leaves such weights."
            )
        return rows


def _check_rows(rows: Tensor, count: int) -> None:
    if rows.ndim != 2 or len(rows) != count:
        raise Refusal(f"An observable must return one row per example: ({count}, D) here, found {tuple(rows.shape)}.")
