"""What a task is: the model class, the columns it reads, how rows become inputs, how predictions are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from datasets import Dataset

from ..arguments import DataArguments
from ..observables import Observable
from .columns import find_label_column
from .targets import REGRESSION, Targets, read_classes, trained_classes, with_targets

Collator: TypeAlias = Callable[[list[dict[str, Any]]], dict[str, Any]]


@dataclass(frozen=True)
class Prepared:
    """Data ready for the trainer: the inputs of the model, the column ``labels``, and the raw columns beside them."""

    pool: Dataset
    evaluation: dict[str, Dataset]
    targets: Targets

    @property
    def eval_dataset(self) -> Dataset | dict[str, Dataset] | None:
        """Return what `Trainer` takes as ``eval_dataset``: a single set by itself, several by name, or none."""
        if not self.evaluation:
            return None
        return self.evaluation[""] if list(self.evaluation) == [""] else self.evaluation


@dataclass(frozen=True)
class Task:
    """One kind of problem, as data. `hf_noise_al.tasks.TASKS` has them by name."""

    name: str
    processor_kind: str
    """``text`` (a tokenizer) or ``image`` (an image processor)."""
    auto_model: Any
    """The transformers class that makes the model with its output head, such as AutoModelForImageClassification."""
    observable: Observable
    """What acquisitions look at."""
    regression: bool
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

    def prepare(
        self,
        pool: Dataset,
        evaluation: Dataset | Mapping[str, Dataset],
        processor: Any,
        arguments: DataArguments,
        label_column: str | None = None,
    ) -> Prepared:
        """Return `pool` and `evaluation` with model inputs and the column ``labels``; each row is encoded once.

        Rows of the pool without label keep None; everything that cannot be used is refused here, before any training.
        """
        sets = {"": evaluation} if isinstance(evaluation, Dataset) else dict(evaluation)
        column = find_label_column(pool, label_column)
        inputs = self.find_columns(pool, arguments, column)
        places = {"the pool": pool, **{f"the evaluation set {name}".rstrip(): part for name, part in sets.items()}}
        for place, part in places.items():
            _require_same_columns(part, (*inputs, column), place)
            self.check(part, inputs, place)
        targets = Targets(REGRESSION) if self.regression else read_classes(pool, sets, column, arguments.class_names)

        def finish(part: Dataset, place: str, complete: bool) -> Dataset:
            labeled = with_targets(part, column, targets, place, complete)
            return self.encode(labeled, inputs, processor, arguments)

        return Prepared(
            finish(pool, "the pool", complete=False),
            {name: finish(part, f"the evaluation set {name}".rstrip(), complete=True) for name, part in sets.items()},
            targets,
        )

    def prepare_query(
        self,
        pool: Dataset,
        processor: Any,
        arguments: DataArguments,
        config: Any,
        label_column: str | None = None,
    ) -> Prepared:
        """Return `pool` for one query by a trained model: labels may be there, the classes are those of its `config`.

        Nothing is measured, so there is no evaluation set and a pool without any label column will do.
        """
        if label_column is None and not {"labels", "label"} & set(pool.column_names):
            pool = pool.add_column("labels", [None] * len(pool))
        column = find_label_column(pool, label_column)
        inputs = self.find_columns(pool, arguments, column)
        self.check(pool, inputs, "the pool")
        targets = (
            Targets(REGRESSION) if self.regression else trained_classes(pool, column, config, arguments.class_names)
        )
        labeled = with_targets(pool, column, targets, "the pool", complete=False)
        return Prepared(self.encode(labeled, inputs, processor, arguments), {}, targets)


def _require_same_columns(part: Dataset, columns: Sequence[str], place: str) -> None:
    if not len(part):
        raise ValueError(f"No rows in {place}. Name another split.")
    for name in columns:
        if name not in part.column_names:
            raise ValueError(
                f"The column `{name}` is missing in {place}, which has: {', '.join(part.column_names)}. "
                "Give all splits the same columns."
            )
