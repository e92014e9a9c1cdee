"""Sentences or pairs of sentences to one class of several, or to any number of labels."""

from transformers import AutoModelForSequenceClassification

from ...observables.base import probabilities
from ...pool.problem_type import MULTI_LABEL
from ..base import Task
from ..columns import require_texts
from ..targets import CLASSES, SINGLE_LABEL
from .tokens import padding_collator, text_columns, text_processor, tokenize

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
