"""What settings and counts alone say about a run that cannot work, before a model sees a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers.utils.logging import get_logger

from ..acquisition import Acquisition, NoiseStability
from ..measuring.intervals import few_rows
from ..noise.gradient_sketch.followed import refuse_one_by_one_of_shards
from ..observables.base import Observable, default_observable
from ..refusals import Refusal
from ..run_folder.state import ActiveState
from ..run_folder.stored_run import StoredRun
from ..upstream.trainer import UpstreamTrainer
from ..upstream.unsupported import refuse_low_precision_of_shards
from .cross_validation import refuse_a_single_row

logger = get_logger(__name__)


def check_acquisition(
    trainer: UpstreamTrainer, acquisition: Acquisition, observable: Observable | None, num_rows: int
) -> None:
    """Raise ValueError where `acquisition` cannot query the trainer's model, or not that many rows."""
    if not isinstance(acquisition, Acquisition):
        made = f": pass {acquisition.__name__}()" if isinstance(acquisition, type) else ""
        raise Refusal(
            f"`acquisition` must be an instance of `Acquisition`, got {acquisition!r}{made}. A name goes into "
            "`ActiveTrainingArguments(acquisition=...)`."
        )
    looked_at = observable or default_observable(trainer.model)
    if isinstance(acquisition, NoiseStability):
        refuse_low_precision_of_shards(trainer.accelerator, acquisition.lower_precision)
        if acquisition.one_by_one and acquisition.estimator == "gradient_sketch":
            refuse_one_by_one_of_shards(trainer._shards)
    acquisition.check(trainer.model, looked_at)
    if isinstance(acquisition, NoiseStability):
        rows = min(trainer.args.candidate_size or num_rows, num_rows)
        acquisition.check_memory(trainer.model, looked_at, -(-rows // trainer.args.world_size))


def check_budget(run: StoredRun, state: ActiveState, has_annotator: bool) -> None:
    """Raise ValueError where the pool has too few rows for the rounds that are left, or nobody answers queries."""
    args, pool = run.trainer.args, state.pool
    queries = args.num_rounds - 1 - state.round + (state.phase != "fine_tune" and state.round > 0)
    initial = 0 if pool.num_labeled else args.initial_size
    needed = pool.num_labeled + initial + max(queries, 0) * args.query_size
    if args.eval_folds is not None:
        refuse_a_single_row(pool.num_labeled + initial)
    size = pool.size - len(pool.set_aside)
    if needed > size:
        aside = f" beside the {len(pool.set_aside)} set aside" if pool.set_aside else ""
        raise Refusal(
            f"{args.num_rounds} rounds need {needed} labels ({pool.num_labeled} there, {initial} initial, "
            f"{queries} queries of {args.query_size}), the pool has {size} rows{aside}. "
            f"Lower `num_rounds`, `query_size` or `initial_size`.{_all_given(run)}"
        )
    if (initial or queries > 0) and not has_annotator:
        raise Refusal(
            "`train` needs someone who answers its queries: pass an `annotator` (`--label_file`), or take the "
            "steps one by one with `query`, `annotate` and `fine_tune`."
        )


def check_query_size(run: StoredRun, size: int, available: int) -> None:
    """Raise ValueError where `size` rows cannot be queried of the `available` unlabeled ones."""
    if not 1 <= size <= available:
        raise Refusal(
            f"Cannot query {size} of {available} unlabeled examples. "
            f"Lower `query_size`, or pass a larger `train_dataset`.{_all_given(run)}"
        )


def warn_of_few_rows(trainer: UpstreamTrainer) -> None:
    """Warn of evaluation sets that are too small for their metrics to say much."""
    sets: Any = trainer.eval_dataset if isinstance(trainer.eval_dataset, Mapping) else {"": trainer.eval_dataset}
    counts = {str(name): len(rows) for name, rows in sets.items() if hasattr(rows, "__len__")}
    said = few_rows(counts, crossed=trainer.args.eval_folds is not None)
    if said is not None and trainer.is_world_process_zero():
        logger.warning(said)


def _all_given(run: StoredRun) -> str:
    """Say why nothing is left to label, where labels that are in the data are the cause."""
    if len(run.came_labeled) < len(run.data) - len(run.pool.set_aside):
        return ""
    return (
        " Every row has a label in the data, and with an annotator (`--label_file`) these count as given: leave "
        "the annotator out to have them held out, or the label column to have them asked for."
    )
