"""Whether the parts of a state that was read can have come about together."""

from __future__ import annotations

import math

from ..pool.pool import Pool
from ..refusals import Refusal
from .history import RoundRecord
from .pending_query import PendingQuery


def check_state(pool: Pool, history: list[RoundRecord], pending: PendingQuery | None, seconds: float) -> None:
    """Raise ValueError where the parts of a state cannot have come about together; `seconds` are of its query."""
    _check_history(history, pool.num_labeled)
    if any(not -1 <= annotation.round <= len(history) for annotation in pool.annotations):  # -1: an earlier run
        raise Refusal(f"a label is of a round after {len(history)}")
    if pending is not None:
        rows, unlabeled = pending.rows, set(pool.unlabeled_rows)
        whole = all(type(row) is int for row in rows) and len({*rows}) == len(rows) == len(pending.scores)
        if not rows or not whole or not unlabeled.issuperset(rows):
            raise Refusal("the pending query does not ask for distinct unlabeled rows, each with a score")
        if not all(score is None or _is_number(score) for score in pending.scores):
            raise Refusal("a score of the pending query is no number")
        if not (0 <= _whole(pending.round) <= len(history) and _whole(pending.asked) >= len(rows)):
            raise Refusal("the pending query is of a round that has not come, or asks for fewer rows than it has")
        _seconds(pending.seconds)
    _seconds(seconds)


def _check_history(history: list[RoundRecord], num_labeled: int) -> None:
    before = 0
    for number, record in enumerate(history):
        if _whole(record.round) != number or _whole(record.num_labeled) - before != _whole(record.query_size):
            raise Refusal(f"record {number} of the history does not follow from the one before")
        if record.query_size < 0 or record.num_labeled > num_labeled:
            raise Refusal(f"record {number} of the history counts other labels than there are ({num_labeled})")
        before = record.num_labeled
        _seconds(record.train_seconds)
        _seconds(record.acquisition_seconds)
        if not all(isinstance(name, str) and _is_number(value) for name, value in record.metrics.items()):
            raise Refusal(f"a metric of record {number} of the history is no number")
        ends = [end for interval in record.intervals.values() for end in interval]
        if not all(type(count) is int for count in record.num_rows.values()) or not all(map(_is_number, ends)):
            raise Refusal(f"record {number} of the history has rows or an interval that are no numbers")


def _whole(value: object) -> int:
    if type(value) is not int:
        raise Refusal(f"{value!r} stands where a whole number belongs")
    return value


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _seconds(value: float) -> None:
    if not _is_number(value) or not 0 <= value < math.inf:
        raise Refusal(f"{value!r} stands where seconds belong")
