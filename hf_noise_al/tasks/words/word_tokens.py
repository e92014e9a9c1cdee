"""Sentences as lists of words: tokens of every word, where each word begins, and batches with one tag per word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from datasets import Dataset, Value
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ...files.shown_text import listed
from ...loading.processors import load_tokenizer
from ...observables.base import WORD_STARTS
from ...pool.columns import NUM_WORDS, item_feature
from ...pool.places import row_at
from ...refusals import Refusal
from ...settings.arguments import DataArguments, ModelArguments
from ..base import Collator
from ..columns import require_column
from ..token_batches import lengths, padding_collator

logger = logging.get_logger(__name__)

WORDS = ("tokens", "words")
NO_TAG = -100
"""The target that losses of torch ignore."""


def word_column(dataset: Dataset, arguments: DataArguments, label_column: str) -> tuple[str, ...]:
    """Return the column of the words: the one asked for, else a known name, else the only one with lists of text."""
    if arguments.text_column is not None:
        return (require_column(dataset, arguments.text_column, "text_column"),)
    lists = [name for name in dataset.column_names if name != label_column and _holds_lists_of_text(dataset, name)]
    for name in (*WORDS, *(lists if len(lists) == 1 else ())):
        if name in dataset.column_names and name != label_column:
            return (name,)
    raise Refusal(
        f"Cannot tell which column has the words of a sentence. Set `text_column` to one of: "
        f"{listed(lists or dataset.column_names)}."
    )


def require_words(dataset: Dataset, columns: Sequence[str], place: str) -> None:
    """Refuse the first row that is not a list of at least one word, each of them text."""
    name = columns[0]
    for row, words in enumerate(dataset.with_format(None)[name][:]):
        if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
            continue
        found = "no words" if words is None or words == [] else f"{str(words)[:57]!r}"
        raise Refusal(
            f"Column `{name}` of {place} is not a list of words in {row_at(place, row)}: found {found}. Split texts "
            "into words, remove rows without any, or name another `text_column`."
        )


def require_a_tag_per_word(dataset: Dataset, columns: Sequence[str], place: str) -> None:
    """Refuse the first row with another number of tags than of words."""
    words, tags = (lengths(dataset, name) for name in (columns[0], "labels"))
    for row, (expected, found) in enumerate(zip(words, tags, strict=True)):
        if found is not None and found != expected:
            raise Refusal(
                f"Row {row} of {place} has {found} tags for the {expected} words of `{columns[0]}`. "
                "Give one tag for each word."
            )


def word_processor(model: ModelArguments, arguments: DataArguments, pool: Dataset) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the model, one that can tell which tokens belong to a word."""
    tokenizer = load_tokenizer(model)
    if not tokenizer.is_fast:
        raise Refusal(
            f"{type(tokenizer).__name__} cannot tell which tokens belong to a word. Name a model with a fast "
            "tokenizer (tokenizer.json), or set `processor_name_or_path`."
        )
    byte_level = "ByteLevel" in str(tokenizer.backend_tokenizer.pre_tokenizer)
    if (
        byte_level and getattr(tokenizer, "add_prefix_space", None) is False
    ):  # it recognizes words by the space in front
        return load_tokenizer(model, add_prefix_space=True)
    return tokenizer


def tokenize_words(
    dataset: Dataset, columns: Sequence[str], tokenizer: PreTrainedTokenizerBase, arguments: DataArguments
) -> Dataset:
    """Return `dataset` with the tokens of its words, cut to the length that arguments and model allow, not padded.

    The column ``word_starts`` says for every token which word begins there, or -1; ``num_words`` how many there are.
    """
    name, length = columns[0], min(arguments.max_seq_length, tokenizer.model_max_length)

    def encode(rows: Mapping[str, Sequence[Sequence[str]]]) -> dict[str, Any]:
        sentences = [list(words) for words in rows[name]]
        found = tokenizer(sentences, is_split_into_words=True, truncation=True, max_length=length)
        starts = [word_starts(found.word_ids(row)) for row in range(len(sentences))]
        return {**found, WORD_STARTS: starts, NUM_WORDS: [len(words) for words in sentences]}

    encoded = dataset.map(encode, batched=True, desc="Tokenizing")
    _tell_what_is_left_out(encoded, name)
    return encoded


def word_starts(word_ids: Sequence[int | None]) -> list[int]:
    """Return for each token the word that begins there, or -1, from the word that each token is part of.

    Example:
        >>> word_starts([None, 0, 1, 1, 2, None])
        [-1, 0, 1, -1, 2, -1]
    """
    before = [None, *word_ids]
    return [-1 if word is None or word == last else word for word, last in zip(word_ids, before, strict=False)]


@dataclass(frozen=True)
class WordCollator:
    """Pad a batch and lay the tags of words, which rows have, on the tokens where words begin; all others get -100.

    Rows without labels, those of a query, get ``word_starts`` instead, from which nobody can tell what the tags are.
    """

    pad: Collator
    padding_side: str
    columns: ClassVar[tuple[str, ...]] = (WORD_STARTS,)
    """What the trainer must leave in the rows beside the model's inputs."""

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the inputs, (B, T), with ``labels`` or ``word_starts``, (B, T)."""
        if WORD_STARTS not in rows[0]:
            raise Refusal(
                f"Rows have no column `{WORD_STARTS}`, only {', '.join(rows[0])}. Prepare the data with "
                "`TASKS['token_classification'].prepare`, and train with an `ActiveTrainer`."
            )
        batch = dict(self.pad([{k: v for k, v in row.items() if k not in (WORD_STARTS, "labels")} for row in rows]))
        starts = [[int(word) for word in row[WORD_STARTS]] for row in rows]
        width = batch["input_ids"].shape[1]
        if "labels" in rows[0]:
            tags = [
                [NO_TAG if word < 0 else int(row["labels"][word]) for word in words]
                for row, words in zip(rows, starts, strict=True)
            ]
            batch["labels"] = self._padded(tags, width, NO_TAG)
        else:
            batch[WORD_STARTS] = self._padded(starts, width, -1)
        return batch

    def _padded(self, rows: list[list[int]], width: int, value: int) -> torch.Tensor:
        left = self.padding_side == "left"
        padding = [[value] * (width - len(row)) for row in rows]
        return torch.tensor([more + row if left else row + more for row, more in zip(rows, padding, strict=True)])


def word_collator(tokenizer: PreTrainedTokenizerBase) -> Collator:
    """Return what pads a batch to its longest row and gives each token its tag."""
    return WordCollator(padding_collator(tokenizer), tokenizer.padding_side)


def _tell_what_is_left_out(encoded: Dataset, name: str) -> None:
    """Log how many words have no token; refuse a row where no word has one."""
    columns = encoded.select_columns([WORD_STARTS, NUM_WORDS]).with_format(None)[:]
    kept = [sum(word >= 0 for word in starts) for starts in columns[WORD_STARTS]]
    if 0 in kept:
        raise Refusal(
            f"The tokenizer finds nothing in row {kept.index(0)}: none of its words in `{name}` has a token. "
            "Remove such rows, or raise `max_seq_length`."
        )
    lost = [words - seen for words, seen in zip(columns[NUM_WORDS], kept, strict=True)]
    if any(lost):
        logger.warning(
            f"{sum(lost)} of {sum(columns[NUM_WORDS])} words, in {sum(map(bool, lost))} of {len(lost)} rows, are cut "
            "off by `max_seq_length` or unknown to the tokenizer: they are neither learned nor measured."
        )


def _holds_lists_of_text(dataset: Dataset, name: str) -> bool:
    item = item_feature(dataset.features[name])
    return isinstance(item, Value) and item.dtype in ("string", "large_string")
