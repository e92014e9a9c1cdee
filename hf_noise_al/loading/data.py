"""The data of a job: the rows of the pool and those that rounds are measured on, as they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, disable_progress_bars
from transformers.utils import logging

from ..pool.columns import ID_COLUMN
from ..pool.places import Source
from ..refusals import Refusal
from ..settings.arguments import DataArguments
from ..settings.recipe import did_you_mean
from .splits import load_splits
from .validation_rows import set_aside

logger = logging.get_logger(__name__)

LABELS = ("labels", "label")
"""Names of the label column where none is asked for, the first that is there."""


@dataclass(frozen=True)
class LoadedData:
    """The rows of a job, as they are stored."""

    pool: Dataset
    """All rows of the pool, also those that are set aside."""
    evaluation: dict[str, Dataset]
    """Evaluation sets by name, ``""`` for a single one."""
    source: Source
    """Where the rows of the pool come from, for messages."""
    set_aside: tuple[int, ...] = ()
    """The rows of the pool that the evaluation set is made of, ascending; none where it has rows of its own."""


def load_pool(arguments: DataArguments, label_columns: Sequence[str] = LABELS) -> LoadedData:
    """Return the pool alone, every row of it, as it is stored."""
    pool = _split(_splits(arguments, label_columns), arguments.train_split, arguments.dataset_name or "", "train_split")
    if not len(pool):
        raise Refusal(f"The split `{arguments.train_split}` of {arguments.dataset_name} is empty. Name another.")
    pool = _first_rows(pool, arguments.max_train_samples)
    return LoadedData(pool, {}, _source(pool, arguments))


def load_data(arguments: DataArguments, label_columns: Sequence[str] = LABELS) -> LoadedData:
    """Return the pool and the evaluation sets, as they are stored.

    Where there is no other split, `validation_fraction` of the rows that have a label, in the first of `label_columns`
    that is there, is set aside to measure with. They keep their place in the pool.
    """
    name = arguments.dataset_name or ""
    splits = _splits(arguments, label_columns)
    pool = _split(splits, arguments.train_split, name, "train_split")
    aside: tuple[int, ...] = ()
    if set(splits) == {arguments.train_split} and not arguments.validation_fraction:
        evaluation: dict[str, Dataset] = {}  # the labeled rows are cross-validated
    elif set(splits) == {arguments.train_split}:
        aside = set_aside(pool, arguments, label_columns)
        evaluation = {"": pool.select(aside)}
    else:
        wanted = arguments.eval_split
        evaluation = {
            label: _split(splits, split, name, "eval_split")
            for label, split in zip(_short_names(wanted), wanted, strict=True)
        }
    pool = _first_rows(pool, arguments.max_train_samples)
    aside = tuple(row for row in aside if row < len(pool))
    evaluation = {key: _first_rows(rows, arguments.max_eval_samples) for key, rows in evaluation.items()}
    for what, rows in {f"The split `{arguments.train_split}`": pool, **_described(evaluation)}.items():
        if not len(rows):
            raise Refusal(f"{what} of {name} is empty. Name another split, or look at the file.")
    return LoadedData(pool, evaluation, _source(pool, arguments), aside)


def hide_progress_bars() -> None:
    """Hide the bars of datasets and transformers, which ignore `TrainingArguments.disable_tqdm`."""
    disable_progress_bars()
    logging.disable_progress_bar()


def _split(splits: Mapping[str, Dataset], split: str, name: str, argument: str) -> Dataset:
    if split not in splits:
        raise Refusal(
            f"{name} has no split `{split}`.{did_you_mean(split, list(splits))} "
            f"Set `{argument}` to one of: {', '.join(splits)}."
        )
    return splits[split]


def _splits(arguments: DataArguments, label_columns: Sequence[str]) -> Mapping[str, Dataset]:
    name = arguments.dataset_name or ""
    splits, local = load_splits(name, arguments, label_columns)
    if local and arguments.dataset_config_name:
        logger.info(f"{name} is local: `dataset_config_name: {arguments.dataset_config_name}` does not select data.")
    return splits


def _source(pool: Dataset, arguments: DataArguments) -> Source:
    path = Path(arguments.dataset_name or "").expanduser()
    named = arguments.id_column
    if named is not None and named not in pool.column_names:
        raise Refusal(
            f"The data has no column `{named}` (`id_column`).{did_you_mean(named, pool.column_names)} "
            f"It has: {', '.join(pool.column_names)}."
        )
    found = named or (ID_COLUMN if ID_COLUMN in pool.column_names else None)
    return Source(pool, path if path.is_file() else None, found)


def _short_names(splits: list[str]) -> list[str]:
    """Return names of `splits` without what they share: ``validation_matched -> matched``."""
    if len(splits) == 1:
        return [""]
    if len(set(splits)) < len(splits):
        raise Refusal(f"`eval_split` names a split twice: {', '.join(splits)}.")
    first = splits[0].split("_")
    same = next((at for at in range(len(first)) if any(s.split("_")[: at + 1] != first[: at + 1] for s in splits)), 0)
    return ["_".join(split.split("_")[same:]) or split for split in splits]


def _first_rows(rows: Dataset, count: int | None) -> Dataset:
    return rows if count is None or count >= len(rows) else rows.select(range(count))


def _described(evaluation: Mapping[str, Dataset]) -> dict[str, Dataset]:
    return {f"The evaluation split {name}".strip(): rows for name, rows in evaluation.items()}
