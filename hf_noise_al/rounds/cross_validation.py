"""Cross-validation over the labeled rows of a round: every one is predicted by a model that has not seen it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import EvalPrediction
from transformers.trainer_pt_utils import nested_concat
from transformers.trainer_utils import PredictionOutput, SaveStrategy
from transformers.utils.logging import get_logger

from ..measuring.scores import Scores
from ..pool.pool import Label
from ..refusals import Refusal
from ..upstream.trainer import UpstreamTrainer

logger = get_logger(__name__)

PREFIX = "cv"


def deal_folds(labels: Sequence[Label], folds: int, generator: torch.Generator) -> list[list[int]]:
    """Deal rows into folds at random, each row into one; return their positions by fold, ascending.

    Folds differ by one row at most, and so do their shares of each class, where labels are classes.

    Args:
        labels: One for each row.
        folds: How many, from 2 to the number of rows.
        generator: Source of randomness.
    """
    order = torch.randperm(len(labels), generator=generator).tolist()
    if all(isinstance(label, int) for label in labels):
        order.sort(key=lambda position: labels[position])  # stable: a class stays shuffled
    return [sorted(order[fold::folds]) for fold in range(folds)]


def refuse_a_single_row(num_labeled: int) -> None:
    """Raise ValueError where there are not two labeled rows: one to learn from, one to predict."""
    if num_labeled < 2:
        raise Refusal(
            f"Cannot cross-validate (`eval_folds`) over {num_labeled} labeled row: one must be left to learn from. "
            "Raise `initial_size`, label more rows, or leave `eval_folds` out."
        )


def cross_validate(
    trainer: UpstreamTrainer,
    labeled: Dataset,
    labels: Sequence[Label],
    folder: Path,
    train: Callable[[Dataset, Path], object],
    generator: torch.Generator,
) -> Scores:
    """Return the metrics of the labeled rows, ``cv_...``, predicted by models trained on the other folds.

    The numbers are of the rows that are labeled, and where a query chose them these are no random sample of the pool:
    often they are the harder ones. Rows of one round share most of what their models learned from, so that intervals
    are somewhat short (Bengio and Grandvalet, JMLR 5, 2004).

    Args:
        trainer: Whose collator and metrics are used; its weights are others afterwards. ``args.eval_folds`` says how
            many folds there are; as many as rows, where these are fewer.
        labeled: The labeled rows, as they are trained on.
        labels: The label of each.
        folder: For checkpoints; it goes.
        train: ``(rows, folder for checkpoints)``, trains from the initial weights.
        generator: Deals the rows.
    """
    folds, outputs = trainer.args.eval_folds or 0, []
    refuse_a_single_row(len(labeled))
    if folds > len(labeled):
        logger.warning(f"`eval_folds` is {folds}, and {len(labeled)} rows are labeled: they are {len(labeled)} folds.")
    dealt = deal_folds(labels, min(folds, len(labeled)), generator)
    with _apart(trainer, folder):
        for number, held_out in enumerate(dealt):
            learned = sorted(set(range(len(labeled))).difference(held_out))
            train(labeled.select(learned), folder / str(number))
            with _without_metrics(trainer):
                outputs.append(trainer.predict(labeled.select(held_out), metric_key_prefix=PREFIX))
    return _score(trainer, outputs, list(map(len, dealt)))


def _score(trainer: UpstreamTrainer, outputs: Sequence[PredictionOutput], sizes: Sequence[int]) -> Scores:
    """Return the metrics of all folds together, as if they were one evaluation set."""
    predictions, label_ids = outputs[0].predictions, outputs[0].label_ids
    for output in outputs[1:]:
        predictions = nested_concat(predictions, output.predictions)
        label_ids = None if label_ids is None else nested_concat(label_ids, output.label_ids)
    values: dict[str, Any] = {}
    losses = [(output.metrics or {}).get(f"{PREFIX}_loss") for output in outputs]
    if None not in losses:
        values["loss"] = float(np.average(np.array(losses, dtype=float), weights=sizes))
    labels: Any = label_ids
    prediction = EvalPrediction(predictions=predictions, label_ids=labels)
    compute: Any = trainer.compute_metrics
    if compute is not None and predictions is not None and label_ids is not None:
        if trainer.args.batch_eval_metrics:  # upstream hands on tensors then
            prediction = EvalPrediction(predictions=_as_tensors(predictions), label_ids=_as_tensors(labels))
            values |= compute(prediction, compute_result=True)
        else:
            values |= compute(prediction)
    scores = Scores()
    scores.add(PREFIX, values, sum(sizes), prediction, compute)
    return scores


def _as_tensors(arrays: Any) -> Any:
    if isinstance(arrays, tuple | list):
        return type(arrays)(_as_tensors(each) for each in arrays)
    return (
        {name: _as_tensors(each) for name, each in arrays.items()}
        if isinstance(arrays, dict)
        else torch.as_tensor(arrays)
    )


@contextmanager
def _apart(trainer: UpstreamTrainer, folder: Path) -> Iterator[None]:
    """Let trainings leave nothing behind: no entries in the logs, no checkpoints, no uploads.

    Checkpoints are written where the best one is needed, into `folder`, which goes.
    """
    args, own = trainer.args, vars(trainer)
    before, log = (args.save_strategy, args.push_to_hub), own.get("log")
    _remove(trainer, folder)  # what a killed run left
    if not args.load_best_model_at_end:
        args.save_strategy = SaveStrategy.NO
    args.push_to_hub, own["log"] = False, lambda *args, **kwargs: None
    try:
        yield
    finally:
        args.save_strategy, args.push_to_hub = before
        del own["log"]
        if log is not None:
            own["log"] = log
    _remove(trainer, folder)


@contextmanager
def _without_metrics(trainer: UpstreamTrainer) -> Iterator[None]:
    """Let predictions of a fold stay unmeasured: some metrics are not defined on few rows, all are for all folds."""
    compute, trainer.compute_metrics = trainer.compute_metrics, None
    try:
        yield
    finally:
        trainer.compute_metrics = compute


def _remove(trainer: UpstreamTrainer, folder: Path) -> None:
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        shutil.rmtree(folder, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
