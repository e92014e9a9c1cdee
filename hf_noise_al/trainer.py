"""ActiveTrainer: rounds of fine-tuning on the labeled split, each followed by a query for what to label next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.trainer_utils import TrainOutput

from .acquisition import Query
from .annotators import HeldOutLabels
from .pool.initial_set import initial_set
from .refusals import Refusal
from .rounds.answers import ask, check_label_file, plain_rows, tell
from .rounds.checks import check_budget, check_query_size, warn_of_few_rows
from .rounds.pool_trainer import PoolTrainer
from .rounds.resuming import refuse_other_folder, take_weights
from .run_folder.fingerprint import fingerprint_defaults
from .run_folder.history import RoundRecord
from .run_folder.pending_query import PendingQuery
from .selection.checks import check_whole_number


class ActiveTrainer(PoolTrainer):
    """A `transformers.Trainer` that learns in rounds and chooses what to label between them.

    `train` runs all rounds. `fine_tune`, `query` and `annotate` are the same steps one by one, for people who label.
    Rows are those of the `train_dataset` passed in, everywhere.

    Args:
        train_dataset: The pool, a `datasets.Dataset` of model inputs; further columns may stay. Labels that are
            there count as given (None, NaN and -100 stand for missing). Where *all* are there and no `annotator` is
            passed, they are held out and revealed when a query asks for them: a simulation.
        annotator: Who answers queries in `train`.
        acquisition: How queries are chosen; None takes ``args.acquisition`` and ``args.acquisition_kwargs``.
        observable: What a query looks at; None takes class probabilities, or the features of a regression model.
        augmentation: Changes the batches that are trained on, see `hf_noise_al.augmentation`; none by default.
        read_answer: ``(row, answer) -> label``, what makes plain JSON of answers that are neither classes nor numbers.
        set_aside: Rows that are neither asked for nor trained on, such as those that `eval_dataset` is made of.
        id_column: Column that names each row for people, in messages; None takes one called ``id``.
        trainer_args, trainer_kwargs: As for `transformers.Trainer`; `args` is an `ActiveTrainingArguments`.

    Raises:
        ValueError: settings that would give wrong results, before any work starts.
    """

    def train(
        self,
        resume_from_checkpoint: bool | str | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Run all rounds: fine-tune, query, annotate, until ``args.num_rounds`` were trained.

        Without `resume_from_checkpoint` the run starts afresh, from the labels that came with the data set or through
        `annotate`; with it (True, or the `output_dir`), it goes on where ``active_state.json`` says, and picks and
        scores what an uninterrupted run would have.

        Returns:
            The output of the last round's training.
        """
        self._trial_of_run = trial
        self._set_up_trial(trial)
        with self.alone_in_folder():
            self._begin(resume_from_checkpoint)
            return self._run_rounds(trial=trial, ignore_keys_for_eval=ignore_keys_for_eval)

    def _begin(self, resume_from_checkpoint: bool | str | None) -> None:
        """Go on with the run in the folder, or start afresh; refuse before anything of an earlier run goes."""
        self._warn_of_few_rows()
        has_annotator = self.annotator is not None
        if resume_from_checkpoint:
            self.resume(resume_from_checkpoint)
            check_budget(self._run, self._run.state, has_annotator)
        else:
            self._trial_run.try_out(self.acquisition, self.annotator)
            fresh = self._run.state.afresh()
            check_budget(self._run, fresh, has_annotator)
            check_label_file(self._run, self.annotator, fresh)
            self._run.start_afresh(fresh)
        if not self.pool.num_labeled and self._run.state.phase != "annotate":
            self._choose_initial_set()

    def _run_rounds(self, **kwargs: Any) -> TrainOutput:
        restored = self._run.weights.output(len(self.history) - 1)
        output = restored[0] if restored else TrainOutput(0, 0.0, {})
        while len(self.history) < self.args.num_rounds:
            state = self._run.state
            if state.phase == "fine_tune":
                output = self.fine_tune(**kwargs)
                continue
            asked = state.pending if state.phase == "annotate" else None
            rows = list(asked.rows) if asked is not None else self.query().indices.tolist()
            assert self.annotator is not None  # check_budget
            answers = ask(self._run, self.annotator, rows)
            tell(self._run, rows, answers, given=False, held_out=isinstance(self.annotator, HeldOutLabels))
        return output

    def _choose_initial_set(self) -> None:
        rows, args = self.pool.unlabeled_rows, self.args
        held_out = self.annotator.labels if isinstance(self.annotator, HeldOutLabels) else None
        labels = None if held_out is None else [held_out[row] for row in rows]
        chosen = initial_set(rows, args.initial_size, args.initial_selection, labels, self._generator())
        self._run.remember(PendingQuery(len(self.history), chosen, [None] * len(chosen), 0.0, len(chosen)))

    def fine_tune(self, **kwargs: Any) -> TrainOutput:
        """Train one round on everything labeled, from the initial weights unless ``args.warm_start``; evaluate; record.

        Raises:
            ValueError: nothing is labeled.
        """
        if not self.pool.num_labeled:
            raise Refusal("Cannot fine-tune: no row is labeled. Label some with `annotate`, or call `train`.")
        self._warn_of_few_rows()
        self._trial_run.try_out(self.acquisition, self.annotator)
        with self.alone_in_folder():
            return self._fine_tune(**kwargs)

    def _fine_tune(self, **kwargs: Any) -> TrainOutput:
        number, num_labeled, state = len(self.history), self.pool.num_labeled, self._run.state
        with self._run.change():
            pass  # labels that came with the data are on the disk before they are trained on
        crossed = self._training.cross_validate(self.train_dataset, **kwargs)
        output, seconds = self._training.train(number, **kwargs)
        scores = self._training.evaluate().beside(crossed)
        record = RoundRecord(
            round=number,
            num_labeled=num_labeled,
            query_size=num_labeled - (self.history[-1].num_labeled if self.history else 0),
            train_seconds=seconds,
            acquisition_seconds=state.acquisition_seconds,
            metrics=scores.metrics,
            num_rows=scores.num_rows,
            intervals=scores.intervals,
        )
        with self._run.change():
            state.history.append(record)
            state.pending, state.acquisition_seconds = None, 0.0
        self._run.weights.forget_before(number)
        self._log_at(record.num_labeled, record.logged())
        self._fire("on_round_end", record=record, history=list(self.history))
        return output

    def query(self, query_size: int | None = None) -> Query:
        """Choose the rows to label next with the model as it is, trained or not.

        The choice is remembered: asked again before anything changed, it is the same. Labels are told by `annotate`.

        Args:
            query_size: How many rows; None takes ``args.query_size``.

        Returns:
            Indices: rows of the data set, best first, (query_size,). Scores: one for each of them.

        Raises:
            ValueError: there are fewer unlabeled rows, or the model's output for one of them is not finite.
        """
        size = self.args.query_size if query_size is None else query_size
        check_whole_number("query_size", size, least=0)
        unlabeled = self.pool.unlabeled_rows
        check_query_size(self._run, size, len(unlabeled))
        pending = self._run.state.pending
        if pending is None or not pending.is_query_of(len(self.history), size):
            with self.alone_in_folder():
                self._fire("on_query_begin", pool=self.pool)
                pending = self._looking.choose(self.acquisition, unlabeled, size, self._generator())
                self._run.remember(pending)
                self._fire("on_query_end", query=_query(pending))
        return _query(pending)

    def annotate(self, indices: Sequence[int] | torch.Tensor, labels: Sequence[object] | torch.Tensor) -> None:
        """Tell the labels of rows, all or none; they are on the disk when this returns.

        Where it raises, it may be called again: labels that were written all the same are taken as told.

        Args:
            indices: Rows of the data set, (n,).
            labels: One each, as people write them: the name of a class, a number, or a list of them. A number is a
                class by its place where no class is called by a number; see `hf_noise_al.pool.label_values`.

        Raises:
            ValueError: a row is unknown or has another label already, or a label does not fit the model; nothing is
                kept.
        """
        with self.alone_in_folder():
            tell(self._run, plain_rows(indices), list(labels), given=True)

    def resume(self, folder: bool | str = True) -> None:
        """Go back to the state in ``output_dir/active_state.json``: labels, history, pending query and weights.

        The data may have new classes behind those that the run had, where a `model_init` makes the output head anew.

        Raises:
            ValueError: there is no state, it is damaged, it belongs to other data or arguments, or another process is
                at work in the folder.
        """
        with self.alone_in_folder():
            refuse_other_folder(self._run, folder)
            state = self._run.load(fingerprint_defaults(self.args, self.acquisition))
            check_label_file(self._run, self.annotator, state)
            take_weights(self._run, state, self._training)
            self._run.go_on_with(state)

    def _warn_of_few_rows(self) -> None:
        if not self._has_told_few_rows:
            warn_of_few_rows(self)
        self._has_told_few_rows = True


def _query(pending: PendingQuery) -> Query:
    return Query(torch.tensor(pending.rows), torch.tensor(pending.scores))
