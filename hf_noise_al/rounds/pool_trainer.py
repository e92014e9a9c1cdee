"""A trainer over a pool: what `transformers.Trainer` asks for along the way, answered from the pool."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from ..acquisition import Acquisition
from ..annotators import Annotator, LabelFile
from ..augmentation import Augmentation
from ..files.run_names import CARD_FILE
from ..measuring.evaluation_sets import name_labels
from ..observables.base import Observable
from ..pool.pool import Label, Pool
from ..pool.pool_dataset import PoolDataset
from ..pool.problem_type import predicts_classes
from ..processes.generators import round_generator
from ..run_folder.fingerprint import DataFingerprint, run_fingerprint
from ..run_folder.history import RoundRecord
from ..run_folder.model_card import write_model_card
from ..run_folder.stored_run import StoredRun
from ..upstream.trainer import UpstreamTrainer
from .answers import labels_of_data
from .checks import check_acquisition
from .looking import Looking
from .training import RoundTraining
from .trial_run import TrialRun


class PoolTrainer(UpstreamTrainer):
    """A `Trainer` that trains on the labeled split of a pool, and keeps a run of rounds; see `ActiveTrainer`."""

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
        column, by_class = self.args.label_column, predicts_classes(self.model)
        self.data = PoolDataset(self.train_dataset, column, read_answer, by_class, id_column)
        self.reader = self.data.reader_for(self.model)
        self.eval_dataset = name_labels(self.eval_dataset, self.data)
        self.acquisition = acquisition or self.args.make_acquisition()
        self.observable, self.augmentation = observable, augmentation
        check_acquisition(self, self.acquisition, observable, len(self.data))
        self.set_aside = frozenset(self.data.checked_rows("set_aside", set_aside))
        given, self.annotator = labels_of_data(self.data, self.reader, self.set_aside, annotator)
        self._data_fingerprint = DataFingerprint(self.data, self.set_aside)
        pool = Pool(len(self.data), given, self.set_aside)
        self._run = StoredRun(self, self.data, self.reader, pool, self._fingerprint, self._label_file)
        self._looking = Looking(self._run, lambda: self.observable)
        self._training = RoundTraining(self._run, super().train)
        self._trial_run = TrialRun(self._run, self._looking)
        self._has_told_few_rows = False

    @property
    def train_dataset(self) -> Dataset:
        """The labeled split of the pool, made when it is asked for; in a fold, what is trained on there."""
        if hasattr(self, "_training"):
            if self._training.fold is not None:
                return self._training.fold
            if self._split[:2] != (self.pool, self.pool.num_labeled):
                self._split = (self.pool, self.pool.num_labeled, self.data.labeled_split(self.pool))
        return self._split[2]

    @train_dataset.setter
    def train_dataset(self, dataset: Any) -> None:
        self._split = (None, 0, dataset)

    @property
    def pool(self) -> Pool:
        """Which rows are labeled, with what label, since which round."""
        return self._run.pool

    @property
    def history(self) -> list[RoundRecord]:
        """One record per round that was trained."""
        return self._run.state.history

    def alone_in_folder(self) -> AbstractContextManager[None]:
        """Keep every other process from working in the run's folder while the body runs.

        Raises:
            ValueError: another process works there, or nothing can be written there.
        """
        return self._run.alone_in_folder()

    # ---- steps of `Trainer` ----------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Take one batch forward and back, changed by the augmentation where there is one."""
        if self.augmentation is not None:
            inputs = self.augmentation(inputs, self._training.next_batch_generator())
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        return loss

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """Evaluate as upstream does; at the end of a round, keep on how many rows that was, and the intervals."""
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        self._training.keep_scores(output, metric_key_prefix)
        return output

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return the batches of an evaluation set, its labels named as those of the pool are."""
        return super().get_eval_dataloader(name_labels(eval_dataset, self.data))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """Return the batches of a set to predict, its labels named as those of the pool are."""
        return super().get_test_dataloader(name_labels(test_dataset, self.data))

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write ``README.md``: task, data, budget, acquisition, learning curve, how to reproduce."""
        if self.is_world_process_zero():
            card = inspect.signature(Trainer.create_model_card).bind(self, *args, **kwargs).arguments
            del card["self"]
            path = Path(str(self.args.output_dir)) / CARD_FILE
            write_model_card(path, self.model, self.args, self.acquisition, self.pool.size, self.history, **card)

    # ---- what the parts of a round ask for ---------------------------------------------------------------------------

    def _generator(self) -> torch.Generator:
        return round_generator(self.args.seed, len(self.history))

    def _label_file(self) -> Path | None:
        return self.annotator.path if isinstance(self.annotator, LabelFile) else None

    def _fingerprint(self) -> dict[str, object]:
        data, evaluation = self._data_fingerprint.of(self.eval_dataset)
        settings = (self.acquisition, self.observable, self.augmentation)
        return run_fingerprint(data, self.args, self.model, *settings, evaluation, self.reader.names)
