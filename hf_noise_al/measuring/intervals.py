"""How far a score of few rows may be from that of many: intervals of 95 %, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Interval: TypeAlias = tuple[float, float]
"""Lower and upper end."""

FEW_ROWS = 50
"""Below this many rows an interval of an accuracy may be more than a quarter wide, and a warning says so."""
NORMAL_QUANTILE = 1.959963984540054


def wilson(right: float, count: int) -> Interval:
    """Return Wilson's 95 % interval of a share: `right` of `count` independent rows.

    Other than the interval p ± 1.96 √(p(1-p)/n), and than a bootstrap, it has a width where all rows are right. For few
    rows it is one of the two that Brown, Cai and DasGupta recommend (Interval Estimation for a Binomial Proportion,
    Statistical Science 16(2), 2001).

    >>> [round(end, 3) for end in wilson(6, 6)]
    [0.61, 1.0]
    """
    share, z2 = right / count, NORMAL_QUANTILE**2
    center = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = NORMAL_QUANTILE / (1 + z2 / count) * (share * (1 - share) / count + z2 / (4 * count**2)) ** 0.5
    return max(0.0, center - half), min(1.0, center + half)


def format_interval(interval: Sequence[float] | None, decimals: int = 3) -> str:
    """Return an interval as text; nothing where there is none.

    >>> format_interval((0.6096657, 1.0))
    '0.610 to 1.000'
    """
    return "" if interval is None else f"{interval[0]:.{decimals}f} to {interval[1]:.{decimals}f}"


def measured_on(num_rows: int | None, interval: Sequence[float] | None) -> str:
    """Return the text that follows a score, with a blank in front; empty where nothing is known.

    >>> measured_on(6, (0.6096657, 1.0))
    ' [0.610 to 1.000, n = 6]'
    """
    parts = [format_interval(interval), "" if num_rows is None else f"n = {num_rows}"]
    return f" [{', '.join(filter(None, parts))}]" if any(parts) else ""


def few_rows(counts: Mapping[str, int], crossed: bool = False) -> str | None:
    """Return a warning about evaluation sets of few rows; None where there is no such set.

    Args:
        counts: How many rows each set has, by its name; ``""`` for a single one.
        crossed: Whether the labeled rows are cross-validated already.
    """
    few = {name: count for name, count in counts.items() if 0 < count < FEW_ROWS}
    if not few:
        return None
    sets = ", ".join(
        f"the evaluation set{f' {name}' if name else ''} has {count} row{'' if count == 1 else 's'}"
        for name, count in few.items()
    )
    count = min(few.values())
    perfect, middle = wilson(count, count), wilson(count // 2, count)
    return (
        f"Few rows to measure on: {sets}. Of {count} rows all right, the 95 % interval of the accuracy is "
        f"{format_interval(perfect, 2)}; of {count // 2} right, {format_interval(middle, 2)}. A change that is smaller "
        f"says nothing. Measure on {FEW_ROWS} rows or more (a larger evaluation set, or `validation_fraction`)"
        + ("." if crossed else ", or set `eval_folds`, which measures on the labeled rows too.")
    )
