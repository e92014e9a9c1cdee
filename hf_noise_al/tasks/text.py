"""What the text tasks share: tokenization without padding, and batches padded when they are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from ..arguments import DataArguments, ModelArguments
from ..loading import load_tokenizer
from .base import Collator
from .columns import find_text_columns


def text_columns(dataset: Dataset, arguments: DataArguments, label_column: str) -> tuple[str, ...]:
    """Return the column of the text, or the two columns of a pair."""
    return find_text_columns(dataset, arguments.text_column, arguments.text_pair_column, label_column)


def text_processor(model: ModelArguments, arguments: DataArguments, pool: Dataset) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the model."""
    return load_tokenizer(model)


def tokenize(
    dataset: Dataset, columns: Sequence[str], tokenizer: PreTrainedTokenizerBase, arguments: DataArguments
) -> Dataset:
    """Return `dataset` with the tokens of `columns`, cut to the length that arguments and model allow, not padded."""
    length = min(arguments.max_seq_length, tokenizer.model_max_length)

    def encode(rows: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        return dict(tokenizer(*(list(rows[name]) for name in columns), truncation=True, max_length=length))

    return dataset.map(encode, batched=True, desc="Tokenizing")


def padding_collator(tokenizer: PreTrainedTokenizerBase) -> Collator:
    """Return what pads a batch to its longest row; a tokenizer without padding token pads with its end token."""
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError("The tokenizer has neither padding nor end token, so rows cannot form batches. Add one.")
        tokenizer.pad_token = tokenizer.eos_token
    collator: Collator = DataCollatorWithPadding(tokenizer)
    return collator
