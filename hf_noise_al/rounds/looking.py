"""Looking at rows: an observer of them, the candidates of an acquisition, and its choice as rows of the data set."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from accelerate.utils import broadcast_object_list

from ..acquisition import Acquisition, Candidates
from ..acquisition.base import checked
from ..observables.base import Observable, default_observable
from ..observing.observer import Observer
from ..observing.unchanged import untouched_random_state
from ..pool.columns import LABEL_COLUMNS
from ..processes.lost_processes import explaining_lost_processes
from ..run_folder.pending_query import PendingQuery
from ..run_folder.stored_run import StoredRun


class Looking:
    """Shows the rows of a run to its model.

    Args:
        run: The run; its trainer knows model, collator and processes.
        observable: Returns what a query looks at; None takes the model's, see `default_observable`.
    """

    def __init__(self, run: StoredRun, observable: Callable[[], Observable | None]) -> None:
        self.run, self.trainer, self._observable = run, run.trainer, observable

    @property
    def observable(self) -> Observable:
        """What a query looks at."""
        return self._observable() or default_observable(self.trainer.model)

    def choose(
        self, acquisition: Acquisition, unlabeled: list[int], size: int, generator: torch.Generator
    ) -> PendingQuery:
        """Return what `acquisition` chooses to label next, of the `unlabeled` rows or of some drawn at random."""
        started = time.perf_counter()
        trainer, rows = self.trainer, unlabeled
        most = trainer.args.candidate_size
        if most is not None and most < len(rows):
            drawn = torch.randperm(len(rows), generator=generator)[: max(most, size)]
            rows = [rows[i] for i in sorted(drawn.tolist())]
        trainer._prepare_to_look()
        with untouched_random_state(), explaining_lost_processes(self.run.path):
            selected = acquisition.select(self.candidates(rows), size, generator)
            choice = checked(selected, acquisition, size, len(rows))
        chosen, scores = [rows[i] for i in choice.indices.tolist()], choice.scores[choice.indices].tolist()
        chosen, scores = broadcast_object_list([chosen, scores])
        return PendingQuery(self.run.state.round, chosen, scores, time.perf_counter() - started, size)

    def candidates(self, rows: list[int], quiet: bool = False) -> Candidates:
        """Return `rows` of the data set as an acquisition sees them, and beside them what is labeled.

        Where it is to be `quiet`, nothing is said, no bar is shown and nothing labeled stands beside them.
        """
        model, observable, labeled = self.trainer.model, self.observable, None
        if self.run.pool.num_labeled and not quiet:
            known = self.run.pool.labeled_rows
            labeled = Candidates(model, len(known), self.observer(known), observable)
        observer = self.observer(rows, quiet)
        return Candidates(model, len(rows), observer, observable, labeled, observer.shard, observer.observe_shard)

    def observer(self, rows: list[int], quiet: bool = False) -> Observer:
        """Return what passes `rows` of the data set through the model."""
        trainer, args, data = self.trainer, self.trainer.args, self.run.data
        dataset = data.inputs.select(rows)
        if dataset.format["type"] != "custom":
            dataset = trainer._remove_unused_columns(dataset, description="query")
        return Observer(
            trainer.model,
            dataset,
            rows,
            trainer.data_collator,
            trainer._prepare_inputs,
            args.per_device_eval_batch_size,
            args.per_device_train_batch_size,
            trainer.accelerator,
            0 if quiet else args.dataloader_num_workers,
            quiet or bool(args.disable_tqdm),
            args.max_tokens_per_batch,
            [*LABEL_COLUMNS, *filter(None, [data.label_column])],
        )
