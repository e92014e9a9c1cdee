"""Runs compared: means and intervals over seeds, area under the curve, labels saved."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import special

from ..measuring.intervals import Interval
from ..refusals import Refusal
from .learning_curve import LearningCurve, dump_json


@dataclass(frozen=True)
class Estimate:
    """Hold a mean and the half width of its 95 % interval (None where there is one sample only)."""

    mean: float
    half_width: float | None


@dataclass(frozen=True)
class Comparison:
    """Hold the runs of one acquisition, one per seed, compared with those of the baseline.

    `mean` and `half_width` have one entry per budget. What needs a baseline is None where the runs hold none;
    `aubc_difference` (this minus baseline, same seeds) is also None for the baseline itself.
    """

    task: str
    dataset: str
    model: str
    metric: str
    greater_is_better: bool
    acquisition: str
    baseline: str
    seeds: tuple[int, ...]
    budgets: tuple[int, ...]
    mean: tuple[float, ...]
    half_width: tuple[float, ...] | None
    aubc: Estimate
    aubc_difference: Estimate | None
    target: float | None
    """The best mean of the baseline."""
    labels_needed: float | None
    """To reach the target; None also where that never happens."""
    labels_saved_percent: float | None
    """Of the labels that the baseline itself needs to reach the target."""
    num_rows: tuple[int | None, ...] = ()
    """The fewest rows that a run measured on at each budget; None where a run does not say."""
    intervals: tuple[Interval | None, ...] = ()
    """Of the rows that were measured, at each budget, where there is one seed; not of seeds, as `half_width` is."""


def aubc(num_labeled: Sequence[int], values: Sequence[float]) -> float:
    """Return the area under the budget curve: trapezoid of values over labels, divided by the range of labels.

    A curve whose labels span no range (one point) has the mean of its values.

    >>> aubc([10, 20, 40], [0.5, 0.7, 0.8])
    0.7
    """
    steps = [after - before for before, after in itertools.pairwise(num_labeled)]
    if len(num_labeled) != len(values) or not values or any(step < 0 for step in steps):
        raise Refusal(f"Need one value for each of growing label counts, found {num_labeled} and {values}.")
    if not any(steps):
        return math.fsum(values) / len(values)
    areas = (step * (values[i] + values[i + 1]) / 2 for i, step in enumerate(steps))
    return math.fsum(areas) / (num_labeled[-1] - num_labeled[0])


def mean_interval(samples: Sequence[float]) -> Estimate:
    """Return the mean of independent samples with its 95 % interval by Student's t (n - 1 degrees of freedom)."""
    count = len(samples)
    if count == 1:
        return Estimate(float(samples[0]), None)
    quantile = float(special.stdtrit(count - 1, 0.975))
    return Estimate(float(np.mean(samples)), quantile * float(np.std(samples, ddof=1)) / math.sqrt(count))


def labels_to_reach(
    num_labeled: Sequence[int], values: Sequence[float], target: float, greater_is_better: bool = True
) -> float | None:
    """Return how many labels it takes until a curve first reaches `target`; None where it never does.

    Linear between two budgets; the first budget, at most, for a curve that starts there.

    >>> labels_to_reach([100, 200], [0.5, 0.9], target=0.6)
    125.0
    """
    sign = 1 if greater_is_better else -1
    for i, value in enumerate(values):
        if sign * value >= sign * target:
            before = values[i - 1] if i else math.nan
            share = (target - before) / (value - before) if math.isfinite(before) else 1.0
            return float(num_labeled[i] - (1 - share) * (num_labeled[i] - num_labeled[max(i - 1, 0)]))
    return None


def compare(curves: Sequence[LearningCurve], baseline: str = "random") -> tuple[Comparison, ...]:
    """Return one comparison per acquisition, in the order they first appear, over all seeds of each.

    Refuses (`ValueError`) curves that cannot be put side by side: of different tasks, data sets, models, metrics or
    budgets, and two runs of one acquisition with one seed. A budget with a NaN has the mean NaN.
    """
    _refuse_mixed(curves)
    groups: dict[str, list[LearningCurve]] = {}
    for curve in sorted(curves, key=lambda curve: curve.seed):
        groups.setdefault(curve.acquisition, []).append(curve)
    reference = groups.get(baseline, [])
    return tuple(_summarize(groups[name], reference, baseline) for name in dict.fromkeys(c.acquisition for c in curves))


def _refuse_mixed(curves: Sequence[LearningCurve]) -> None:
    if not curves or not all(curve.points for curve in curves):
        raise Refusal("Cannot compare without points: pass at least one run, each with at least one finished round.")
    for name in ("task", "dataset", "model", "metric", "greater_is_better", "num_labeled"):
        found = list(dict.fromkeys(getattr(curve, name) for curve in curves))
        if len(found) > 1:
            raise Refusal(f"Cannot compare runs of different `{name}`: {found[0]} and {found[1]}. Compare like runs.")
    (name, seed), count = Counter((curve.acquisition, curve.seed) for curve in curves).most_common(1)[0]
    if count > 1:
        raise Refusal(f"Found {count} runs of {name} with seed {seed}. Pass each once, or run another `seed`.")


def _summarize(curves: list[LearningCurve], reference: list[LearningCurve], baseline: str) -> Comparison:
    first = curves[0]
    estimates = _estimates(curves)
    mean = tuple(estimate.mean for estimate in estimates)
    half_widths = [estimate.half_width for estimate in estimates if estimate.half_width is not None]
    areas = {curve.seed: aubc(curve.num_labeled, curve.values) for curve in curves}
    baseline_areas = {curve.seed: aubc(curve.num_labeled, curve.values) for curve in reference}
    differences = [areas[seed] - baseline_areas[seed] for seed in areas if seed in baseline_areas]
    baseline_mean = [estimate.mean for estimate in _estimates(reference)]
    best = max if first.greater_is_better else min
    target = best((value for value in baseline_mean if math.isfinite(value)), default=None)
    needed = saved = None
    if target is not None:
        needed = labels_to_reach(first.num_labeled, mean, target, first.greater_is_better)
        enough = labels_to_reach(first.num_labeled, baseline_mean, target, first.greater_is_better)
        saved = 100 * (1 - needed / enough) if needed is not None and enough else None
    return Comparison(
        **{name: getattr(first, name) for name in ("task", "dataset", "model", "metric", "greater_is_better")},
        acquisition=first.acquisition,
        baseline=baseline,
        seeds=tuple(areas),
        budgets=first.num_labeled,
        mean=mean,
        half_width=tuple(half_widths) or None,
        aubc=mean_interval(list(areas.values())),
        aubc_difference=mean_interval(differences) if differences and first.acquisition != baseline else None,
        target=target,
        labels_needed=needed,
        labels_saved_percent=saved,
        num_rows=tuple(None if None in rows else min(rows) for rows in zip(*(c.num_rows for c in curves), strict=True)),
        intervals=first.intervals if len(curves) == 1 else (None,) * len(first.points),
    )


def _estimates(curves: Sequence[LearningCurve]) -> list[Estimate]:
    return [mean_interval(values) for values in zip(*(curve.values for curve in curves), strict=True)]


def to_json(comparisons: Sequence[Comparison]) -> str:
    """Return the comparisons as a JSON list, one object per acquisition with the fields of `Comparison`."""
    return dump_json([asdict(comparison) for comparison in comparisons])
