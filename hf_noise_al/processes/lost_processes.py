"""What to say when another process of the run is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

_SIGNS = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused", "Timed out waiting", "timeout")


@contextmanager
def explaining_lost_processes(state_file: Path) -> Iterator[None]:
    """Say, where a message between processes fails inside the block, what is lost and how to go on.

    The launcher ends the others when one process dies; this is what they say last. It never waits: gloo notices at
    once, NCCL when the launcher ends the process or its time-out is over.

    Raises:
        RuntimeError: in the place of the error of torch.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(sign in str(error) for sign in _SIGNS):
            raise
        raise RuntimeError(
            "Another process of this run died or stopped answering during a query: its own last lines, or the "
            "launcher's (signal 9 is often a lack of memory), say why. Nothing of it was kept; labels and rounds are "
            f"in {state_file}. Start the run again with `resume_from_checkpoint=True` (`--resume_from_checkpoint "
            "true`): it repeats the query and picks the same rows."
        ) from error
