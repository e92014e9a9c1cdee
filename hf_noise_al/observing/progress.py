"""How far a pass over the batches is, and how long all passes will take."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from typing import TypeVar

from transformers.utils.logging import get_logger, tqdm

logger = get_logger(__name__)

ESTIMATE_AFTER = 2
"""Batches after which the time of an observable that says how many `passes` it needs is estimated."""

T = TypeVar("T")


class Progress:
    """A bar for each pass, and one log line with an estimate for all of them."""

    def __init__(self, disable_tqdm: bool) -> None:
        self.disable_tqdm = disable_tqdm
        self._estimated = False

    def follow(
        self, batches: Iterable[T], tokens: Sequence[int], passes: int | None, description: str
    ) -> Generator[T, None, None]:
        """Yield `batches` in turn; close it where not all of them are taken.

        Args:
            batches: Each is done when the next one is asked for.
            tokens: How many tokens each has, padding included.
            passes: How often all of them will be seen; None where that is not known.
            description: What stands in front of the bar.
        """
        started = time.perf_counter()
        with tqdm(total=len(tokens), desc=description, leave=False, disable=self.disable_tqdm, unit="batch") as bar:
            for number, batch in enumerate(batches, start=1):
                yield batch
                bar.update()
                if number == min(ESTIMATE_AFTER, len(tokens)) and passes is not None and not self._estimated:
                    self._estimated = True
                    _log_estimate(tokens, passes, time.perf_counter() - started)


def _log_estimate(tokens: Sequence[int], passes: int, seconds: float) -> None:
    """Say what `passes` over all batches will take if the first ones took `seconds`."""
    share = sum(tokens[:ESTIMATE_AFTER]) / max(sum(tokens), 1)
    logger.info(
        f"By the first {len(tokens[:ESTIMATE_AFTER])} of {len(tokens)} batches on this process, observing them "
        f"{'once' if passes == 1 else f'{passes} times'} takes about {passes * seconds / max(share, 1e-9):.0f} s."
    )
