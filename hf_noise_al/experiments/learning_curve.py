"""Learning curves as data: one run as a file, and several runs compared (mean, interval, AUBC, labels saved)."""

import itertools
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from ..files.atomic import write_atomically
from ..files.shown_text import one_line
from ..measuring.intervals import Interval, format_interval
from ..refusals import MissingFile, Refusal

FILE_NAME = "learning_curve.json"
VERSION = 1
TEXTS = ("task", "dataset", "model", "acquisition", "metric")
FIELD_TYPES: dict[str, type] = {**dict.fromkeys(TEXTS, str), "seed": int, "greater_is_better": bool, "points": list}


@dataclass(frozen=True)
class LearningCurve:
    """Hold one run: what was run, and one point per round (the fields of `RoundRecord`, as plain JSON)."""

    task: str
    dataset: str
    model: str
    acquisition: str
    seed: int
    metric: str
    greater_is_better: bool
    points: tuple[dict[str, Any], ...]

    @property
    def num_labeled(self) -> tuple[int, ...]:
        """Return the number of labels each round was trained on."""
        return tuple(int(point["num_labeled"]) for point in self.points)

    @property
    def values(self) -> tuple[float, ...]:
        """Return `metric` of each round; NaN where the run measured no finite number."""
        return tuple(_value(point, self.metric) for point in self.points)

    @property
    def num_rows(self) -> tuple[int | None, ...]:
        """Return on how many rows `metric` of each round was measured; None where an earlier release did not say."""
        return tuple(_known(point, "num_rows", self.metric) for point in self.points)

    @property
    def intervals(self) -> tuple[Interval | None, ...]:
        """Return the 95 % interval of `metric` of each round, of the rows it was measured on, or None."""
        found = (_known(point, "intervals", self.metric) for point in self.points)
        return tuple(None if ends is None else (float(ends[0]), float(ends[1])) for ends in found)

    def save(self, path: str | Path) -> None:
        """Write the curve as JSON to the file `path`, replacing it in one step; a NaN becomes null."""
        write_atomically(Path(path), _dumps({"version": VERSION, **asdict(self)}))

    @classmethod
    def load(cls, path: str | Path) -> "LearningCurve":
        """Read the curve of a run: `path` is its output folder, or the JSON file itself.

        `FileNotFoundError` where there is none; `ValueError` naming the file where it is damaged or of another version.
        """
        path = Path(path)
        file = path / FILE_NAME if path.is_dir() else path
        if not file.is_file():
            raise MissingFile(f"No learning curve at {file}. Pass the output_dir of a finished run.")
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            fields = _checked_fields(document)
        except ValueError as error:
            raise Refusal(f"Cannot read the learning curve {file}: {error}") from error
        return cls(**fields)


def _value(point: Mapping[str, Any], metric: str) -> float:
    metrics = point["metrics"]
    if metric not in metrics:
        raise Refusal(f"No metric `{metric}` in round {point.get('round')}; it has {', '.join(sorted(metrics))}.")
    value = metrics[metric]
    return float(value) if value is not None and math.isfinite(value) else math.nan


def _known(point: Mapping[str, Any], field: str, metric: str) -> Any:
    return (point.get(field) or {}).get(metric)


def _checked_fields(document: object) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise Refusal(f"expected a JSON object, found {type(document).__name__}.")
    if document.get("version") != VERSION:
        raise Refusal(
            f"it has version {document.get('version')}, this hf_noise_al reads version {VERSION}. "
            f"Use the hf_noise_al that wrote it, or run again."
        )
    for name, kind in FIELD_TYPES.items():
        if type(document.get(name)) is not kind:
            raise Refusal(f"`{name}` should be {kind.__name__}, found {document.get(name)!r}.")
    for point in document["points"]:
        sound = isinstance(point, dict) and isinstance(point.get("num_labeled"), int)
        if not sound or not isinstance(point.get("metrics"), dict):
            raise Refusal(f"a point needs `num_labeled` and `metrics`, found {point!r}.")
        name, value = document["metric"], point["metrics"].get(document["metric"])
        if value is not None and type(value) not in (int, float):
            raise Refusal(f"`{name}` of round {point.get('round')} should be a number or null, found {value!r}.")
        _check_rows(point, document["metric"])
    return {**{name: document[name] for name in FIELD_TYPES}, "points": tuple(document["points"])}


def _check_rows(point: Mapping[str, Any], metric: str) -> None:
    for field in ("num_rows", "intervals"):
        if not isinstance(point.get(field) or {}, dict):
            raise Refusal(f"`{field}` of round {point.get('round')} should be an object, found {point[field]!r}.")
    count, ends = _known(point, "num_rows", metric), _known(point, "intervals", metric)
    if count is not None and type(count) is not int:
        raise Refusal(f"`num_rows` of round {point.get('round')} should be a whole number, found {count!r}.")
    if ends is not None and not (
        isinstance(ends, list | tuple) and len(ends) == 2 and all(type(end) in (int, float) for end in ends)
    ):
        raise Refusal(f"`intervals` of round {point.get('round')} should be two numbers, found {ends!r}.")


def _finite(value: Any) -> Any:
    """Return `value` with every NaN and infinity replaced by None: JSON has no number for them."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _dumps(document: Any) -> str:
    return json.dumps(_finite(document), indent=2, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Estimate:
    """Hold a mean and the half width of its 95 % interval (None where there is one sample only)."""

    mean: float
    half_width: float | None


@dataclass(frozen=True)
class Comparison:
    """Hold what the runs of one acquisition, one per seed, say beside those of the baseline.

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
    """The least rows that a run measured a budget on; None where one does not say."""
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
    return _dumps([asdict(comparison) for comparison in comparisons])


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
        ends, count = _known(point, "intervals", metric), _known(point, "num_rows", metric)
        known = ["" if ends is None else format_interval(ends), "" if count is None else str(count)]
        rows.append([*counts, *seconds, f"{_value(point, metric):.4f}", *known])
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
