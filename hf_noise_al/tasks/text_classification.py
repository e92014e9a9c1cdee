"""Sentences or pairs of sentences to one class of several, or to any number of labels."""

from transformers import AutoModelForSequenceClassification

from ..observables import probabilities
from .base import Task
from .columns import require_texts
from .targets import MULTI_LABEL, SINGLE_LABEL
from .text import padding_collator, text_columns, tokenize

TEXT_CLASSIFICATION = Task(
    name="text_classification",
    processor_kind="text",
    auto_model=AutoModelForSequenceClassification,
    observable=probabilities,
    regression=False,
    find_columns=text_columns,
    check=require_texts,
    encode=tokenize,
    collator=padding_collator,
    default_metrics={SINGLE_LABEL: ("accuracy", "f1"), MULTI_LABEL: ("f1", "accuracy")},
)
