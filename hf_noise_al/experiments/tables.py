"""Runs and comparisons as plain text tables, for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..files.shown_text import one_line
from ..measuring.intervals import format_interval
from .comparison import Comparison, Estimate
from .learning_curve import detail_of, value_of


def format_table(comparisons: Sequence[Comparison]) -> str:
    """Return a plain text table, one line per acquisition, for a terminal."""
    first = comparisons[0]
    header = ["acquisition", "seeds", "AUBC", f"AUBC - {first.baseline}", f"at {first.budgets[-1]} labels"]
    rows = [[*header, "labels needed", "labels saved", "n"]]
    for entry in comparisons:
        last = Estimate(entry.mean[-1], entry.half_width[-1] if entry.half_width else None)
        unreached = "-" if entry.target is None else "not reached"
        rows.append([one_line(entry.acquisition), str(len(entry.seeds)), format_estimate(entry.aubc)])
        rows[-1] += [format_estimate(entry.aubc_difference, sign="+"), format_estimate(last)]
        rows[-1] += [unreached if entry.labels_needed is None else f"{entry.labels_needed:.0f}"]
        rows[-1] += ["-" if entry.labels_saved_percent is None else f"{entry.labels_saved_percent:.0f} %"]
        rows[-1] += [describe_rows(entry.num_rows) or "-"]
    direction = "higher" if first.greater_is_better else "lower"
    names = f"{one_line(first.dataset)}, {one_line(first.model)}: {one_line(first.metric)}"
    title = f"{names} ({direction} is better), mean ± 95 % interval over seeds"
    note = f"No run of `{first.baseline}` to compare with."
    if first.target is not None:
        note = f"Labels needed: to reach {first.target:.4f}, the best mean of {first.baseline}."
    if any(map(any, (entry.num_rows for entry in comparisons))):
        note += " n: rows that the metric was measured on."
    else:
        rows = [row[:-1] for row in rows]
    return "\n".join([title, "", _aligned(rows), "", note])


def describe_rows(num_rows: Sequence[int | None]) -> str:
    """Return on how many rows the rounds were measured; nothing where a round does not say.

    >>> describe_rows([6, 6]), describe_rows([20, 40]), describe_rows([6, None])
    ('6', '20-40', '')
    """
    known = [count for count in num_rows if count is not None]
    if not known or len(known) < len(num_rows):
        return ""
    return str(known[0]) if min(known) == max(known) else f"{min(known)}-{max(known)}"


def format_rounds(points: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Return a plain text table of the rounds of one run: labels, sizes, seconds and `metric`.

    The metric has its 95 % interval and the rows it was measured on, where some round has them.

    >>> point = {"round": 0, "num_labeled": 20, "query_size": 20, "train_seconds": 1.5, "acquisition_seconds": 0.25}
    >>> point |= {"metrics": {"eval_accuracy": 0.875}, "num_rows": {"eval_accuracy": 40}}
    >>> print(format_rounds([point | {"intervals": {"eval_accuracy": [0.739, 0.9454]}}], "eval_accuracy"))
    round  labels  query size  train s  query s  eval_accuracy   95 % interval   n
    0          20          20      1.5      0.2         0.8750  0.739 to 0.945  40
    """
    rows = [["round", "labels", "query size", "train s", "query s", one_line(metric), "95 % interval", "n"]]
    for point in points:
        counts = [str(point[name]) for name in ("round", "num_labeled", "query_size")]
        seconds = [f"{point[name]:.1f}" for name in ("train_seconds", "acquisition_seconds")]
        ends, count = detail_of(point, "intervals", metric), detail_of(point, "num_rows", metric)
        known = ["" if ends is None else format_interval(ends), "" if count is None else str(count)]
        rows.append([*counts, *seconds, f"{value_of(point, metric):.4f}", *known])
    shown = [column for column in zip(*rows, strict=True) if any(column[1:]) or not points]
    return _aligned(list(zip(*shown, strict=True)))


def format_estimate(estimate: Estimate | None, decimals: int = 4, sign: str = "") -> str:
    """Return an estimate as text; with `sign="+"` a positive mean carries its sign.

    >>> format_estimate(Estimate(0.5, 0.01), decimals=3)
    '0.500 ± 0.010'
    """
    if estimate is None:
        return "-"
    interval = "" if estimate.half_width is None else f" ± {estimate.half_width:.{decimals}f}"
    return f"{estimate.mean:{sign}.{decimals}f}{interval}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        numbers = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *numbers]))
    return "\n".join(lines)
