"""The batches of one process: dealt, cut to what fits into memory, collated once and kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers.utils.logging import get_logger

from ..refusals import Refusal
from .batches import row_lengths, split_batch, token_batches

logger = get_logger(__name__)

CACHE_BYTES = 2**31
"""Collated batches kept in memory by each process; further ones are collated again at every pass."""

Batch: TypeAlias = Mapping[str, Any]


class CollatedBatches:
    """The rows in batches of similar length, which are formed before they are dealt to the processes.

    A row is thus computed beside the same others on any number of processes.

    Args:
        dataset: The rows, without labels.
        collate: The data collator.
        batch_size: Rows in a batch of the longest rows; batches of shorter ones hold more, for as many tokens.
        max_tokens: Tokens in a batch, padding included, in the place of `batch_size`; where nobody knows how long rows
            are before they are collated, `batch_size` stays.
        process: Number of this process.
        num_processes: How many there are.
        equally_many: Whether every process must see as many batches as the others; one with fewer repeats one.
        num_workers: Worker processes that collate.
        label_columns: What the columns that a query must do without may be called, for messages.
    """

    def __init__(
        self,
        dataset: Dataset,
        collate: Callable[[list[Any]], Any],
        batch_size: int,
        max_tokens: int | None,
        process: int,
        num_processes: int,
        equally_many: bool,
        num_workers: int,
        label_columns: Sequence[str],
    ) -> None:
        self.dataset, self.collate = dataset, collate
        self.process, self.num_processes, self.equally_many = process, num_processes, equally_many
        self.num_workers, self.label_columns = num_workers, label_columns
        known = row_lengths(dataset)
        self.unit = "rows" if known is None else "tokens"
        self.lengths = [1] * len(dataset) if known is None else known
        self.longest = max([1, *self.lengths])
        most = (None if known is None else max_tokens) or batch_size * self.longest
        self.dealt = token_batches(self.lengths, most)
        self.keep_to(most)

    def keep_to(self, budget: int) -> None:
        """Cut the batches down to `budget` tokens; every row stays with the process that it was dealt to."""
        parts = [split_batch(batch, self.lengths, budget) for batch in self.dealt]
        mine = parts[self.process :: self.num_processes]
        self.positions = [part for batch in mine for part in batch]
        """Which rows each batch holds."""
        self.num_own = len(self.positions)
        """How many batches count; those behind them are repeated for the sake of other processes."""
        if self.equally_many:
            most = max(sum(map(len, parts[process :: self.num_processes])) for process in range(self.num_processes))
            self.positions += parts[0][:1] * (most - self.num_own)
        self.budget, self.largest = budget, max((len(part) for batch in parts for part in batch), default=0)
        self.kept: list[Batch] = []
        self._kept_bytes = 0
        self._summary = f"{len(self.dataset)} rows in {sum(map(len, parts))} batches of up to {self.largest}"

    def own_rows(self) -> list[int]:
        """Return the positions of the rows that were dealt to this process, ascending."""
        return sorted(row for batch in self.dealt[self.process :: self.num_processes] for row in batch)

    def collate_first(self, count: int) -> Batch:
        """Return the first `count` rows as a batch of their own."""
        with explaining_missing_labels(self.label_columns):
            batch: Batch = self.collate([self.dataset[position] for position in range(count)])
        return batch

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches in the order of `positions`."""
        yield from self.kept
        if not self.kept:
            logger.info(f"Observing {self._summary}.")
        rest = self.positions[len(self.kept) :]
        if not rest:
            return
        loader = DataLoader(
            self.dataset,
            batch_sampler=rest,
            collate_fn=self.collate,
            num_workers=self.num_workers,
            generator=torch.Generator().manual_seed(0),
        )
        keep = self._kept_bytes < CACHE_BYTES
        batches = iter(loader)
        while True:
            with explaining_missing_labels(self.label_columns):
                batch = next(batches, None)
            if batch is None:
                return
            if keep:
                self.kept.append(batch)
                self._kept_bytes += sum(value.nbytes for value in batch.values() if isinstance(value, Tensor))
                keep = self._kept_bytes < CACHE_BYTES
            yield batch


@contextmanager
def explaining_missing_labels(label_columns: Sequence[str]) -> Iterator[None]:
    """Say that a query has no labels where one of `label_columns` is missing; any other error is the collator's own."""
    try:
        yield
    except KeyError as error:
        missing = _missing_key(error)
        if missing not in label_columns:
            raise
        raise Refusal(
            f"The data collator or the transform of `train_dataset` asks for {missing!r}, which the examples of a "
            "query do not have: a query never sees labels. Let it work without them, as the collators of transformers "
            "do."
        ) from error


def _missing_key(error: KeyError) -> object:
    """Return the key that was asked for; an error from a worker process has it only at the end of its text."""
    key = error.args[0] if error.args else None
    found = re.search(r"KeyError: '([^']*)'\s*$", str(key)) if "worker process" in str(key) else None
    return found[1] if found else key
