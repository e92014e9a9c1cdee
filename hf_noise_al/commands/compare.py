"""The verb `compare`: learning curves side by side, over seeds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..settings.recipe import InvalidArgument
from .console import read_options, say

if TYPE_CHECKING:
    from ..experiments.learning_curve import LearningCurve


def main(words: Sequence[str]) -> None:
    """Print the table of curves, or their numbers as JSON, and draw them where asked to."""
    options = read_options(_parser(), words)
    # not at the top: NumPy, SciPy and Matplotlib take a second, and the help needs none of them
    from ..experiments.comparison import compare, to_json
    from ..experiments.plotting import FORMATS, plot_curves
    from ..experiments.tables import format_table

    if options.plot is not None and options.plot.suffix.lower() not in FORMATS:
        raise InvalidArgument(f"Cannot draw {options.plot}: name a file that ends in one of {', '.join(FORMATS)}.")
    comparisons = compare(curves_of(options.runs), options.baseline)
    say(to_json(comparisons) if options.json else format_table(comparisons), end="" if options.json else "\n")
    if options.plot is not None:
        try:
            plot_curves(comparisons, options.plot)
        except OSError as error:
            raise InvalidArgument(f"Cannot write {options.plot}: {error}. Pass another `--plot`.") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("hf-noise-al compare", description="Learning curves side by side, over seeds.")
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="output_dir of a run, or of repeated runs")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves, as png, svg or pdf")
    parser.add_argument("--baseline", default="random", help="acquisition to compare with (default: random)")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    return parser


def curves_of(runs: Sequence[Path]) -> list[LearningCurve]:
    """Return the curve of every run; a folder of repeated runs stands for all of them."""
    from ..experiments.learning_curve import LearningCurve
    from ..files.run_names import CURVE_FILE
    from ..run_folder.earlier_run import is_kept

    curves = []
    for run in runs:
        inside = sorted(run.glob(f"*/{CURVE_FILE}")) if run.is_dir() and not (run / CURVE_FILE).exists() else []
        inside = [path for path in inside if not is_kept(path.parent)]
        curves += [LearningCurve.load(path) for path in inside or [run]]
    return curves
