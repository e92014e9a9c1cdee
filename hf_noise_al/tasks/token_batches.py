"""Rows of tokens: how long each is, and batches padded to their longest row."""

from __future__ import annotations

import pyarrow.compute
from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from ..refusals import Refusal
from .base import Collator


def lengths(dataset: Dataset, name: str) -> list[int | None]:
    """Return how long each list of a column is, None where there is none."""
    column = dataset.with_format("arrow").select_columns([name])[:].column(name)
    found: list[int | None] = pyarrow.compute.list_value_length(column).to_pylist()
    return found


def padding_collator(tokenizer: PreTrainedTokenizerBase) -> Collator:
    """Return what pads a batch to its longest row; a tokenizer without padding token pads with its end token."""
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise Refusal("The tokenizer has neither padding nor end token, so rows cannot form batches. Add one.")
        tokenizer.pad_token = tokenizer.eos_token
    collator: Collator = DataCollatorWithPadding(tokenizer)
    return collator
