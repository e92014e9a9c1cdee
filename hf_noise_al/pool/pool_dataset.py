"""The data set of the pool: inputs without labels, and the labeled split with the labels of the pool."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetInfo, Features, Value
from datasets.table import InMemoryTable

from ..files.shown_text import listed
from ..refusals import Refusal, retold
from .columns import ID_COLUMN, LABEL_COLUMNS, NUM_WORDS, column_beside, declared_classes, is_text, item_feature
from .hashes import content_hash
from .label_reader import LabelReader
from .label_values import is_missing
from .places import id_of
from .pool import Label, Pool
from .problem_type import MULTI_LABEL, REGRESSION, classes_of_config, problem_type_of


class PoolDataset:
    """The user's data set with its label column taken away; rows keep their numbers.

    Args:
        dataset: The whole pool.
        label_column: Its label column; None finds ``labels`` or ``label``, or none.
        read_answer: ``(row, answer) -> label``, what reads an annotator's answer where it is neither a class nor
            numbers. Labels that are in the data set are in that form already.
        are_classes: Whether labels are numbers of classes, so that -1 stands for a missing one.
        id_column: Column that names each row for people; None takes one called ``id``, or none.

    Raises:
        ValueError: not a map-style data set, empty, or without the label column that was named.
    """

    def __init__(
        self,
        dataset: Dataset,
        label_column: str | None = None,
        read_answer: Callable[[int, object], Label] | None = None,
        are_classes: bool = False,
        id_column: str | None = None,
    ) -> None:
        _require_rows_and_columns(dataset, label_column, id_column)
        self.read_answer = read_answer
        self.id_column = id_column or (ID_COLUMN if ID_COLUMN in dataset.column_names else None)
        found = [name for name in LABEL_COLUMNS if name in dataset.column_names]
        self.label_column = label_column or (found[0] if found else None)
        self.inputs = _without_labels(dataset, self.label_column, found)
        self.labels: list[Label | None] = [None] * len(dataset)
        kind = dataset.features[self.label_column] if self.label_column else None
        self.label_feature = None if kind == Value("null") else kind
        if self.label_column:
            values = dataset.select_columns([self.label_column]).with_format(None)[:][self.label_column]
            names = () if are_classes or self.class_names is not None else None  # class numbers are never below 0
            self.labels = [None if is_missing(value, names) else value for value in values]
        # The model expects "labels"; the collators of transformers rename these three.
        self.split_column = self.label_column if self.label_column in LABEL_COLUMNS else "labels"

    def __len__(self) -> int:
        return len(self.labels)

    def labeled_split(self, pool: Pool) -> Dataset:
        """Return the labeled rows, ascending, with their labels in a column that models understand."""
        rows = pool.labeled_rows
        column = self.as_column([pool.label(row) for row in rows])
        view = self.inputs.select(np.array(rows, dtype=np.int64))
        table = view.with_format("arrow")[:].append_column(self.split_column, column.data.column(0))
        features = Features({**view.features, **column.features})
        split = Dataset(InMemoryTable(table), info=DatasetInfo(features=features))
        style = self.inputs.format
        if style["type"] is None:
            return split
        columns = None if set(style["columns"]) == set(view.column_names) else [*style["columns"], self.split_column]
        return split.with_format(style["type"], columns=columns, **style["format_kwargs"])

    def as_column(self, labels: Sequence[Label]) -> Dataset:
        """Return labels as a column that models understand.

        Raises:
            pyarrow.ArrowInvalid, pyarrow.ArrowTypeError: they are not of one form.
        """
        column = Dataset.from_dict({self.split_column: labels})
        if self.label_feature is not None:
            kept = Features({self.split_column: self.label_feature})
            # Numbers on a scale and multi-label lists are floats whatever the column held: their losses need that.
            if not _is_float(column.features) or _is_float(kept):
                column = Dataset.from_dict({self.split_column: labels}, features=kept)
        return column

    def parse_labels(
        self,
        rows: Sequence[int],
        labels: Sequence[object],
        num_labels: int | None,
        problem_type: str | None = None,
        one_answer: bool = False,
    ) -> list[Label]:
        """Return an annotator's labels in the pool's form; messages name the row."""
        return self.read(self._reader(num_labels, problem_type, one_answer), rows, labels)

    def reader_for(self, model: object) -> LabelReader:
        """Return what reads labels for `model`, whose configuration names the classes where the data does not.

        Raises:
            ValueError: the model has the classes of the data in another order.
        """
        config, own = getattr(model, "config", None), self.class_names
        named = classes_of_config(config)
        if own is not None and named is not None and own != [*named] and sorted(own) == sorted(named):
            raise Refusal(
                f"The data has the classes {listed(own, 12)}, and the model has them in another order: "
                f"{listed(named, 12)}. Call `dataset.align_labels_with_mapping(model.config.label2id, "
                f"{self.label_column!r})` for all data sets, or give the model the classes of the data."
            )
        one_answer = type(model).__name__.endswith(("ForSequenceClassification", "ForImageClassification"))
        return self._reader(getattr(config, "num_labels", None), problem_type_of(model), one_answer, named)

    def _reader(
        self,
        num_labels: int | None,
        problem_type: str | None,
        one_answer: bool,
        names: Sequence[str] | None = None,
    ) -> LabelReader:
        own, item = self.class_names, item_feature(self.label_feature)
        found = own if own is not None else names
        return LabelReader(
            None if found is None or problem_type == REGRESSION else tuple(found),
            num_labels,
            problem_type,
            tags=isinstance(item, ClassLabel) and problem_type != MULTI_LABEL,
            is_list=None if self.label_feature is None else item is not None,
            one_answer=one_answer,
            read_answer=self.read_answer,
        )

    def read(self, reader: LabelReader, rows: Sequence[int], answers: Sequence[object]) -> list[Label]:
        """Return the labels that `answers` give to `rows`.

        Raises:
            ValueError: an answer is none; it names the row.
        """
        lengths = self._num_words(rows) if reader.tags else {}
        return self._each(lambda row, answer: reader.read(row, answer, lengths), rows, answers)

    def restore(self, reader: LabelReader, rows: Sequence[int], labels: Sequence[object]) -> list[Label]:
        """Return labels that are in the pool's form already, checked; errors as `read`."""
        own = self.labels if self.read_answer is not None else []  # a task has prepared these: they are not read again

        def restore(row: int, label: object) -> Label:
            known = own[row] if own and 0 <= row < len(self) else None
            return known if known is not None and known == label else reader.restore(row, label)

        return self._each(restore, rows, labels)

    def _each(self, read: Callable[[int, object], Label], rows: Sequence[int], labels: Sequence[object]) -> list[Label]:
        found: list[Label] = []
        for row, label in zip(rows, labels, strict=True):
            try:
                found.append(read(row, label))
            except ValueError as error:
                raise retold(error, f"Cannot label {self.place_of(row)}: {error}") from None
        return found

    def place_of(self, row: int) -> str:
        """Return what messages call `row`: its number, and what `id_column` says."""
        if self.id_column is None or not 0 <= row < len(self):
            return f"row {row}"
        return f"row {row} ({id_of(self.inputs, self.id_column, row)})"

    def checked_rows(self, role: str, rows: Iterable[int]) -> list[int]:
        """Return `rows` as whole numbers; refuse numbers outside this data, under the name `role`."""
        found = [operator.index(row) for row in rows]
        outside = [row for row in found if not 0 <= row < len(self)]
        if outside:
            raise Refusal(f"`{role}` names row {outside[0]}: rows of `train_dataset` are 0 to {len(self) - 1}.")
        return found

    @property
    def class_names(self) -> list[str] | None:
        """The classes that the label column declares, by their numbers; None where it declares none."""
        return declared_classes(self.label_feature)

    def _num_words(self, rows: Sequence[int]) -> dict[int, int]:
        """Return how many words each of `rows` has, where the data says so."""
        if NUM_WORDS not in self.inputs.column_names:
            return {}
        known = [row for row in rows if 0 <= row < len(self)]  # the pool refuses the others
        found = self.inputs.select_columns([NUM_WORDS]).with_format(None)[known][NUM_WORDS]
        return dict(zip(known, found, strict=True))

    def fingerprint(self) -> dict[str, object]:
        """Return what identifies the data: rows, columns and a hash of the contents."""
        return {
            "rows": len(self),
            "columns": sorted(self.inputs.column_names),
            "inputs": content_hash(self.inputs),
            "labels": hashlib.blake2b(repr(self.labels).encode(), digest_size=16).hexdigest(),
        }


def _is_float(features: Features) -> bool:
    kind = features.arrow_schema.field(0).type
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind))


def _require_rows_and_columns(dataset: object, label_column: str | None, id_column: str | None) -> None:
    if not isinstance(dataset, Dataset):
        raise Refusal(
            f"`train_dataset` must be a `datasets.Dataset`, got {type(dataset).__name__}. "
            "Rows need numbers: gather an iterable data set with `Dataset.from_list(list(stream.take(n)))`."
        )
    if len(dataset) == 0:
        raise Refusal("`train_dataset` is empty: there is nothing to label.")
    columns = listed(dataset.column_names)
    if label_column is not None and label_column not in dataset.column_names:
        raise Refusal(f"`train_dataset` has no column {label_column!r}. It has {columns}.")
    if id_column is not None and id_column not in dataset.column_names:
        raise Refusal(f"`train_dataset` has no column {id_column!r} (`id_column`). It has {columns}.")


def _without_labels(dataset: Dataset, label_column: str | None, found: list[str]) -> Dataset:
    """Return `dataset` without the columns in `found`, which models and collators take for labels.

    They take any of the three names, so none may stay beside the right one. A text that is called so is kept under
    another name, for people to read.
    """
    texts = [name for name in found if name != label_column and is_text(dataset.features[name])]
    kept = dataset
    for name in texts:
        kept = kept.rename_column(name, column_beside(name, kept.column_names))
    return kept.remove_columns(list({*found, label_column} - {None, *texts}))
