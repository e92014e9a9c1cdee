"""Refuse features that cannot fit into this machine's memory before they are computed."""

from __future__ import annotations

import os

from ..refusals import Refusal


def refuse_beyond_memory(num_rows: int, width: int, remedy: str) -> None:
    """Raise ValueError where `num_rows` rows of `width` float32 numbers take more than all memory of this machine.

    Where the system does not say how much it has, nothing is refused. What is free at the moment is not asked: it
    changes, and the system gives caches back.
    """
    total, needed = _total_memory(), 4 * num_rows * width
    if total is not None and needed > total:
        raise Refusal(
            f"The features of {num_rows:,} rows, {width:,} numbers each, take {needed / 1e9:,.1f} GB on this process, "
            f"and this machine has {total / 1e9:,.1f} GB of memory. {remedy}"
        )


def _total_memory() -> int | None:
    """Return the bytes of memory that this machine has; None where the system does not say."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # no such call on Windows, no such names on some systems
        return None
    return total if total > 0 else None
