"""Words of a sentence to one class each: named entities, parts of speech; the label of a row is a tag for each word."""

from transformers import AutoModelForTokenClassification

from ...observables.words import word_probabilities
from ..base import ONE_CLASS_EACH, Task
from .entities import choose_classes, load_word_metrics
from .tags import TAGS, WORD_TAGS
from .word_tokens import (
    require_a_tag_per_word,
    require_words,
    tokenize_words,
    word_collator,
    word_column,
    word_processor,
)

TOKEN_CLASSIFICATION = Task(
    name="token_classification",
    load_processor=word_processor,
    auto_model=AutoModelForTokenClassification,
    observable=word_probabilities,
    labels=WORD_TAGS,
    find_columns=word_column,
    check=require_words,
    encode=tokenize_words,
    collator=word_collator,
    default_metrics={TAGS: ("seqeval",)},
    label_columns=("ner_tags", "tags", "labels", "label"),
    check_labels=require_a_tag_per_word,
    load_metrics=load_word_metrics,
    preprocess_logits=choose_classes,
    refused_acquisitions=ONE_CLASS_EACH,
)
