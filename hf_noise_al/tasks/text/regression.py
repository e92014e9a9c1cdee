"""Sentences or pairs of sentences to one number: one output, mean squared error, penultimate features observed."""

from transformers import AutoModelForSequenceClassification

from ...observables.base import features
from ...pool.problem_type import REGRESSION
from ..base import CLASSES_ALONE, Task
from ..columns import require_texts
from ..targets import NUMBERS
from .tokens import padding_collator, text_columns, text_processor, tokenize

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
