"""Views of the pool's data set: inputs without labels, and the labeled split with the labels of the pool."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetInfo, Features, Value
from datasets.table import InMemoryTable

from .pool import Label, Pool
from .shown_text import listed

LABEL_COLUMNS = ("labels", "label", "label_ids")
NUM_WORDS = "num_words"
"""Column that says how many words a row has, where each of them needs a tag of its own."""


class PoolDataset:
    """The user's data set with its label column taken away; rows keep their numbers.

    Args:
        dataset: The whole pool.
        label_column: Its label column; None finds ``labels`` or ``label``, or none.
        read_answer: ``(row, answer) -> label``, what reads an annotator's answer where it is neither a class nor
            numbers. Labels that are in the data set are in that form already.

    Raises:
        ValueError: not a map-style data set, empty, or without the label column that was named.
    """

    def __init__(
        self,
        dataset: Dataset,
        label_column: str | None = None,
        read_answer: Callable[[int, object], Label] | None = None,
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
        found = [name for name in LABEL_COLUMNS if name in dataset.column_names]
        self.label_column = label_column or (found[0] if found else None)
        # Models and collators take any of the three names for the labels, so none may stay beside the right one.
        self.inputs = dataset.remove_columns(list({*found, self.label_column} - {None}))
        self.labels: list[Label | None] = [None] * len(dataset)
        kind = dataset.features[self.label_column] if self.label_column else None
        self.label_feature = None if kind == Value("null") else kind
        if self.label_column:
            values = dataset.select_columns([self.label_column]).with_format(None)[:][self.label_column]
            self.labels = [None if _is_missing(value) else value for value in values]
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
        """Return labels as plain JSON; class names become class numbers, multi-label lists and scales floats.

        Args:
            rows: Their rows, for messages.
            labels: What an annotator gave: numbers, NumPy scalars, class names, lists of numbers, or tags: lists with
                the number or the name of a class for each word.
            num_labels: How many outputs the model has, where it says so.
            problem_type: As in the model's configuration.
            one_answer: Whether the model is known to answer for whole rows, not for their words or pixels.

        Raises:
            ValueError: a label is missing, not a number or a class, outside the classes, or not one tag per word.
        """
        read = self._reader(rows, num_labels, problem_type, one_answer)
        parsed: list[Label] = []
        for row, label in zip(rows, labels, strict=True):
            try:
                parsed.append(read(row, label))
            except ValueError as error:
                raise ValueError(f"Cannot label row {row}: {error}") from None
        return parsed

    def _reader(
        self, rows: Sequence[int], num_labels: int | None, problem_type: str | None, one_answer: bool
    ) -> Callable[[int, object], Label]:
        """Return what reads the label of one of `rows`."""
        if self.read_answer is not None:
            return self._read_answer
        item = item_feature(self.label_feature)
        if not isinstance(item, ClassLabel) or problem_type == "multi_label_classification":
            return lambda row, label: self._parse(label, num_labels, problem_type, one_answer)
        names, lengths = list(item.names), self._num_words(rows)
        return lambda row, label: parse_tags(label, names, lengths.get(row))

    def _read_answer(self, row: int, label: object) -> Label:
        assert self.read_answer is not None
        known = self.labels[row] if 0 <= row < len(self) else None
        return known if known is not None and label is known else self.read_answer(row, label)

    def _num_words(self, rows: Sequence[int]) -> dict[int, int]:
        """Return how many words each of `rows` has, where the data says so."""
        if NUM_WORDS not in self.inputs.column_names:
            return {}
        known = [row for row in rows if 0 <= row < len(self)]  # what is no row at all the pool refuses
        found = self.inputs.select_columns([NUM_WORDS]).with_format(None)[known][NUM_WORDS]
        return dict(zip(known, found, strict=True))

    def _parse(self, label: object, num_labels: int | None, problem_type: str | None, one_answer: bool) -> Label:
        if isinstance(label, str):
            names = getattr(self.label_feature, "names", None)
            if names is None or label not in names:
                known = (
                    f"Classes are {listed(names, 12)}." if names else "Encode them with `class_encode_column` first."
                )
                raise ValueError(f"the label {label!r} is not a known class. {known}")
            return int(names.index(label))
        plain = label.tolist() if hasattr(label, "tolist") else label
        if isinstance(plain, list | tuple) and plain and all(isinstance(value, int | float) for value in plain):
            plain = list(plain)
        elif isinstance(plain, bool) or not isinstance(plain, int | float):
            raise ValueError(f"the label {label!r} is not a number, a list of numbers or the name of a class.")
        if _is_missing(plain):
            raise ValueError(f"the label {label!r} stands for a missing label.")
        if not all(_is_finite(value) for value in (plain if isinstance(plain, list) else [plain])):
            raise ValueError(f"the label {label!r} is not finite.")
        if problem_type == "multi_label_classification":
            if not isinstance(plain, list) or len(plain) != num_labels:
                raise ValueError(f"the label {label!r} is not a list of {num_labels} numbers, one per class.")
            return [float(value) for value in plain]
        if problem_type == "regression":
            return self._on_a_scale(plain, num_labels)
        if isinstance(plain, list):
            self._refuse_list(plain, num_labels, problem_type, one_answer)
        elif num_labels is not None:
            if plain != plain // 1 or not 0 <= plain < num_labels:
                raise ValueError(f"the label {label!r} is outside the model's {num_labels} classes.")
            plain = int(plain)
        return plain

    def _on_a_scale(self, plain: float | list[float], num_labels: int | None) -> Label:
        """Return a number as a float, or as many as the model has outputs; their form is that of the label column."""
        listed = item_feature(self.label_feature) is not None or (self.label_feature is None and (num_labels or 1) > 1)
        if isinstance(plain, list) != listed or (isinstance(plain, list) and len(plain) != (num_labels or len(plain))):
            wanted = f"a list of {num_labels} numbers, one per output" if listed else "one number"
            raise ValueError(f"the label {plain!r} is not {wanted}.")
        return [float(value) for value in plain] if isinstance(plain, list) else float(plain)

    def _refuse_list(
        self, plain: list[float], num_labels: int | None, problem_type: str | None, one_answer: bool
    ) -> None:
        """Refuse a list where a class is wanted; lists of floats, one per class, let models choose several classes."""
        several = problem_type is None and len(plain) == num_labels and all(isinstance(value, float) for value in plain)
        column_of_one = self.label_feature is not None and item_feature(self.label_feature) is None
        if column_of_one or problem_type is not None or (one_answer and not several):
            raise ValueError(
                f"the label {plain!r} is a list, and the model takes one of {num_labels} classes for each row. Give "
                "its number; for several at once set the model's `problem_type` to 'multi_label_classification'."
            )

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


def parse_tags(label: object, names: Sequence[str], num_words: int | None) -> list[int]:
    """Return the tags of a row as class numbers.

    Args:
        label: A list with the number or the name of a class for each word.
        names: Of the classes, in order.
        num_words: How many words the row has; None where nobody knows.

    Raises:
        ValueError: not a list, of another length, or with something that is no class.
    """
    plain = label.tolist() if hasattr(label, "tolist") else label
    if not isinstance(plain, list | tuple):
        raise ValueError(f"{plain!r} is not a list of tags. Give a list with one tag for each word.")
    if num_words is not None and len(plain) != num_words:
        raise ValueError(f"found {len(plain)} tags for {num_words} words. Give one tag for each word.")
    positions = {name: number for number, name in enumerate(names)}
    tags = [positions.get(tag, -1) if isinstance(tag, str) else tag for tag in plain]
    for word, tag in enumerate(tags):
        whole = isinstance(tag, int | float) and not isinstance(tag, bool) and tag == tag // 1
        if not whole or not 0 <= tag < len(names):
            raise ValueError(
                f"the tag {plain[word]!r} of word {word} is outside the {len(names)} classes. Give the name of a class "
                f"({listed(names, 12)}), or its number, from 0 to {len(names) - 1}."
            )
    return [int(tag) for tag in tags]


def _is_missing(label: object) -> bool:
    if isinstance(label, list):
        return len(label) == 0 or any(value is None for value in label) or all(value == -100 for value in label)
    return label is None or label == -100 or (isinstance(label, float) and math.isnan(label))


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float is as large as
        return False


def _is_float(features: Features) -> bool:
    kind = features.arrow_schema.field(0).type
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind))


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
