"""One folder beside those of the classes: its images have no label yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, Dataset
from transformers.utils import logging

from ..files.shown_text import listed
from ..refusals import Refusal
from ..settings.recipe import did_you_mean

logger = logging.get_logger(__name__)


def without_labels_of(
    folder: str, splits: Mapping[str, Dataset], root: Path, required: bool = False
) -> dict[str, Dataset]:
    """Return `splits` without labels where a file lies in `folder`, which is no class, nor are the folders in it.

    Args:
        folder: Its name.
        splits: Data whose column ``label`` was made of names of folders.
        root: The folder that holds all of them.
        required: Whether it must be there.

    Raises:
        ValueError: it must, and is not.
    """
    labels = {split: _labels(rows, folder, root) for split, rows in splits.items()}
    count = sum(label is None for part in labels.values() for label in part)
    names = sorted({label for part in labels.values() for label in part if label is not None})
    if not count:
        if required:
            raise Refusal(
                f"{root} has no images in a folder `{folder}` (`unlabeled_folder`).{did_you_mean(folder, names)} Its "
                f"folders are: {listed(names, 12)}."
            )
        return dict(splits)
    logger.info(f"{count} files of {root} are in folders `{folder}`: they have no label, and that folder is no class.")
    index = {name: number for number, name in enumerate(names)}
    typed = {}
    for split, rows in splits.items():
        values = pa.array([None if name is None else index[name] for name in labels[split]], pa.int64())
        unlabeled = rows.remove_columns("label").add_column("label", values, feature=ClassLabel(names=names))
        typed[split] = unlabeled.select_columns(rows.column_names)
    return typed


def are_folder_names(splits: Mapping[str, Dataset]) -> bool:
    """Return whether all `splits` have a column ``label`` of classes, as data of folders has."""
    return all(isinstance(rows.features.get("label"), ClassLabel) for rows in splits.values())


def _labels(rows: Dataset, folder: str, root: Path) -> list[str | None]:
    """Return the name of the class of each row; None where its file lies in `folder`."""
    names = rows.features["label"].names
    classes = [None if number is None else names[number] for number in rows.data.column("label").to_pylist()]
    return [
        None if name == folder or _is_below(path, folder, root) else name
        for name, path in zip(classes, _paths(rows), strict=True)
    ]


def _paths(rows: Dataset) -> list[str | None]:
    """Return the path of each row's file, where the data says it."""
    for name in rows.column_names:
        column = rows.data.column(name)
        if pa.types.is_struct(column.type) and column.type.get_field_index("path") >= 0:
            return [path for chunk in column.chunks for path in chunk.field("path").to_pylist()]
    return [None] * len(rows)


def _is_below(path: str | None, folder: str, root: Path) -> bool:
    try:
        return path is not None and folder in Path(path).relative_to(root).parts[:-1]
    except ValueError:  # somewhere else, as in an archive
        return False
