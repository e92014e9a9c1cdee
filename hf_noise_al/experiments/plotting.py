"""Draw learning curves: what `comparison.compare` returned, and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ..files.shown_text import one_line
from ..refusals import Refusal
from .comparison import Comparison
from .tables import describe_rows, format_estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCHES = (8.0, 4.5)
DOTS_PER_INCH = 150
BASELINE_COLOR = "#595959"
# The colors that Okabe and Ito (2008) chose for color-blind readers, without yellow, which is too light for a line.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"
MOST_TICKS = 12
LONGEST_NAME = 40
"""Letters of a name that the title, or a line of the legend, has room for."""
FORMATS = (".png", ".svg", ".pdf")


def plot_curves(comparisons: Sequence[Comparison], path: str | Path) -> None:
    """Draw the comparisons into the file `path`, 1200 x 675 pixels where it is a PNG; see `draw_curves`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():  # a name in letters that the font lacks is drawn as boxes
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        draw_curves(comparisons).savefig(path, dpi=DOTS_PER_INCH)


def draw_curves(comparisons: Sequence[Comparison]) -> Figure:
    """Return a figure of one line per acquisition, the mean over seeds, with its 95 % interval as a band.

    A single seed has bars instead: the 95 % intervals of the rows that it was measured on. The height follows the
    means and the bars: the wide bands of two or three seeds may leave the picture. The figure belongs to no
    window system and to no pyplot state. Raises `ValueError` where there is nothing to draw.
    """
    if not comparisons:
        raise Refusal("Nothing to draw. Pass what `compare` returned for at least one run.")
    from matplotlib.figure import Figure  # takes a second to import

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    rivals = 0
    for comparison in comparisons:
        if comparison.acquisition == comparison.baseline:
            _draw_line(axes, comparison, BASELINE_COLOR, "X", "--")
        else:
            again = "-" if rivals < len(COLORS) else ":"
            _draw_line(axes, comparison, COLORS[rivals % len(COLORS)], MARKERS[rivals % len(MARKERS)], again)
            rivals += 1
    _limit_height(axes, comparisons)
    _describe(axes, comparisons)
    return figure


def _draw_line(axes: Axes, comparison: Comparison, color: str, marker: str, style: str) -> None:
    label = f"{_shown(comparison.acquisition)}  {format_estimate(comparison.aubc, decimals=3)}"
    budgets, mean = comparison.budgets, comparison.mean
    label = f" {label}" if label.startswith("_") else label  # a legend leaves names with an underscore in front out
    axes.plot(budgets, mean, color=color, marker=marker, ls=style, lw=2, ms=6, zorder=3, label=label)
    if comparison.half_width is not None:
        low = [value - half for value, half in zip(mean, comparison.half_width, strict=True)]
        high = [value + half for value, half in zip(mean, comparison.half_width, strict=True)]
        axes.fill_between(budgets, low, high, color=color, alpha=0.15, linewidth=0)
    for budget, ends in zip(budgets, comparison.intervals, strict=False):  # a budget may come twice
        if ends is not None:
            axes.plot([budget, budget], ends, color=color, marker="_", lw=1, ms=8, alpha=0.6, zorder=2)


def _limit_height(axes: Axes, comparisons: Sequence[Comparison]) -> None:
    means = [value for comparison in comparisons for value in comparison.mean if value == value]  # NaN differs from NaN
    margin = 0.4 * (max(means) - min(means)) if means else 0.0
    if margin:
        low, high = axes.get_ylim()
        bars = [end for comparison in comparisons for ends in comparison.intervals if ends for end in ends]
        reach = margin / 10  # of a bar's end to the frame
        lowest = min([min(means) - margin, *(end - reach for end in bars)])
        highest = max([max(means) + margin, *(end + reach for end in bars)])
        axes.set_ylim(max(low, lowest), min(high, highest))


def _describe(axes: Axes, comparisons: Sequence[Comparison]) -> None:
    first = comparisons[0]
    axes.set_title(f"{_short(first.dataset)}, {_short(first.model)}", loc="left", fontsize=13, parse_math=False)
    axes.set_xlabel("labeled examples", fontsize=12)
    metric = _shown(first.metric.removeprefix("eval_").replace("_", " "))
    rows = describe_rows([count for comparison in comparisons for count in comparison.num_rows])
    axes.set_ylabel(f"{metric} (n = {rows})" if rows else metric, fontsize=12, parse_math=False)
    if len(first.budgets) <= MOST_TICKS:
        axes.set_xticks(first.budgets)
    axes.tick_params(labelsize=11)
    axes.grid(color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    counts = sorted({len(comparison.seeds) for comparison in comparisons})
    seeds = "1 seed" if counts == [1] else f"{' or '.join(map(str, counts))} seeds"
    band = ", 95 % interval shaded" if any(comparison.half_width for comparison in comparisons) else ""
    barred = any(ends for comparison in comparisons for ends in comparison.intervals)
    bars = f"{' and' if band else ', 95 % interval'} of the n rows as bars" if barred else ""
    title = f"area under the curve ({seeds}{band}{bars})"
    # over bars, which fill the picture, a legend would hide their ends: it stands below
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -0.14), "ncols": 2} if barred else {}
    style: dict[str, Any] = {
        "fontsize": 11,
        "title_fontsize": 10,
        "handlelength": 3,
        "edgecolor": "none",
        "framealpha": 0.8,
    }
    legend = axes.legend(title=title, **style, **place)
    legend.set_alignment("left")
    for text in legend.get_texts():
        text.set_parse_math(False)


def _short(name: str) -> str:
    """Return the name of a Hub repository as it is, and of a longer path its last part."""
    return _shown(name if name.count("/") <= 1 and not name.startswith((".", "/")) else PurePath(name).name)


def _shown(name: str) -> str:
    return one_line(name, LONGEST_NAME)
