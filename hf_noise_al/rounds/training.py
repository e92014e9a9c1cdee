"""The training of a round, and the measuring that belongs to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import EvalPrediction, set_seed
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from ..measuring.scores import Scores
from ..processes.generators import named_generator, round_generator
from ..run_folder.stored_run import StoredRun
from .cross_validation import cross_validate


class RoundTraining:
    """Trains rounds of a run, each with its own checkpoints, or takes what a killed process had trained already.

    Args:
        run: The run.
        train: ``Trainer.train`` of transformers.
    """

    def __init__(self, run: StoredRun, train: Callable[..., TrainOutput]) -> None:
        self.run, self.trainer, self._train = run, run.trainer, train
        self.fold: Dataset | None = None
        """Rows that are trained on in the place of all that are labeled, while labeled rows are cross-validated."""
        self._batch_of_step = (-1, 0)
        self._scores: Scores | None = None

    def train(self, number: int, **kwargs: Any) -> tuple[TrainOutput, float]:
        """Train round `number`, or take from the disk what a killed run had trained already.

        Returns:
            The output, and the seconds spent on the round; by killed processes, until the checkpoint that is gone on
            from.
        """
        trainer, weights, num_labeled = self.trainer, self.run.weights, self.run.pool.num_labeled
        saved = weights.finished_training(number, num_labeled)
        if saved is not None:
            return saved
        started = time.perf_counter()
        checkpoint = weights.begin(number, num_labeled)
        started -= weights.seconds_before(checkpoint)
        model_init = trainer.model_init
        trainer._round_started = started
        try:
            if trainer.args.warm_start and number > 0:
                trainer.model_init = None  # upstream would make a new model
            output = self._train_once(weights.round_folder(number), checkpoint, **kwargs)
        finally:
            trainer.model_init = model_init
        seconds = time.perf_counter() - started
        weights.save(number, output, seconds)
        return output, seconds

    def _train_once(self, folder: Path, checkpoint: str | None = None, **kwargs: Any) -> TrainOutput:
        """Train on the labeled split, with checkpoints in `folder`."""
        trainer = self.trainer
        set_seed(trainer.args.seed)
        trainer._round_folder, self._batch_of_step = folder, (-1, 0)
        try:
            output = self._train(resume_from_checkpoint=checkpoint, **kwargs)
        finally:
            trainer._round_folder = None
        trainer._check_wrapping()
        return output

    def cross_validate(self, labeled: Dataset, **kwargs: Any) -> Scores:
        """Measure the labeled rows, where ``args.eval_folds`` asks for that; the round's training comes after it."""
        run, args = self.run, self.trainer.args
        if args.eval_folds is None:
            return Scores()

        def train(rows: Dataset, folder: Path) -> None:
            run.weights.start_anew()
            self.fold = rows
            try:
                self._train_once(folder, **kwargs)
            finally:
                self.fold = None

        labels = [run.pool.label(row) for row in run.pool.labeled_rows]
        generator = round_generator(args.seed, run.state.round)
        return cross_validate(
            self.trainer, labeled, labels, run.weights.folds_folder(run.state.round), train, generator
        )

    def next_batch_generator(self) -> torch.Generator:
        """Return the generator for the batch of this process that is trained on next; no two batches share one."""
        args, steps = self.trainer.args, self.trainer.state.global_step
        step, batch = self._batch_of_step
        batch = batch + 1 if step == steps else 0
        self._batch_of_step = (steps, batch)
        number = batch * args.world_size + args.process_index
        return named_generator(args.seed, f"{self.run.state.round}/{steps}/{number}")

    def evaluate(self) -> Scores:
        """Evaluate at the end of a round; return the metrics, on how many rows each was measured, and intervals."""
        if self.trainer.eval_dataset is None:
            return Scores()
        timing = ("_runtime", "_per_second", "_preparation_time")
        self._scores = scores = Scores()
        try:
            found = self.trainer.evaluate()
        finally:
            self._scores = None
        return scores.only(
            {
                name: float(value)
                for name, value in found.items()
                if name != "epoch" and not name.endswith(timing) and isinstance(value, int | float)
            }
        )

    def keep_scores(self, output: EvalLoopOutput, prefix: str) -> None:
        """Keep, where `evaluate` asked, on how many rows the metrics of `output` were measured, and intervals."""
        if self._scores is not None:
            labels: Any = output.label_ids  # None where there are no metrics
            prediction = EvalPrediction(predictions=output.predictions, label_ids=labels)
            rows = output.num_samples or 0
            self._scores.add(prefix, output.metrics or {}, rows, prediction, self.trainer.compute_metrics)
