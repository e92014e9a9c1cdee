"""ActiveTrainer: rounds of fine-tuning on the labeled split, each followed by a query for what to label next."""

from __future__ import annotations

import inspect
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import pyarrow as pa
import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, Trainer, set_seed
from transformers.trainer_utils import EvalLoopOutput, TrainOutput
from transformers.utils.logging import get_logger

from .acquisition import Acquisition, Candidates, NoiseStability, Query
from .annotators import Annotator, HeldOutLabels, LabelFile
from .annotators.label_file import KnownRows
from .augmentation import Augmentation, batch_generator
from .exchange.query_file import QUERIES_FOLDER, refuse_other_rows, write_query_file
from .files.shown_text import listed
from .measuring.evaluation_sets import name_labels
from .measuring.intervals import few_rows
from .measuring.scores import Scores
from .noise.gradient_sketch.followed import refuse_one_by_one_of_shards
from .observables.base import WORD_STARTS, Observable, default_observable
from .observing.observer import Observer
from .observing.unchanged import untouched_random_state
from .pool.columns import LABEL_COLUMNS, NUM_WORDS, is_text
from .pool.hashes import content_hash, rows_hash
from .pool.initial_set import initial_set
from .pool.pool import Annotation, Label, Pool
from .pool.pool_dataset import PoolDataset
from .pool.problem_type import predicts_classes
from .processes.lost_processes import explaining_lost_processes
from .rounds.cross_validation import cross_validate, refuse_a_single_row
from .rounds.trial_run import refuse_too_few, try_evaluation, try_query, try_training
from .run_folder.earlier_run import keep_earlier_run, refuse_own_file
from .run_folder.fingerprint import fingerprint_defaults, run_fingerprint
from .run_folder.history import RoundRecord
from .run_folder.model_card import write_model_card
from .run_folder.round_files import RoundFiles
from .run_folder.run_lock import RunLock
from .run_folder.set_aside import write_set_aside
from .run_folder.state import STATE_FILE, ActiveState, PendingQuery, damaged
from .selection.checks import check_whole_number
from .upstream.trainer import UpstreamTrainer
from .upstream.unsupported import refuse_low_precision_of_shards

logger = get_logger(__name__)

T = TypeVar("T")


class ActiveTrainer(UpstreamTrainer):
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

    _split: tuple[Pool | None, int, Any]

    def __init__(
        self,
        *trainer_args: Any,
        annotator: Annotator | None = None,
        acquisition: Acquisition | None = None,
        observable: Observable | None = None,
        augmentation: Augmentation | None = None,
        read_answer: Callable[[int, object], Label] | None = None,
        set_aside: Iterable[int] = (),
        id_column: str | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        super().__init__(*trainer_args, **trainer_kwargs)
        self.data = PoolDataset(
            self.train_dataset, self.args.label_column, read_answer, predicts_classes(self.model), id_column
        )
        self.reader = self.data.reader_for(self.model)
        self.eval_dataset = name_labels(self.eval_dataset, self.data)
        self.annotator = annotator
        self.acquisition = acquisition or self.args.make_acquisition()
        if isinstance(self.acquisition, NoiseStability):
            refuse_low_precision_of_shards(self.accelerator, self.acquisition.lower_precision)
            if self.acquisition.one_by_one and self.acquisition.estimator == "gradient_sketch":
                refuse_one_by_one_of_shards(self._shards)
        self.observable = observable
        self.acquisition.check(self.model, observable or default_observable(self.model))
        if isinstance(self.acquisition, NoiseStability):
            rows = min(self.args.candidate_size or len(self.data), len(self.data))
            share = -(-rows // self.args.world_size)
            self.acquisition.check_memory(self.model, observable or default_observable(self.model), share)
        self.augmentation = augmentation
        self._batch_of_step = (-1, 0)
        self._tried: set[str] = set()
        self._has_told_few_rows = False
        self._scores: Scores | None = None
        self.set_aside = frozenset(self.data.checked_rows("set_aside", set_aside))
        asked = [row for row in range(len(self.data)) if row not in self.set_aside]
        given = {row: label for row in asked if (label := self.data.labels[row]) is not None}
        labels = self.data.restore(self.reader, list(given), list(given.values()))
        if len(given) == len(asked) and annotator is None:
            logger.info("Every row of `train_dataset` has a label: they are held out and revealed when queried.")
            self.annotator, given = HeldOutLabels(dict(zip(given, labels, strict=True))), {}
        annotations = [Annotation(row, label, 0, given=True) for row, label in zip(given, labels, strict=False)]
        self._came_labeled = frozenset(given)
        self._state = ActiveState(Pool(len(self.data), annotations, self.set_aside))
        self._files = RoundFiles(self)
        self._lock, self._holds = RunLock(), 0
        self._owns_state_file = self._wrote_set_aside = False
        self._data_fingerprints: dict[str, dict[str, object]] | None = None

    @property
    def train_dataset(self) -> Dataset:
        """The labeled split of the pool, made when it is asked for."""
        if hasattr(self, "_state") and self._split[:2] != (self.pool, self.pool.num_labeled):
            self._split = (self.pool, self.pool.num_labeled, self.data.labeled_split(self.pool))
        return self._split[2]

    @train_dataset.setter
    def train_dataset(self, dataset: Any) -> None:
        self._split = (None, 0, dataset)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return the batches of an evaluation set, its labels named as those of the pool are."""
        return super().get_eval_dataloader(name_labels(eval_dataset, self.data))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """Return the batches of a set to predict, its labels named as those of the pool are."""
        return super().get_test_dataloader(name_labels(test_dataset, self.data))

    @property
    def pool(self) -> Pool:
        """Which rows are labeled, with what label, since which round."""
        return self._state.pool

    @property
    def history(self) -> list[RoundRecord]:
        """One record per round that was trained."""
        return self._state.history

    # ---- the loop --------------------------------------------------------------------------------------------------

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
            return self._run_rounds(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def _run_rounds(
        self, resume_from_checkpoint: bool | str | None, trial: Any, ignore_keys_for_eval: list[str] | None
    ) -> TrainOutput:
        self._tell_few_rows()
        if resume_from_checkpoint:
            self.resume(resume_from_checkpoint)
            self._check_budget(self._state)
        else:
            self._try_out()
            self._start_afresh()
        if not self.pool.num_labeled and self._state.phase != "annotate":
            self._choose_initial_set()
        restored = self._files.output(len(self.history) - 1)
        output = restored[0] if restored else TrainOutput(0, 0.0, {})
        while len(self.history) < self.args.num_rounds:
            if self._state.phase == "fine_tune":
                output = self.fine_tune(trial=trial, ignore_keys_for_eval=ignore_keys_for_eval)
                continue
            rows = self._state.pending.rows if self._state.pending and self._state.phase == "annotate" else None
            rows = list(rows) if rows is not None else self.query().indices.tolist()
            self._tell(rows, self._ask_annotator(rows), given=False)
        return output

    def fine_tune(self, **kwargs: Any) -> TrainOutput:
        """Train one round on everything labeled, from the initial weights unless ``args.warm_start``; evaluate; record.

        Raises:
            ValueError: nothing is labeled.
        """
        if not self.pool.num_labeled:
            raise ValueError("Cannot fine-tune: no row is labeled. Label some with `annotate`, or call `train`.")
        self._tell_few_rows()
        self._try_out()
        with self.alone_in_folder():
            return self._fine_tune(**kwargs)

    def _fine_tune(self, **kwargs: Any) -> TrainOutput:
        number = self._state.round
        with self._all_or_none():
            pass  # labels that came with the data are on the disk before they are trained on
        crossed = self._cross_validate(**kwargs)
        output, seconds = self._train_round(number, **kwargs)
        scores = self._evaluate_round().beside(crossed)
        record = RoundRecord(
            round=number,
            num_labeled=self.pool.num_labeled,
            query_size=self.pool.num_labeled - (self.history[-1].num_labeled if self.history else 0),
            train_seconds=seconds,
            acquisition_seconds=self._state.acquisition_seconds,
            metrics=scores.metrics,
            num_rows=scores.num_rows,
            intervals=scores.intervals,
        )
        with self._all_or_none() as state:
            state.history.append(record)
            state.pending, state.acquisition_seconds = None, 0.0
        self._files.forget_before(number)
        self._log_round(record)
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
        if not 1 <= size <= len(unlabeled):
            raise ValueError(
                f"Cannot query {size} of {len(unlabeled)} unlabeled examples. "
                f"Lower `query_size`, or pass a larger `train_dataset`.{self._all_given()}"
            )
        pending = self._state.pending
        asked = None if pending is None else (pending.round, pending.asked, len(pending.rows))
        if pending is None or asked != (self._state.round, size, size) or None in pending.scores:
            with self.alone_in_folder():
                self._fire("on_query_begin", pool=self.pool)
                pending = self._acquire(unlabeled, size)
                self._remember(pending)
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
            self._tell(_plain(indices), list(labels), given=True)

    def resume(self, folder: bool | str = True) -> None:
        """Go back to the state in ``output_dir/active_state.json``: labels, history, pending query and weights.

        The data may have new classes behind those that the run had, where a `model_init` makes the output head anew.

        Raises:
            ValueError: there is no state, it is damaged, it belongs to other data or arguments, or another process is
                at work in the folder.
        """
        with self.alone_in_folder():
            self._resume(folder)

    def _resume(self, folder: bool | str) -> None:
        path = self._run_folder / STATE_FILE
        if isinstance(folder, str) and Path(folder).resolve() != path.parent.resolve():
            raise ValueError(f"Cannot resume from {folder}: set `output_dir` to it, it is {path.parent} now.")
        defaults = fingerprint_defaults(self.args, self.acquisition)
        state = ActiveState.load(path, self._fingerprint(), defaults, self.set_aside)
        self._check_labels(path, state.pool)
        self._check_label_file(state)
        if state.has_new_classes:
            self._go_on_with_new_classes(state)
        elif not self._files.resume(state):
            self._train_again(state)
        self._state, self._owns_state_file = state, True
        self._from_main_process(self._write_query_file)  # a kill may have come between it and the state
        logger.info(f"Resumed {path}: round {state.round}, {state.pool.num_labeled} labels, next: {state.phase}.")

    def _go_on_with_new_classes(self, state: ActiveState) -> None:
        """Train the last round of `state` again where a query needs its model: the stored one has fewer outputs."""
        if self.model_init is None or self.args.warm_start:
            raise ValueError(
                f"{self._run_folder} holds a run of fewer classes, and new ones need a new output head in each round. "
                "Pass a `model_init`, without `warm_start`; or start afresh."
            )
        logger.info(f"The run goes on with {len(self.reader.names or ())} classes: {listed(self.reader.names or ())}.")
        self._files.resumed_round = None
        if state.phase == "query" and state.history:
            self._train_again(state)

    def _train_again(self, state: ActiveState) -> None:
        """Make the weights of the last round of `state` anew, from the labels that it had."""
        before, *history, last = self._state, *state.history
        self._state = ActiveState(
            Pool(state.pool.size, state.pool.annotations[: last.num_labeled], self.set_aside), history
        )
        try:
            self._train_round(last.round)
        finally:
            self._state = before
        self._files.resumed_round = state.round

    # ---- steps -----------------------------------------------------------------------------------------------------

    def _try_out(self) -> None:
        """Try on a few rows what rounds do, for what would fail later to be refused before a first one is trained."""
        if self.history or self._shards:
            return
        with untouched_random_state():
            if self.args.num_rounds > 1 and "query" not in self._tried:
                rows = list(range(min(2, len(self.data))))
                try_query(self, self.acquisition, self._observer(rows, quiet=True), self._candidates(rows, quiet=True))
                self._tried.add("query")
            examples = self._some_labeled()
            if examples is not None and "training" not in self._tried:
                refuse_too_few(self.args, self.pool.num_labeled or self.args.initial_size)
                try_training(self, examples)
                self._tried.add("training")
            if "evaluation" not in self._tried:
                try_evaluation(self)
                self._tried.add("evaluation")

    def _some_labeled(self) -> Dataset | None:
        """Return two rows with labels, those of the pool or held out; None where nobody told any so far."""
        known = self.pool.annotations[:2]
        if not known and isinstance(self.annotator, HeldOutLabels):
            told = [(row, label) for row, label in self.annotator.labels.items() if 0 <= row < len(self.data)][:2]
            rows, labels = [row for row, _ in told], [label for _, label in told]
            restored = self.data.restore(self.reader, rows, labels)
            known = [Annotation(row, label, 0) for row, label in zip(rows, restored, strict=True)]
        known = known[: self.args.per_device_train_batch_size]
        return self.data.labeled_split(Pool(len(self.data), known)) if known else None

    def _tell_few_rows(self) -> None:
        """Warn, once, of evaluation sets whose metrics say little."""
        sets: Any = self.eval_dataset if isinstance(self.eval_dataset, Mapping) else {"": self.eval_dataset}
        counts = {str(name): len(rows) for name, rows in sets.items() if hasattr(rows, "__len__")}
        said = few_rows(counts, crossed=self.args.eval_folds is not None)
        if said is not None and not self._has_told_few_rows and self.is_world_process_zero():
            logger.warning(said)
        self._has_told_few_rows = True

    def _start_afresh(self) -> None:
        fresh = self._state.afresh()
        self._check_budget(fresh)  # before anything of an earlier run goes
        self._check_label_file(fresh)
        if self.history or fresh.pool.num_labeled < self.pool.num_labeled:
            self._owns_state_file = self._wrote_set_aside = False
        self._from_main_process(self._claim_folder)  # before anything is removed
        self._state = fresh
        self._files.clear()

    @contextmanager
    def alone_in_folder(self) -> Iterator[None]:
        """Keep every other process from working in the run's folder while the body runs.

        Raises:
            ValueError: another process works there, or nothing can be written there.
        """
        if not self._holds:
            self._from_main_process(lambda: self._lock.acquire(self._run_folder))
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if not self._holds:
                self._lock.release()

    @contextmanager
    def _all_or_none(self) -> Iterator[ActiveState]:
        """Let the body change the state, then write it; where either fails, memory is what the disk is."""
        state, before, fingerprint = self._state, self._state.mark(), self._fingerprint()
        self._from_main_process(self._claim_folder)
        if not self._wrote_set_aside:
            self._from_main_process(lambda: write_set_aside(self._run_folder, self.set_aside))
            self._wrote_set_aside = True
        try:
            yield state
            self._files.save_initial()
            self._from_main_process(lambda: state.save(self._run_folder / STATE_FILE, fingerprint))
            self.accelerator.wait_for_everyone()
        except BaseException:
            if not state.is_saved(self._run_folder / STATE_FILE, fingerprint):
                state.go_back(before)
            raise

    def _from_main_process(self, work: Callable[[], T]) -> T:
        """Return what `work` returns on the main process, on every one; where it fails, fail on all of them."""
        answer: list[Any] = [None, None]
        if self.is_world_process_zero():
            try:
                answer[0] = work()
            except Exception as error:
                if self.args.world_size == 1:
                    raise
                answer[1] = ValueError(str(error)) if isinstance(error, ValueError) else RuntimeError(repr(error))
        result, refusal = broadcast_object_list(answer)
        if refusal is not None:  # on every process, for none to wait for the others
            raise refusal
        return cast(T, result)

    def _claim_folder(self) -> None:
        """Keep what people did for an earlier run in the same folder: its labels, and query files they filled in."""
        if self._owns_state_file:
            return
        label_file = self.annotator.path if isinstance(self.annotator, LabelFile) else None
        kept = keep_earlier_run(self._run_folder, label_file)
        if kept is not None:
            logger.warning(
                f"{self._run_folder} held an earlier run: its labels, queries and curve are kept in {kept}. To answer "
                f"with its labels, name {kept / QUERIES_FOLDER} as the label file (`--label_file`, `LabelFile`)."
            )
        self._owns_state_file = True

    def _check_budget(self, state: ActiveState) -> None:
        args, pool = self.args, state.pool
        queries = args.num_rounds - 1 - state.round + (state.phase != "fine_tune" and state.round > 0)
        initial = 0 if pool.num_labeled else args.initial_size
        needed = pool.num_labeled + initial + max(queries, 0) * args.query_size
        if args.eval_folds is not None:
            refuse_a_single_row(pool.num_labeled + initial)
        size = pool.size - len(pool.set_aside)
        if needed > size:
            aside = f" beside the {len(pool.set_aside)} set aside" if pool.set_aside else ""
            raise ValueError(
                f"{args.num_rounds} rounds need {needed} labels ({pool.num_labeled} there, {initial} initial, "
                f"{queries} queries of {args.query_size}), the pool has {size} rows{aside}. "
                f"Lower `num_rounds`, `query_size` or `initial_size`.{self._all_given()}"
            )
        if (initial or queries > 0) and self.annotator is None:
            raise ValueError(
                "`train` needs someone who answers its queries: pass an `annotator` (`--label_file`), or take the "
                "steps one by one with `query`, `annotate` and `fine_tune`."
            )

    def _all_given(self) -> str:
        """Say why nothing is left to label, where labels that are in the data are the cause."""
        if len(self._came_labeled) < len(self.data) - len(self.set_aside):
            return ""
        return (
            " Every row has a label in the data, and with an annotator (`--label_file`) these count as given: leave "
            "the annotator out to have them held out, or the label column to have them asked for."
        )

    def _choose_initial_set(self) -> None:
        rows = self.pool.unlabeled_rows
        held_out = self.annotator.labels if isinstance(self.annotator, HeldOutLabels) else None
        labels = None if held_out is None else [held_out[row] for row in rows]
        chosen = initial_set(rows, self.args.initial_size, self.args.initial_selection, labels, self._generator())
        self._remember(PendingQuery(self._state.round, chosen, [None] * len(chosen), 0.0, len(chosen)))

    def _remember(self, pending: PendingQuery) -> None:
        with self._all_or_none() as state:
            state.pending, state.acquisition_seconds = pending, pending.seconds
            self._from_main_process(self._write_query_file)  # who reads that something is asked finds what

    def _ask_annotator(self, rows: list[int]) -> list[object]:
        assert self.annotator is not None  # _check_budget
        annotator = self.annotator
        self._compare_label_file(self.pool)
        return list(self._from_main_process(lambda: annotator.annotate(rows)))

    def _check_label_file(self, state: ActiveState) -> None:
        """Raise ValueError where what people wrote so far cannot be read, or says otherwise than the run."""
        annotator, asked = self.annotator, state.pending.rows if state.pending is not None else []
        if isinstance(annotator, LabelFile):
            refuse_own_file(self._run_folder, annotator.path)
            self._compare_label_file(state.pool)
            self._from_main_process(lambda: annotator.check(asked))

    def _compare_label_file(self, pool: Pool) -> None:
        """Have what people wrote compared with the rows and the labels of the run, whenever it is read."""
        if not isinstance(self.annotator, LabelFile):
            return
        known = KnownRows(
            told={row: self.reader.spell(pool.label(row)) for row in pool.labeled_rows},
            read=lambda row, label: self._read([row], [label])[0],
            refuse_other_rows=lambda lines: refuse_other_rows(self._shown(), lines),
            size=pool.size,
            set_aside=pool.set_aside,
        )
        self.annotator.compare_with(known)

    def _tell(self, rows: list[int], labels: list[object], given: bool) -> None:
        pending = self._state.pending
        scores = dict(zip(pending.rows, pending.scores, strict=True)) if pending is not None else {}
        if len(rows) != len(labels):
            raise ValueError(f"Cannot label {len(rows)} rows with {len(labels)} labels: give one label per row.")
        held_out = isinstance(self.annotator, HeldOutLabels) and not given  # in the form of the data, not of people
        parsed = self.data.restore(self.reader, rows, labels) if held_out else self._read(rows, labels)
        blanks = sum(isinstance(label, str) and label != label.strip() for label in labels)
        if blanks:
            logger.info(f"{blanks} answers have blanks around them: these are taken off.")
        number = self._state.round
        new = [Annotation(r, y, number, scores.get(r), given) for r, y in zip(rows, parsed, strict=True)]
        if not self.pool.holds(new):
            self._check_form(new)
            self._files.resumed_round = None  # what a killed training left had not seen these labels
            with self._all_or_none() as state:
                state.pool.add(new)
                state.pending = None if pending is None else pending.without(rows)
        self._from_main_process(self._write_query_file)

    def _check_form(self, new: list[Annotation]) -> None:
        """Raise ValueError where the labels of `new` cannot be trained on beside those that are there."""
        try:
            self.data.as_column([annotation.label for annotation in (*self.pool.annotations, *new)])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            rows = ", ".join(str(annotation.row) for annotation in new[:5])
            raise ValueError(
                f"Cannot label rows {rows}: their labels do not go with those that are there ({error}). Give labels of "
                "one form to all rows."
            ) from error

    def _acquire(self, unlabeled: list[int], size: int) -> PendingQuery:
        started = time.perf_counter()
        generator = self._generator()
        rows = unlabeled
        if self.args.candidate_size is not None and self.args.candidate_size < len(unlabeled):
            drawn = torch.randperm(len(unlabeled), generator=generator)[: max(self.args.candidate_size, size)]
            rows = [unlabeled[i] for i in sorted(drawn.tolist())]
        self._prepare_to_look()
        with untouched_random_state(), explaining_lost_processes(self._run_folder / STATE_FILE):
            query = self.acquisition.select(self._candidates(rows), size, generator)
        chosen = [rows[i] for i in query.indices.tolist()]
        scores = query.scores[query.indices].tolist()
        chosen, scores = broadcast_object_list([chosen, scores])
        return PendingQuery(self._state.round, chosen, scores, time.perf_counter() - started, size)

    def _candidates(self, rows: list[int], quiet: bool = False) -> Candidates:
        observable = self.observable or default_observable(self.model)
        labeled = None
        if self.pool.num_labeled and not quiet:
            known = self.pool.labeled_rows
            labeled = Candidates(self.model, len(known), self._observer(known), observable)
        observer = self._observer(rows, quiet)
        return Candidates(self.model, len(rows), observer, observable, labeled, observer.shard, observer.observe_shard)

    def _observer(self, rows: list[int], quiet: bool = False) -> Observer:
        dataset = self.data.inputs.select(rows)
        if dataset.format["type"] != "custom":
            dataset = self._remove_unused_columns(dataset, description="query")
        return Observer(
            self.model,
            dataset,
            rows,
            self.data_collator,
            self._prepare_inputs,
            self.args.per_device_eval_batch_size,
            self.args.per_device_train_batch_size,
            self.accelerator,
            0 if quiet else self.args.dataloader_num_workers,
            quiet or bool(self.args.disable_tqdm),
            self.args.max_tokens_per_batch,
            [*LABEL_COLUMNS, *filter(None, [self.data.label_column])],
        )

    def _train_round(self, number: int, **kwargs: Any) -> tuple[TrainOutput, float]:
        """Train, or take from the disk what a killed run had trained already.

        Returns:
            The output, and the seconds spent on the round; by killed processes, until the checkpoint that is gone on
            from.
        """
        saved = self._files.finished_training(number, self.pool.num_labeled)
        if saved is not None:
            return saved
        started = time.perf_counter()
        checkpoint = self._files.begin(number, self.pool.num_labeled)
        started -= self._files.seconds_before(checkpoint)
        model_init = self.model_init
        self._round_started = started
        try:
            if self.args.warm_start and number > 0:
                self.model_init = None  # upstream would make a new model
            output = self._train_once(self._files.round_folder(number), checkpoint, **kwargs)
        finally:
            self.model_init = model_init
        seconds = time.perf_counter() - started
        self._files.save(number, output, seconds)
        return output, seconds

    def _train_once(self, folder: Path, checkpoint: str | None = None, **kwargs: Any) -> TrainOutput:
        """Train on the labeled split, with checkpoints in `folder`."""
        set_seed(self.args.seed)
        self._round_folder, self._batch_of_step = folder, (-1, 0)
        try:
            output = super().train(resume_from_checkpoint=checkpoint, **kwargs)
        finally:
            self._round_folder = None
        self._check_wrapping()
        return output

    def _cross_validate(self, **kwargs: Any) -> Scores:
        """Measure the labeled rows, where ``args.eval_folds`` asks for that; the round's training comes after it."""
        if self.args.eval_folds is None:
            return Scores()
        split = self._split

        def train(rows: Dataset, folder: Path) -> None:
            self._files.start_anew()
            self._split = (self.pool, self.pool.num_labeled, rows)
            try:
                self._train_once(folder, **kwargs)
            finally:
                self._split = split

        labels = [self.pool.label(row) for row in self.pool.labeled_rows]
        folder = self._files.folds_folder(len(self.history))
        return cross_validate(self, self.train_dataset, labels, folder, train, self._generator())

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Take one batch forward and back, changed by the augmentation where there is one."""
        if self.augmentation is not None:
            inputs = self.augmentation(inputs, self._batch_generator())
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        return loss

    def _batch_generator(self) -> torch.Generator:
        step, batch = self._batch_of_step
        batch = batch + 1 if step == self.state.global_step else 0
        self._batch_of_step = (self.state.global_step, batch)
        number = batch * self.args.world_size + self.args.process_index
        return batch_generator(self.args.seed, self._state.round, self.state.global_step, number)

    def _evaluate_round(self) -> Scores:
        if self.eval_dataset is None:
            return Scores()
        timing = ("_runtime", "_per_second", "_preparation_time")
        self._scores = scores = Scores()
        try:
            found = self.evaluate()
        finally:
            self._scores = None
        return scores.only(
            {
                name: float(value)
                for name, value in found.items()
                if name != "epoch" and not name.endswith(timing) and isinstance(value, int | float)
            }
        )

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate as upstream does; at the end of a round, keep on how many rows that was, and the intervals."""
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix=metric_key_prefix
        )
        if self._scores is not None:
            labels: Any = output.label_ids  # None where there are no metrics
            prediction = EvalPrediction(predictions=output.predictions, label_ids=labels)
            rows = output.num_samples or 0
            self._scores.add(metric_key_prefix, output.metrics or {}, rows, prediction, self.compute_metrics)
        return output

    def _log_round(self, record: RoundRecord) -> None:
        values = {
            "active/round": record.round,
            "active/num_labeled": record.num_labeled,
            "active/query_size": record.query_size,
            "active/train_seconds": record.train_seconds,
            "active/acquisition_seconds": record.acquisition_seconds,
            **{f"active/{name}": value for name, value in record.metrics.items()},
        }
        self._log_at(record.num_labeled, values)

    # ---- what follows from the state -------------------------------------------------------------------------------

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.args.seed * 2**20 + self._state.round)

    def _read(self, rows: list[int], answers: list[Any]) -> list[Label]:
        return self.data.read(self.reader, rows, answers)

    def _fingerprint(self) -> dict[str, object]:
        if self._data_fingerprints is None:
            aside = {"set_aside": rows_hash(self.set_aside)} if self.set_aside else {}
            self._data_fingerprints = {
                "pool": {**self.data.fingerprint(), **aside},
                "evaluation": _rows_of(self.eval_dataset),
            }
        data, evaluation = self._data_fingerprints.values()
        return run_fingerprint(
            data,
            self.args,
            self.model,
            self.acquisition,
            self.observable,
            self.augmentation,
            evaluation,
            self.reader.names,
        )

    def _check_labels(self, path: Path, pool: Pool) -> None:
        """Raise ValueError where labels of a state could not have been told."""
        if pool.size != len(self.data):
            raise damaged(path, f"it is about {pool.size} rows, and the pool has {len(self.data)}")
        told = [row for row in pool.labeled_rows if pool.label(row) != self.data.labels[row]]
        labels = [pool.label(row) for row in told]
        try:
            read = self.data.restore(self.reader, told, labels)
        except ValueError as error:
            raise damaged(path, error) from error
        for row, label, again in zip(told, labels, read, strict=True):
            if label != again and self.data.read_answer is None:  # a mask is packed otherwise by other releases
                raise damaged(path, f"row {row} has the label {label!r}, which nobody can have told")

    def _write_query_file(self) -> None:
        number = self._state.round
        known = [a for a in self.pool.annotations if a.round == number and a.row not in self._came_labeled]
        pending = self._state.pending
        rows = [annotation.row for annotation in known] + (pending.rows if pending else [])
        scores = [annotation.score for annotation in known] + (list(pending.scores) if pending else [])
        labels = [self.reader.spell(annotation.label) for annotation in known]
        labels += [None] * (len(pending.rows) if pending else 0)
        if not rows:
            return
        path = self._run_folder / QUERIES_FOLDER / f"round-{number:02d}.jsonl"
        write_query_file(path, self._shown(), rows, scores, labels, self.reader.names)

    def _shown(self) -> Dataset:
        """Return what people are shown of the pool: every column that is no input of the model, and all texts."""
        self._set_signature_columns_if_needed()
        inputs = {*self._signature_columns, *getattr(self.processing_class, "model_input_names", ())}
        inputs |= {NUM_WORDS} if WORD_STARTS in inputs else set()
        shown = self.data.inputs
        hidden = [name for name, kind in shown.features.items() if name in inputs and not is_text(kind)]
        return shown.remove_columns(hidden)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write ``README.md``: task, data, budget, acquisition, learning curve, how to reproduce."""
        if self.is_world_process_zero():
            card = inspect.signature(Trainer.create_model_card).bind(self, *args, **kwargs).arguments
            del card["self"]
            path = Path(str(self.args.output_dir)) / "README.md"
            write_model_card(path, self.model, self.args, self.acquisition, self.pool.size, self.history, **card)


def _rows_of(dataset: object) -> dict[str, object]:
    """Return what identifies the rows of a data set, or of each of several."""
    if isinstance(dataset, Mapping):
        return {str(name): _rows_of(rows) for name, rows in dataset.items()}
    if isinstance(dataset, Dataset):
        return {"rows": len(dataset), "content": content_hash(dataset)}
    return {}  # its rows cannot be looked at without going through them


def _query(pending: PendingQuery) -> Query:
    return Query(torch.tensor(pending.rows), torch.tensor(pending.scores))


def _plain(indices: Sequence[int] | torch.Tensor) -> list[int]:
    listed = indices.tolist() if hasattr(indices, "tolist") else indices
    if not isinstance(listed, Iterable) or isinstance(listed, str):
        raise ValueError(f"Rows must be a list of whole numbers, got {listed!r}.")
    rows = list(listed)
    for row in rows:
        if isinstance(row, bool) or not hasattr(row, "__index__"):
            raise ValueError(f"Rows must be whole numbers, got {row!r}.")
    return [operator.index(row) for row in rows]
