"""Sentences or pairs of sentences to one number: one output, mean squared error, penultimate features observed."""

from transformers import AutoModelForSequenceClassification

from ..observables import features
from .base import Task
from .columns import require_texts
from .targets import REGRESSION
from .text import padding_collator, text_columns, tokenize

TEXT_REGRESSION = Task(
    name="text_regression",
    processor_kind="text",
    auto_model=AutoModelForSequenceClassification,
    observable=features,
    regression=True,
    find_columns=text_columns,
    check=require_texts,
    encode=tokenize,
    collator=padding_collator,
    default_metrics={REGRESSION: ("pearsonr", "spearmanr", "mse")},
)
