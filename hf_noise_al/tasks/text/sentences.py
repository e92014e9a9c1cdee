"""Sentences and pairs of sentences: their tokens, and the tasks of classes and of a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase
from transformers.utils import logging

from ...files.shown_text import listed
from ...loading.processors import load_tokenizer
from ...observables.base import features, probabilities
from ...pool.problem_type import MULTI_LABEL, REGRESSION
from ...refusals import Refusal
from ...settings.arguments import DataArguments, ModelArguments
from ..base import CLASSES_ALONE, Task
from ..columns import find_text_columns, require_texts
from ..label_kinds import CLASSES, NUMBERS
from ..targets import SINGLE_LABEL
from ..token_batches import lengths, padding_collator

logger = logging.get_logger(__name__)

_STAND_INS = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "unk_token_id", "pad_token_id")
"""Tokens that can stand where a text has none, best first."""


def text_columns(dataset: Dataset, arguments: DataArguments, label_column: str) -> tuple[str, ...]:
    """Return the column of the text, or the two columns of a pair."""
    return find_text_columns(dataset, arguments.text_column, arguments.text_pair_column, label_column)


def text_processor(model: ModelArguments, arguments: DataArguments, pool: Dataset) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the model."""
    return load_tokenizer(model)


def tokenize(
    dataset: Dataset, columns: Sequence[str], tokenizer: PreTrainedTokenizerBase, arguments: DataArguments
) -> Dataset:
    """Return `dataset` with the tokens of `columns`, cut to the length that arguments and model allow, not padded.

    A row of which the tokenizer makes no token, as GPT-2's does of an empty text, gets one that says nothing.

    Raises:
        ValueError: there is such a row, and the tokenizer has no token of that kind.
    """
    length = min(arguments.max_seq_length, tokenizer.model_max_length)

    def encode(rows: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        return dict(tokenizer(*(list(rows[name]) for name in columns), truncation=True, max_length=length))

    return _with_a_token(dataset.map(encode, batched=True, desc="Tokenizing"), columns, tokenizer)


def _with_a_token(encoded: Dataset, columns: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Return `encoded` with one token, attended to, in each row that has none."""
    first = tokenizer.model_input_names[0]
    empty = [row for row, length in enumerate(lengths(encoded, first)) if not length]
    if not empty:
        return encoded
    token = _stand_in(tokenizer)
    if token is None:
        texts = " and ".join(repr(encoded[empty[0]][name]) for name in columns)
        raise Refusal(
            f"Column `{'`, `'.join(columns)}`, row {empty[0]}: the tokenizer makes no token of {texts}, and has none "
            f"to put there ({len(empty)} such rows). Fill or remove such rows."
        )
    of_one_token = {first: token, "attention_mask": 1}
    names = [name for name in tokenizer.model_input_names if name in encoded.column_names]

    def fill(row: Mapping[str, Any]) -> dict[str, Any]:
        return {name: row[name] or [of_one_token.get(name, 0)] for name in names}

    logger.info(
        f"{len(empty)} of {len(encoded)} rows hold no token, as row {empty[0]} does: each gets one, "
        f"{listed([tokenizer.convert_ids_to_tokens(token)])}."
    )
    return encoded.map(fill, desc="Filling empty texts")


def _stand_in(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return a token that stands where a text has none, if there is one, and one that is no padding."""
    padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    found = [token for token in (getattr(tokenizer, name, None) for name in _STAND_INS) if token is not None]
    return next((token for token in found if token != padding), found[0] if found else None)


TEXT_CLASSIFICATION = Task(
    name="text_classification",
    load_processor=text_processor,
    auto_model=AutoModelForSequenceClassification,
    observable=probabilities,
    labels=CLASSES,
    find_columns=text_columns,
    check=require_texts,
    encode=tokenize,
    collator=padding_collator,
    default_metrics={SINGLE_LABEL: ("accuracy", "f1"), MULTI_LABEL: ("f1", "accuracy")},
)
"""To one class of several, or to any number of labels."""
TEXT_REGRESSION = Task(
    name="text_regression",
    load_processor=text_processor,
    auto_model=AutoModelForSequenceClassification,
    observable=features,
    labels=NUMBERS,
    find_columns=text_columns,
    check=require_texts,
    encode=tokenize,
    collator=padding_collator,
    default_metrics={REGRESSION: ("pearsonr", "spearmanr", "mse")},
    refused_acquisitions=CLASSES_ALONE,
    hub_name="text-classification",
)
"""To one number: one output, mean squared error, penultimate features observed."""
