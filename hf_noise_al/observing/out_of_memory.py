"""Smaller batches where memory runs out, on all processes at once, and errors that all of them raise together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import find_executable_batch_size
from accelerate.utils.memory import should_reduce_batch_size

from ..noise.gradient_sketch.layer_taps import UnsupportedModuleError
from ..refusals import Refusal

T = TypeVar("T")
PORTABLE = (ValueError, Refusal, UnsupportedModuleError)
"""Errors that the other processes raise unchanged; they raise any other as a RuntimeError."""


def with_smaller_batches(attempt: Callable[[int], T], budget: int) -> T:
    """Return ``attempt(budget)``, or that of the first smaller budget that does not run out of memory."""
    try:
        return attempt(budget)
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
    found: T = find_executable_batch_size(attempt, starting_batch_size=int(budget * 0.9))()
    return found


def raise_on_all(error: Exception | None, accelerator: Accelerator, single_rows: bool) -> None:
    """Raise on every process what one of them raised, so that none waits for another.

    Args:
        error: What this process raised, if it did.
        accelerator: Knows the processes.
        single_rows: Whether batches hold one row, and smaller ones cannot be tried.
    """
    errors: list[Exception | None] = [error]
    if accelerator.num_processes > 1:
        known = error is None or type(error) in PORTABLE
        portable = error if known else RuntimeError(f"{type(error).__name__}: {error}")
        errors = [None] * accelerator.num_processes
        dist.all_gather_object(errors, portable)
    raised = [found for found in errors if found is not None]
    if not raised:
        return
    memory = [found for found in raised if should_reduce_batch_size(found)]
    if len(memory) == len(raised) and single_rows:
        raise Refusal(
            "A single row does not fit into memory. Shorten rows (`max_seq_length`), or use another acquisition: "
            f"{raised[0]}"
        )
    others = [found for found in raised if found not in memory]
    raise (others or memory)[0] from error
