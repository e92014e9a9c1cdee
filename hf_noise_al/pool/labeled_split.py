"""Views of the pool's data set: inputs without labels, and the labeled split with the labels of the pool."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetInfo, Features, Value
from datasets.table import InMemoryTable

from ..files.shown_text import listed
from .label_reader import MULTI_LABEL, REGRESSION, LabelReader, classes_of_config
from .label_values import is_missing
from .places import id_of
from .pool import Label, Pool

LABEL_COLUMNS = ("labels", "label", "label_ids")
ID_COLUMN = "id"
"""Column that names each row for people, where no other is named."""
NUM_WORDS = "num_words"
"""Column that says how many words a row has, where each of them needs a tag of its own."""


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
        self.read_answer = read_answer
        if not isinstance(dataset, Dataset):
            raise ValueError(
                f"`train_dataset` must be a `datasets.Dataset`, got {type(dataset).__name__}. "
                "Rows need numbers: gather an iterable data set with `Dataset.from_list(list(stream.take(n)))`."
            )
        if len(dataset) == 0:
            raise ValueError("`train_dataset` is empty: there is nothing to label.")
        if label_column is not None and label_column not in dataset.column_names:
            columns = listed(dataset.column_names)
            raise ValueError(f"`train_dataset` has no column {label_column!r}. It has {columns}.")
        if id_column is not None and id_column not in dataset.column_names:
            columns = listed(dataset.column_names)
            raise ValueError(f"`train_dataset` has no column {id_column!r} (`id_column`). It has {columns}.")
        self.id_column = id_column or (ID_COLUMN if ID_COLUMN in dataset.column_names else None)
        found = [name for name in LABEL_COLUMNS if name in dataset.column_names]
        self.label_column = label_column or (found[0] if found else None)
        # Models and collators take any of the three names for the labels, so none may stay beside the right one.
        # A text called so is kept under another name, for people to read.
        texts = [name for name in found if name != self.label_column and is_text(dataset.features[name])]
        kept = dataset
        for name in texts:
            kept = kept.rename_column(name, column_beside(name, kept.column_names))
        self.inputs = kept.remove_columns(list({*found, self.label_column} - {None, *texts}))
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
        """Return what an annotator gave as the pool keeps it: `LabelReader.read` of each, with its row in messages."""
        return self.read(self._reader(num_labels, problem_type, one_answer), rows, labels)

    def reader_for(self, model: object) -> LabelReader:
        """Return what reads labels for `model`, whose configuration names the classes where the data does not.

        Raises:
            ValueError: the model has the classes of the data in another order.
        """
        config, own = getattr(model, "config", None), self.class_names
        named = classes_of_config(config)
        if own is not None and named is not None and own != [*named] and sorted(own) == sorted(named):
            raise ValueError(
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
        """Return the labels that people's `answers` for `rows` are.

        Raises:
            ValueError: an answer is none; it names the row.
        """
        lengths = self._num_words(rows) if reader.tags else {}
        return self._each(lambda row, answer: reader.read(row, answer, lengths), rows, answers)

    def restore(self, reader: LabelReader, rows: Sequence[int], labels: Sequence[object]) -> list[Label]:
        """Return labels that are in the pool's form already, checked; errors as `read`."""
        own = self.labels if self.read_answer is not None else []  # what a task prepared need not be read again

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
                raise type(error)(f"Cannot label {self.place_of(row)}: {error}") from None
        return found

    def place_of(self, row: int) -> str:
        """Return what messages call `row`: its number, and what `id_column` says."""
        if self.id_column is None or not 0 <= row < len(self):
            return f"row {row}"
        return f"row {row} ({id_of(self.inputs, self.id_column, row)})"

    def checked_rows(self, role: str, rows: Iterable[int]) -> list[int]:
        """Return `rows` as whole numbers; what is no row of this data is refused under the name `role`."""
        found = [operator.index(row) for row in rows]
        outside = [row for row in found if not 0 <= row < len(self)]
        if outside:
            raise ValueError(f"`{role}` names row {outside[0]}: rows of `train_dataset` are 0 to {len(self) - 1}.")
        return found

    @property
    def class_names(self) -> list[str] | None:
        """The classes that the label column declares, by their numbers; None where it declares none."""
        return declared_classes(self.label_feature)

    def _num_words(self, rows: Sequence[int]) -> dict[int, int]:
        """Return how many words each of `rows` has, where the data says so."""
        if NUM_WORDS not in self.inputs.column_names:
            return {}
        known = [row for row in rows if 0 <= row < len(self)]  # what is no row at all the pool refuses
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


def item_feature(feature: object) -> object:
    """Return the feature of the items of a list column, in any of the forms that `datasets` has for lists, or None."""
    return feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)


def declared_classes(feature: object) -> list[str] | None:
    """Return the classes that a column of type `feature`, or of lists of it, declares; None where it declares none."""
    item = item_feature(feature)
    kind = feature if item is None else item
    return list(kind.names) if isinstance(kind, ClassLabel) else None


def column_beside(name: str, taken: Collection[str] = ()) -> str:
    """Return what a column is called where `name` has a meaning of ours; none of the names that are `taken`.

    Example:
        >>> column_beside("label")
        'label (column)'
        >>> column_beside("label", ["label (column)"])
        'label (column) (column)'
    """
    beside = f"{name} (column)"
    return column_beside(beside, taken) if beside in taken else beside


def predicts_classes(model: object) -> bool:
    """Return whether `model` is known to tell classes apart, of a row or of each of its words."""
    num_labels = getattr(getattr(model, "config", None), "num_labels", None)
    return num_labels is not None and problem_type_of(model) != REGRESSION


def problem_type_of(model: object) -> str | None:
    """Return the problem type of a model's configuration; one output is a number."""
    config = getattr(model, "config", None)
    found: str | None = getattr(config, "problem_type", None)
    return found or (REGRESSION if getattr(config, "num_labels", None) == 1 else None)


def is_text(kind: object) -> bool:
    """Return whether a column of type `kind` holds texts."""
    return isinstance(kind, Value) and kind.dtype in ("string", "large_string")


def _is_float(features: Features) -> bool:
    kind = features.arrow_schema.field(0).type
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind))


def rows_hash(rows: Iterable[int]) -> str:
    """Return a hash of a set of rows."""
    return hashlib.blake2b(repr(sorted(rows)).encode(), digest_size=16).hexdigest()


def content_hash(dataset: Dataset) -> str:
    """Return a hash of what the rows hold, whatever the files and parts that they are stored in."""
    digest = hashlib.blake2b(digest_size=16)
    view = dataset.with_format("arrow")
    for start in range(0, len(dataset), 1000):
        table = view[start : start + 1000]
        table = table.take(pa.array(range(len(table))))  # a copy: a slice carries the layout of what it was cut from
        table = table.combine_chunks().replace_schema_metadata(None)
        with pa.ipc.new_stream(_Sink(digest), table.schema) as stream:
            stream.write_table(table)
    return digest.hexdigest()


class _Sink:
    """A file that only hashes what is written to it."""

    closed = False

    def __init__(self, digest: hashlib.blake2b) -> None:
        self.digest = digest

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False
