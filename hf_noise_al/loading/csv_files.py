"""Csv files as data sets: read as text, memory-mapped, then typed by all rows of all splits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import pandas as pd
import pyarrow as pa
from datasets import Dataset, Features, Value, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetGenerationError
from datasets.table import InMemoryTable
from transformers.utils import logging

from ..files.csv_form import SEPARATORS, CsvForm, find_form, line_of_open_quote, refuse_wide_rows
from ..files.shown_text import listed, one_line
from ..files.typed_text import UnreadableFile
from .column_types import MISSING_WORDS, Kind, as_kind, count_words, find_kind

logger = logging.get_logger(__name__)


def read_csv_files(
    files: Mapping[str, Sequence[Path]], label_columns: Sequence[str], class_names: Collection[str] = ()
) -> dict[str, Dataset]:
    """Return the splits that the csv files of `files` hold, each column of one type over all of them.

    Encoding and separator are found for each file. An empty cell is None. A word that stands for a missing value is
    None among numbers, and where it is a label that `class_names` does not list; other text stays as it was typed.

    Args:
        files: The files of each split.
        label_columns: Names of the label column, the first that is there.
        class_names: Classes that are listed.

    Raises:
        UnreadableFile: a file cannot be read: which, in which line, why and what to do.
    """
    forms = {path: find_form(path) for paths in files.values() for path in paths}
    for path, form in forms.items():
        _tell_form(path, form)
    texts = {split: _read_texts(paths, forms) for split, paths in files.items()}
    columns = list(dict.fromkeys(name for rows in texts.values() for name in rows.column_names))
    label = next((name for name in label_columns if name in columns), None)
    decimal_comma = any(form.separator == ";" for form in forms.values())
    kinds: dict[str, Kind] = {}
    words: dict[str, frozenset[str]] = {}
    for name in columns:
        missing = MISSING_WORDS - set(class_names) if name == label else MISSING_WORDS
        parts = [rows.data.column(name) for rows in texts.values() if name in rows.column_names]
        kinds[name] = find_kind(parts, missing, decimal_comma, is_label=name == label)
        words[name] = missing if kinds[name].type is not None or name == label else frozenset()
    _tell_commas(files, kinds)
    return {split: _typed(rows, kinds, words, label, files[split]) for split, rows in texts.items()}


def _read_texts(paths: Sequence[Path], forms: Mapping[Path, CsvForm]) -> Dataset:
    """Return the rows of all files of a split, every cell as text."""
    columns = forms[paths[0]].columns
    for path in paths:
        if set(forms[path].columns) != set(columns):
            raise UnreadableFile(
                f"{path} has the columns {listed(forms[path].columns, 12)}, and {paths[0]}, of the same split, has "
                f"{listed(columns, 12)}. Give the files of a split the same columns."
            )
    parts = [
        _load(list(group), form)
        for form, group in groupby((path for path in paths if forms[path].has_rows), key=lambda path: forms[path])
    ]
    parts = [part for part in parts if len(part)]
    if not parts:
        return Dataset.from_dict({name: [] for name in columns}, features=_features(columns))
    return concatenate_datasets([part.select_columns(list(columns)) for part in parts])


def _load(paths: Sequence[Path], form: CsvForm) -> Dataset:
    try:
        rows: Dataset = load_dataset(
            "csv",
            data_files={"train": [str(path) for path in paths]},
            split="train",
            features=_features(form.columns),
            sep=form.separator,
            encoding=form.encoding,
            keep_default_na=False,
            na_values=[""],
        )
    except DatasetGenerationError as error:
        for path in paths:
            refuse_wide_rows(path, form)
        if "EOF inside string" in str(error.__cause__):
            path = paths[-1]
            raise UnreadableFile(
                f"{path}, line {line_of_open_quote(path, form)}: a double quote is opened in the row that begins here "
                "and never closed. Close it, or write it twice where it is part of the text."
            ) from error
        raise
    return rows


def _features(columns: Sequence[str]) -> Features:
    """Return text for every column, of the type that pandas gives to it: stored runs know their rows by that."""
    kind = pa.Table.from_pandas(pd.DataFrame({"": ["text"]})).schema.types[0]
    return Features({name: Value(str(kind)) for name in columns})


def _typed(
    rows: Dataset,
    kinds: Mapping[str, Kind],
    words: Mapping[str, frozenset[str]],
    label: str | None,
    paths: Sequence[Path],
) -> Dataset:
    """Return `rows` with every column as its kind; text stays where it is on the disk."""
    columns = rows.column_names
    arrays: dict[str, pa.ChunkedArray] = {}
    told, label_words = [], ""
    for name in columns:
        part, kind = rows.data.column(name), kinds[name]
        found = count_words(part, words[name]) if words[name] else {}
        if found:
            whose = "the label " if name == label else ""
            told.append(f"{sum(found.values())} of {whose}`{one_line(name)}` ({', '.join(sorted(found))})")
            label_words = min(found) if name == label else label_words
        if kind.type is not None or found or not len(rows):
            arrays[name] = as_kind(part, kind, words[name])
    if told:
        shown = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        remedy = f" If {label_words} is a class, list it in `class_names`." if label_words else ""
        logger.info(f"{shown}: cells that are read as missing: {'; '.join(told)}.{remedy}")
    texts = [name for name in columns if name not in arrays]
    parts = [rows.select_columns(texts)] if texts else []
    parts += [Dataset(InMemoryTable(pa.table(arrays)))] if arrays else []
    return concatenate_datasets(parts, axis=1).select_columns(columns)


def _tell_form(path: Path, form: CsvForm) -> None:
    names = {separator: f"{name} ({separator!r})" for separator, name in SEPARATORS.items()}
    if form.rivals:
        others = " or ".join(names[rival] for rival in form.rivals)
        logger.warning(f"{path}: cells are separated by {names[form.separator]}; {others} would fit as well.")
    elif form.separator != ",":
        logger.info(f"{path}: cells are separated by {names[form.separator]}.")
    if form.encoding != "utf-8-sig":
        logger.info(f"{path}: it is {form.encoding.upper()}, by its byte order mark.")


def _tell_commas(files: Mapping[str, Sequence[Path]], kinds: Mapping[str, Kind]) -> None:
    names = [name for name, kind in kinds.items() if kind.name == "comma"]
    if names:
        paths = [path for part in files.values() for path in part]
        logger.info(
            f"{listed(paths, 3)}: numbers with a decimal comma in {listed(f'`{name}`' for name in names)}, such as 3,5."
        )
