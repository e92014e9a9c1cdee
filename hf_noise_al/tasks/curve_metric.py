"""Which metric a learning curve shows or a best model is chosen by, and whether it should rise."""

from __future__ import annotations

from collections.abc import Sequence

from ..files.shown_text import listed, one_line
from ..refusals import Refusal
from ..settings.recipe import did_you_mean

_LOWER_IS_BETTER = ("loss", "mse", "mae", "rmse", "error", "wer", "cer", "perplexity", "runtime")


def curve_metric(
    names: Sequence[str], evaluation_sets: Sequence[str], wanted: str | None = None, folds: bool = False
) -> str:
    """Return the full name, as in `Trainer`'s metrics, of the metric that the learning curve shows.

    `names` are those of `Metrics.names`; `wanted` may leave out ``eval_`` and, for the first set, the set's name. With
    `folds` there are the cross-validated ones, ``cv_...``, too; without evaluation sets there are no others.
    """
    crossed = [f"cv_{name}" for name in (*names, "loss")] if folds else []
    known = [*_full_names(names, evaluation_sets), *crossed]
    if wanted is None:
        return known[0]
    if wanted in crossed:
        return wanted
    if not evaluation_sets:
        raise _unknown("metric_for_curve", wanted, known)
    short = wanted.removeprefix("eval_")
    first = f"eval_{evaluation_sets[0]}_{short}" if evaluation_sets[0] else f"eval_{short}"
    for candidate in (f"eval_{short}", first):
        if candidate in known:
            return candidate
    raise _unknown("metric_for_curve", wanted, known)


def check_best_metric(names: Sequence[str], evaluation_sets: Sequence[str], wanted: str) -> None:
    """Raise ValueError unless `wanted`, ``metric_for_best_model``, is measured; it may leave out ``eval_`` alone."""
    known = _full_names(names, evaluation_sets)
    if f"eval_{wanted.removeprefix('eval_')}" not in known:
        raise _unknown("metric_for_best_model", wanted, known)


def _full_names(names: Sequence[str], evaluation_sets: Sequence[str]) -> list[str]:
    prefixes = [f"eval_{name}_" if name else "eval_" for name in evaluation_sets]
    return [prefix + name for prefix in prefixes for name in (*names, "loss")]


def _unknown(setting: str, wanted: str, known: list[str]) -> Refusal:
    near = did_you_mean(wanted if wanted.startswith("cv_") else f"eval_{wanted.removeprefix('eval_')}", known)
    return Refusal(f"Unknown `{setting}` {one_line(wanted)}.{near} It can be: {listed(known, 50)}.")


def is_greater_better(metric: str) -> bool:
    """Return whether `metric` should rise, by its name: errors and losses should fall."""
    return not metric.endswith(_LOWER_IS_BETTER)
