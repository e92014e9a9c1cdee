"""Observation: every row of a data set through the model once, the same numbers on any number of processes."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import find_executable_batch_size
from accelerate.utils.memory import should_reduce_batch_size
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.utils.logging import get_logger, tqdm

from ..noise.gradient_sketch.layer_taps import UnsupportedModuleError
from ..noise.gradient_sketch.sketch import GradientSketch
from ..observables.base import Observable
from ..pool.labeled_split import LABEL_COLUMNS
from ..processes.row_shards import Shard
from ..processes.sharded_weights import is_sharded
from .batches import split_batch, token_batches

logger = get_logger(__name__)
CACHE_BYTES = 2**31
"""Collated batches kept in memory by each process; further ones are collated again at every pass."""

ESTIMATE_AFTER = 2
"""Batches after which the time of an observable that says how many `passes` it needs is estimated."""

Batch = Mapping[str, Any]
Found = list[tuple[list[int], Tensor]]
PORTABLE = (ValueError, UnsupportedModuleError)
"""Errors that other processes raise as they are; any other becomes a RuntimeError there."""


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
        self.collate, self.prepare, self.accelerator = collate, prepare, accelerator
        self.num_workers, self.label_columns = num_workers, label_columns
        self.disable_tqdm = disable_tqdm or not accelerator.is_local_main_process
        known = row_lengths(dataset)
        self.unit = "rows" if known is None else "tokens"
        self.lengths = [1] * len(rows) if known is None else known
        tokens = None if known is None else max_tokens_per_batch
        longest = max([1, *self.lengths])
        most = tokens or batch_size * longest
        self.limits = {False: most, True: min(most, max(1, train_batch_size // 2) * longest)}
        """Most tokens at a time, by whether a graph is kept."""
        self.dealt = token_batches(self.lengths, most)
        self.estimated = False
        self._keep_to(most)

    def _keep_to(self, budget: int) -> None:
        """Cut the batches down to `budget`; every row stays with the process that it was dealt to."""
        parts = [split_batch(batch, self.lengths, budget) for batch in self.dealt]
        mine = parts[self.accelerator.process_index :: self.accelerator.num_processes]
        self.batches = [part for batch in mine for part in batch]
        self.num_own = len(self.batches)
        if is_sharded(self.model):  # each forward pass needs every process: who has fewer repeats one, for nothing
            processes = self.accelerator.num_processes
            most = max(sum(map(len, parts[process::processes])) for process in range(processes))
            self.batches += parts[0][:1] * (most - self.num_own)
        self.budget, self.largest = budget, max((len(part) for batch in parts for part in batch), default=0)
        self.kept: list[Batch] = []
        self.kept_bytes = 0
        self.summary = f"{len(self.rows)} rows in {sum(map(len, parts))} batches of up to {self.largest}"

    def __call__(self, observable: Observable, description: str = "observe") -> Tensor:
        """Return one row per row of the data set, in its order, the same on every process: (N, D), on the CPU.

        Raises:
            ValueError: the observable does not return one finite row per example; a row that is not is named.
        """
        return self._check(self._gather(self._observe(observable, description)))

    def try_some(self, observable: Observable) -> None:
        """Pass two rows through the model, for what cannot be observed to be refused before there is much to lose."""
        with _explaining_missing_labels(self.label_columns):
            examples = [self.dataset[position] for position in range(min(2, len(self.rows)))]
            batch = self.collate(examples)
        with evaluation_mode(self.model), torch.no_grad():
            _check_rows(observable(self.model, self.prepare(batch)), len(examples))

    @property
    def shard(self) -> Shard | None:
        """The rows that this process observes; None where there is one process."""
        if self.accelerator.num_processes == 1:
            return None
        mine = self.dealt[self.accelerator.process_index :: self.accelerator.num_processes]
        indices = torch.tensor(sorted(row for batch in mine for row in batch), dtype=torch.long)
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
        self._agree(error)
        return rows

    def _observe(self, observable: Observable, description: str) -> Found:
        """Return what this process finds; where memory runs out on one process, all of them try smaller batches."""
        keeps_graph = isinstance(observable, GradientSketch)

        def attempt(budget: int) -> Found:
            before = self.limits[keeps_graph]
            if budget < before:
                logger.warning(f"Out of memory: observing again, {budget} instead of {before} {self.unit} at a time.")
                self.limits[keeps_graph] = budget
            if budget != self.budget:
                self._keep_to(budget)
            found, error = None, None
            try:
                found = self._pass(observable, description)
            except Exception as raised:
                if is_sharded(self.model):
                    raise  # the others wait for this process's part of the weights, and cannot be asked
                error = raised
            self._agree(error)
            assert found is not None
            return found

        try:
            return attempt(self.limits[keeps_graph])
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
        found: Found = find_executable_batch_size(attempt, starting_batch_size=int(self.limits[keeps_graph] * 0.9))()
        return found

    def _agree(self, error: Exception | None) -> None:
        """Raise on every process what was raised on one, so that none waits for the others."""
        errors: list[Exception | None] = [error]
        if self.accelerator.num_processes > 1:
            known = error is None or type(error) in PORTABLE
            portable = error if known else RuntimeError(f"{type(error).__name__}: {error}")
            errors = [None] * self.accelerator.num_processes
            dist.all_gather_object(errors, portable)
        raised = [found for found in errors if found is not None]
        if not raised:
            return
        memory = [found for found in raised if should_reduce_batch_size(found)]
        if len(memory) == len(raised) and self.largest == 1:
            raise ValueError(
                "A single row does not fit into memory. Shorten rows (`max_seq_length`), or use another acquisition: "
                f"{raised[0]}"
            )
        others = [found for found in raised if found not in memory]
        raise (others or memory)[0] from error

    def _pass(self, observable: Observable, description: str) -> Found:
        found: Found = []
        started = time.perf_counter()
        bar = tqdm(total=len(self.batches), desc=description, leave=False, disable=self.disable_tqdm, unit="batch")
        with bar, evaluation_mode(self.model), torch.no_grad():
            for number, (positions, batch) in enumerate(zip(self.batches, self._inputs(), strict=True)):
                rows = observable(self.model, self.prepare(batch))
                _check_rows(rows, len(positions))
                if number < self.num_own:
                    found.append((positions, rows.cpu()))
                bar.update()
                if number + 1 == min(ESTIMATE_AFTER, len(self.batches)):
                    self._estimate(getattr(observable, "passes", None), time.perf_counter() - started)
        return found

    def _estimate(self, passes: int | None, seconds: float) -> None:
        """Say once what `passes` over all batches will take if the first ones took `seconds`."""
        if passes is None or self.estimated:
            return
        self.estimated = True
        tokens = [len(batch) * self.lengths[batch[0]] for batch in self.batches]
        share = sum(tokens[:ESTIMATE_AFTER]) / max(sum(tokens), 1)
        logger.info(
            f"By the first {len(tokens[:ESTIMATE_AFTER])} of {len(tokens)} batches on this process, observing them "
            f"{'once' if passes == 1 else f'{passes} times'} takes about {passes * seconds / max(share, 1e-9):.0f} s."
        )

    def _inputs(self) -> Iterator[Batch]:
        yield from self.kept
        if not self.kept:
            logger.info(f"Observing {self.summary}.")
        rest = self.batches[len(self.kept) :]
        if not rest:
            return
        loader = DataLoader(
            self.dataset,
            batch_sampler=rest,
            collate_fn=self.collate,
            num_workers=self.num_workers,
            generator=torch.Generator().manual_seed(0),
        )
        keep = self.kept_bytes < CACHE_BYTES
        batches = iter(loader)
        while True:
            with _explaining_missing_labels(self.label_columns):
                batch = next(batches, None)
            if batch is None:
                return
            if keep:
                self.kept.append(batch)
                self.kept_bytes += sum(value.nbytes for value in batch.values() if isinstance(value, Tensor))
                keep = self.kept_bytes < CACHE_BYTES
            yield batch

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
            raise ValueError(
                f"The model's output for row {self.rows[first]} of `train_dataset` is NaN or infinite "
                f"({len(bad)} of {len(rows)} rows are). Check that input and the training that came before: "
                "a learning rate too high leaves such weights."
            )
        return rows


@contextmanager
def untouched_random_state() -> Iterator[None]:
    """Put the global random states of Python, NumPy and torch back after the block."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _check_rows(rows: Tensor, count: int) -> None:
    if rows.ndim != 2 or len(rows) != count:
        raise ValueError(
            f"An observable must return one row per example: ({count}, D) here, found {tuple(rows.shape)}."
        )


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout and the like off inside the block; every module goes back to the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _explaining_missing_labels(label_columns: Sequence[str]) -> Iterator[None]:
    """Say that a query has no labels where one of `label_columns` is missing; any other error is the collator's own."""
    try:
        yield
    except KeyError as error:
        missing = _missing_key(error)
        if missing not in label_columns:
            raise
        raise ValueError(
            f"The data collator or the transform of `train_dataset` asks for {missing!r}, which the examples of a "
            "query do not have: a query never sees labels. Let it work without them, as the collators of transformers "
            "do."
        ) from error


def _missing_key(error: KeyError) -> object:
    """Return the key that was asked for; a worker process tells it at the end of its traceback alone."""
    key = error.args[0] if error.args else None
    found = re.search(r"KeyError: '([^']*)'\s*$", str(key)) if "worker process" in str(key) else None
    return found[1] if found else key


def row_lengths(dataset: Dataset) -> list[int] | None:
    """Return the number of tokens of each row; None where it is not known before rows are collated."""
    if "input_ids" not in dataset.column_names or dataset.format["type"] == "custom":
        return None
    column = dataset.select_columns(["input_ids"]).with_format("arrow")[:].column("input_ids")
    lengths: list[int] = pa.compute.list_value_length(column).to_pylist()
    return lengths
