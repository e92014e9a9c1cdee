"""A run in memory and on the disk as one: changed all or not at all, by one process at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from datasets import Dataset
from transformers.utils.logging import get_logger

from ..exchange.query_file import write_query_file
from ..files.run_names import QUERIES_FOLDER, STATE_FILE
from ..observables.base import WORD_STARTS
from ..pool.columns import NUM_WORDS, is_text
from ..pool.label_reader import LabelReader
from ..pool.pool import Pool
from ..pool.pool_dataset import PoolDataset
from ..upstream.trainer import UpstreamTrainer
from .earlier_run import keep_earlier_run
from .pending_query import PendingQuery
from .round_files import RoundFiles
from .run_lock import RunLock
from .set_aside import write_set_aside
from .state import ActiveState
from .state_file import damaged

logger = get_logger(__name__)


class StoredRun:
    """The labels, rounds and pending query of a run, with the folder where they are kept.

    Every method is called on all processes; one of them writes.

    Args:
        trainer: Whose run it is.
        data: The pool's data set.
        reader: Reads and spells labels.
        pool: Which rows came labeled, and which are set aside.
        fingerprint: Returns what must be the same for the run to go on, see `run_folder.fingerprint`.
        label_file: Returns the file that people label in, None where there is none.
    """

    def __init__(
        self,
        trainer: UpstreamTrainer,
        data: PoolDataset,
        reader: LabelReader,
        pool: Pool,
        fingerprint: Callable[[], dict[str, object]],
        label_file: Callable[[], Path | None],
    ) -> None:
        self.trainer, self.data, self.reader = trainer, data, reader
        self.fingerprint, self.label_file = fingerprint, label_file
        self.state = ActiveState(pool)
        self.came_labeled = frozenset(pool.labeled_rows)
        """Rows whose labels came with the data."""
        self.weights = RoundFiles(trainer)
        self._lock, self._holds = RunLock(), 0
        self._is_own = self._wrote_set_aside = False

    @property
    def pool(self) -> Pool:
        """Which rows are labeled, with what label, since which round."""
        return self.state.pool

    @property
    def folder(self) -> Path:
        """Where the run is kept: the `output_dir`, or the folder of a trial in it."""
        return self.trainer._run_folder

    @property
    def path(self) -> Path:
        """The state file."""
        return self.folder / STATE_FILE

    @contextmanager
    def alone_in_folder(self) -> Iterator[None]:
        """Keep every other process from working in the run's folder while the body runs.

        Raises:
            ValueError: another process works there, or nothing can be written there.
        """
        if not self._holds:
            self.trainer.from_main_process(lambda: self._lock.acquire(self.folder))
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if not self._holds:
                self._lock.release()

    @contextmanager
    def change(self) -> Iterator[ActiveState]:
        """Let the body change the state, then write it; where either fails, memory is what the disk is."""
        state, before, fingerprint = self.state, self.state.mark(), self.fingerprint()
        self.trainer.from_main_process(self._claim_folder)
        if not self._wrote_set_aside:
            self.trainer.from_main_process(lambda: write_set_aside(self.folder, self.pool.set_aside))
            self._wrote_set_aside = True
        try:
            yield state
            self.weights.save_initial()
            self.trainer.from_main_process(lambda: state.save(self.path, fingerprint))
            self.trainer.accelerator.wait_for_everyone()
        except BaseException:
            if not state.is_saved(self.path, fingerprint):
                state.go_back(before)
            raise

    def remember(self, pending: PendingQuery) -> None:
        """Keep what is asked for, in the state and in a query file."""
        with self.change() as state:
            state.pending, state.acquisition_seconds = pending, pending.seconds
            self.write_query_file()  # who reads that something is asked finds what

    def start_afresh(self, fresh: ActiveState) -> None:
        """Begin again with `fresh`; what people did for an earlier run in the folder is kept in one place."""
        if self.state.history or fresh.pool.num_labeled < self.pool.num_labeled:
            self._is_own = self._wrote_set_aside = False
        self.trainer.from_main_process(self._claim_folder)  # before anything is removed
        self.state = fresh
        self.weights.clear()

    def load(self, defaults: Mapping[str, object]) -> ActiveState:
        """Return the state in the folder, its labels checked; nothing is changed.

        Args:
            defaults: What stands for an entry of the fingerprint that an earlier release did not write.

        Raises:
            ValueError: there is none, it is damaged, or it belongs to another run; it says what differs.
        """
        state = ActiveState.load(self.path, self.fingerprint(), defaults, self.pool.set_aside)
        self._check_labels(state.pool)
        return state

    def go_on_with(self, state: ActiveState) -> None:
        """Take a state that `load` returned for the run's."""
        self.state, self._is_own = state, True
        self.write_query_file()  # a kill may have come between it and the state
        logger.info(f"Resumed {self.path}: round {state.round}, {state.pool.num_labeled} labels, next: {state.phase}.")

    def write_query_file(self) -> None:
        """Write what is asked for, and what was answered of it, for people to read and to label."""
        self.trainer.from_main_process(self._write_query_file)

    def shown(self) -> Dataset:
        """Return what people are shown of the pool: every column that is no input of the model, and all texts."""
        self.trainer._set_signature_columns_if_needed()
        inputs = {*self.trainer._signature_columns}
        inputs |= {*getattr(self.trainer.processing_class, "model_input_names", ())}
        inputs |= {NUM_WORDS} if WORD_STARTS in inputs else set()
        shown = self.data.inputs
        hidden = [name for name, kind in shown.features.items() if name in inputs and not is_text(kind)]
        return shown.remove_columns(hidden)

    def _write_query_file(self) -> None:
        number, pending = self.state.round, self.state.pending
        known = [a for a in self.pool.annotations if a.round == number and a.row not in self.came_labeled]
        rows = [annotation.row for annotation in known] + (pending.rows if pending else [])
        scores = [annotation.score for annotation in known] + (list(pending.scores) if pending else [])
        labels = [self.reader.spell(annotation.label) for annotation in known]
        labels += [None] * (len(pending.rows) if pending else 0)
        if rows:
            path = self.folder / QUERIES_FOLDER / f"round-{number:02d}.jsonl"
            write_query_file(path, self.shown(), rows, scores, labels, self.reader.names)

    def _claim_folder(self) -> None:
        """Keep what people did for an earlier run in the same folder: its labels, and query files they filled in."""
        if self._is_own:
            return
        kept = keep_earlier_run(self.folder, self.label_file())
        if kept is not None:
            logger.warning(
                f"{self.folder} held an earlier run: its labels, queries and curve are kept in {kept}. To answer "
                f"with its labels, name {kept / QUERIES_FOLDER} as the label file (`--label_file`, `LabelFile`)."
            )
        self._is_own = True

    def _check_labels(self, pool: Pool) -> None:
        """Raise ValueError where labels of a state could not have been told."""
        if pool.size != len(self.data):
            raise damaged(self.path, f"it is about {pool.size} rows, and the pool has {len(self.data)}")
        told = [row for row in pool.labeled_rows if pool.label(row) != self.data.labels[row]]
        labels = [pool.label(row) for row in told]
        try:
            read = self.data.restore(self.reader, told, labels)
        except ValueError as error:
            raise damaged(self.path, error) from error
        for row, label, again in zip(told, labels, read, strict=True):
            if label != again and self.data.read_answer is None:  # a mask is packed otherwise by other releases
                raise damaged(self.path, f"row {row} has the label {label!r}, which nobody can have told")
