"""What a task is: the model class, the columns it reads, how rows become inputs, how predictions are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback

from ..augmentation import Augmentation
from ..files.shown_text import listed
from ..loading.data import LABELS
from ..observables.base import Observable
from ..pool.columns import column_beside
from ..pool.places import Place, Source
from ..pool.pool import Label
from ..refusals import Refusal
from ..settings.arguments import DataArguments, ModelArguments
from .columns import find_label_column
from .label_kinds import LabelKind
from .metrics import load_metrics
from .targets import Targets, by_place

Collator: TypeAlias = Callable[[list[dict[str, Any]]], dict[str, Any]]


ONE_CLASS_EACH = {
    "badge": "its gradient embedding is that of one class for each example",
    "bald": "it compares one prediction of each example under dropout",
}
"""Acquisitions that cannot work where an example has an answer for each of its parts -> why."""
CLASSES_ALONE = dict.fromkeys(
    ("entropy", "margin", "least_confidence", *ONE_CLASS_EACH), "it compares the probabilities of classes"
)
"""Acquisitions that cannot work where numbers are predicted -> why."""


@dataclass(frozen=True)
class Prepared:
    """Data ready for the trainer: the inputs of the model, the column ``labels``, and the raw columns beside them."""

    pool: Dataset
    evaluation: dict[str, Dataset]
    targets: Targets
    set_aside: tuple[int, ...] = ()
    """Rows of the pool that are used for measuring alone."""

    @property
    def eval_dataset(self) -> Dataset | dict[str, Dataset] | None:
        """Return what `Trainer` takes as ``eval_dataset``: a single set by itself, several by name, or none."""
        if not self.evaluation:
            return None
        return self.evaluation[""] if list(self.evaluation) == [""] else self.evaluation


def refuse_augmentation(arguments: DataArguments, prepared: Prepared) -> None:
    """Return no augmentation; raise ValueError where one is asked for: the task has none."""
    if arguments.augmentation:
        raise Refusal(
            f"`augmentation: {arguments.augmentation}` is for images to classify: `task: {arguments.task}` has none. "
            "Leave it out."
        )


@dataclass(frozen=True)
class Task:
    """One kind of problem, as data. `hf_noise_al.tasks.TASKS` has them by name."""

    name: str
    load_processor: Callable[[ModelArguments, DataArguments, Dataset], Any]
    """(model arguments, data arguments, pool) -> what prepares inputs, saved with the model: a tokenizer, say."""
    auto_model: Any
    """What makes the model with its output head: has ``from_pretrained`` and ``from_config``, as AutoModel... have."""
    observable: Observable
    """What acquisitions look at."""
    labels: LabelKind
    """How labels are read."""
    find_columns: Callable[[Dataset, DataArguments, str], tuple[str, ...]]
    """(data, arguments, label column) -> the columns that are the input."""
    check: Callable[[Dataset, Sequence[str], str], None]
    """(data, columns, place) -> nothing; refuses rows that cannot be read."""
    encode: Callable[[Dataset, Sequence[str], Any, DataArguments], Dataset]
    """(data, columns, processor, arguments) -> the data with the model's inputs added."""
    collator: Callable[[Any], Collator]
    """(processor) -> what makes a batch of rows."""
    default_metrics: Mapping[str, tuple[str, ...]]
    """Problem type -> names of its metrics."""
    label_columns: tuple[str, ...] = LABELS
    """Names of the label column where none is asked for, the first that is there."""
    columns_of_model: Callable[[Any, Dataset, DataArguments, str], tuple[str, ...] | None] = lambda *_: None
    """(processor, data, arguments, label column) -> the columns that a trained model reads; None where any will do."""
    check_labels: Callable[[Dataset, Sequence[str], str], None] = lambda data, columns, place: None
    """(data with its column ``labels``, columns, place) -> nothing; refuses labels that do not fit their rows."""
    load_metrics: Callable[..., Any] = load_metrics
    """(names, targets) -> `Trainer`'s ``compute_metrics``, with a method ``names()`` for the names of its numbers.

    Where it can load code of others it takes ``trusted`` too: whether that may be run.
    """
    fit: Callable[[Any, Dataset, Sequence[str], DataArguments], None] = lambda processor, pool, columns, arguments: None
    """(processor, pool, columns, arguments) -> nothing; lets a processor learn from the pool's inputs."""
    model_fields: Callable[[Any], Mapping[str, Any]] = lambda processor: {}
    """(processor) -> fields of the model's configuration, beside those of the output head."""
    preprocess_logits: Callable[[Any, Any], Any] | None = None
    """`Trainer`'s ``preprocess_logits_for_metrics``."""
    augmentation: Callable[[DataArguments, Prepared], Augmentation | None] = refuse_augmentation
    """(arguments, prepared data) -> what changes the batches of training, and nothing else; None changes nothing."""
    callbacks: Callable[[], Sequence[TrainerCallback]] = tuple
    """() -> callbacks of the trainer."""
    hub_name: str = ""
    """What the Hub calls the task, where that is not its name with dashes."""
    compute_loss: Callable[..., Any] | None = None
    """`Trainer`'s ``compute_loss_func``, in the place of the model's own loss."""
    read_answers: Callable[[Prepared, str | None], Callable[[int, object], Label]] | None = None
    """(prepared data, label file) -> `ActiveTrainer`'s ``read_answer``, where answers are no classes and numbers."""
    refused_acquisitions: Mapping[str, str] = field(default_factory=dict)
    """Acquisitions that cannot work on the task -> why."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Training arguments that the task cannot do without, such as ``{"batch_eval_metrics": True}``."""

    def prepare(
        self,
        pool: Dataset,
        evaluation: Dataset | Mapping[str, Dataset],
        processor: Any,
        arguments: DataArguments,
        label_column: str | None = None,
        source: Source | None = None,
        arrange: Callable[[Targets], Targets] = lambda targets: targets,
    ) -> Prepared:
        """Return `pool` and `evaluation` with model inputs and the column ``labels``; each row is encoded once.

        Rows of the pool without label keep None; everything that cannot be used is refused here, before any training.

        Args:
            pool: The rows to choose from.
            evaluation: The rows to measure with.
            processor: What prepares inputs.
            arguments: Columns, lengths and sizes.
            label_column: The column of the labels; None finds it.
            source: Where the rows of the pool stand, for messages.
            arrange: Changes the order of the classes, or adds some.
        """
        sets = {"": evaluation} if isinstance(evaluation, Dataset) else dict(evaluation)
        column = find_label_column(pool, label_column, self.label_columns)
        inputs = self._inputs(pool, processor, arguments, column)
        places = by_place(pool, sets, source)
        for place, part in places.items():
            _require_same_columns(part, (*inputs, column), place)
            self.check(part, inputs, place)
        targets = arrange(self.labels.read(pool, sets, column, arguments))
        self.fit(processor, pool.select_columns(list(inputs)), inputs, arguments)

        def finish(part: Dataset, place: str, complete: bool) -> Dataset:
            return self._finish(part, column, targets, inputs, processor, arguments, place, complete)

        first, *others = places
        return Prepared(
            finish(pool, first, complete=False),
            {name: finish(sets[name], place, complete=True) for name, place in zip(sets, others, strict=True)},
            targets,
        )

    def prepare_query(
        self,
        pool: Dataset,
        processor: Any,
        arguments: DataArguments,
        config: Any,
        label_column: str | None = None,
        source: Source | None = None,
        arrange: Callable[[Targets], Targets] = lambda targets: targets,
    ) -> Prepared:
        """Return `pool` for one query by a trained model: labels may be there, the classes are those of its `config`.

        Nothing is measured, so there is no evaluation set and a pool without any label column will do.
        """
        if label_column is None and not set(self.label_columns) & set(pool.column_names):
            pool = pool.add_column("labels", [None] * len(pool))
        column = find_label_column(pool, label_column, self.label_columns)
        inputs = self._inputs(pool, processor, arguments, column)
        place = Place("the pool", source)
        self.check(pool, inputs, place)
        targets = arrange(self.labels.trained(pool, column, config, arguments))
        return Prepared(self._finish(pool, column, targets, inputs, processor, arguments, place), {}, targets)

    def _inputs(self, pool: Dataset, processor: Any, arguments: DataArguments, column: str) -> tuple[str, ...]:
        trained = self.columns_of_model(processor, pool, arguments, column)
        return self.find_columns(pool, arguments, column) if trained is None else trained

    def _finish(
        self,
        part: Dataset,
        column: str,
        targets: Targets,
        inputs: Sequence[str],
        processor: Any,
        arguments: DataArguments,
        place: str,
        complete: bool = False,
    ) -> Dataset:
        labeled = self.labels.apply(part, column, targets, place, complete)
        # An input called as labels are was renamed beside them.
        own = ("labels", "label")
        inputs = [column_beside(name, part.column_names) if name in own and name != column else name for name in inputs]
        self.check_labels(labeled, inputs, place)
        try:
            return self.encode(labeled, inputs, processor, arguments)
        except ValueError as error:
            raise Refusal(f"In {place}: {error}") from error


def stack_column(name: str) -> Collator:
    """Return what stacks the arrays of column `name` to a batch, with the rows' labels where they have some."""

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = {name: torch.from_numpy(np.stack([np.asarray(row[name]) for row in rows]))}
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch

    return collate


def _require_same_columns(part: Dataset, columns: Sequence[str], place: str) -> None:
    if not len(part):
        raise Refusal(f"No rows in {place}. Name another split.")
    for name in columns:
        if name not in part.column_names:
            raise Refusal(
                f"The column `{name}` is missing in {place}, which has: {listed(part.column_names)}. "
                "Give all splits the same columns."
            )
