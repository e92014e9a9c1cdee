"""Rows of a table, with numbers, categories and missing values, to one number or to one class of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset, Features, Value
from datasets import Sequence as SequenceFeature
from transformers.utils import logging

from ...files.shown_text import listed
from ...loading.models import load_model_config
from ...observables.base import features, probabilities
from ...pool.problem_type import MULTI_LABEL, REGRESSION
from ...refusals import Refusal
from ...settings.arguments import DataArguments, ModelArguments
from ..base import CLASSES_ALONE, Collator, Task, stack_column
from ..label_kinds import CLASSES, NUMBERS
from ..targets import SINGLE_LABEL
from .table_columns import INPUT, is_category, is_number, table_columns, trained_columns
from .tabular_model import TabularMLPConfig, TabularMLPForPrediction
from .tabular_processor import TabularProcessor, as_numbers
from .target_scale import ScaleTargets

logger = logging.get_logger(__name__)


def require_table(dataset: Dataset, columns: Sequence[str], place: str) -> None:
    """Refuse a column that holds neither numbers nor categories, and the first number that is infinite."""
    for name in columns:
        kind = dataset.features[name]
        if is_number(kind):
            as_numbers(dataset[name][:], f"Column `{name}` of {place}")
        elif not is_category(kind) and kind != Value("null"):
            raise Refusal(
                f"Column `{name}` of {place} holds neither numbers nor text: found {_shown(kind)}. Turn it into one of "
                f"them, or leave it out: `ignore_columns: [{name}]`."
            )


def table_processor(model: ModelArguments, arguments: DataArguments, pool: Dataset) -> TabularProcessor:
    """Return the processor of a trained model, or one that is still to be fitted."""
    config = load_model_config(model, {})
    if not isinstance(config, TabularMLPConfig):
        raise Refusal(
            f"A {config.model_type} model does not read tables. Set `model_config: {{model_type: "
            f"{TabularMLPConfig.model_type}}}`, or name a folder with a model that such a run left."
        )
    source = model.processor_name_or_path or model.model_name_or_path
    if source is None:
        return TabularProcessor()
    try:
        processor = TabularProcessor.from_pretrained(source, revision=model.model_revision)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Refusal(f"Cannot load the processor of {source}: {error}") from error
    if not processor.columns:
        raise Refusal(f"The processor of {source} knows no columns. Name a folder that a tabular run left.")
    return processor


def fit_processor(processor: TabularProcessor, pool: Dataset, columns: Sequence[str], arguments: DataArguments) -> None:
    """Fit a processor that comes from no trained model to the inputs of the pool, labeled and unlabeled rows alike."""
    if processor.columns:
        return
    categories = [name for name in columns if is_category(pool.features[name])]
    coded = [name for name in arguments.categorical_columns or [] if name in columns]
    processor.fit(pool.select_columns(list(columns))[:], [*categories, *coded])
    logger.info(_described(processor))


def encode_table(
    dataset: Dataset, columns: Sequence[str], processor: TabularProcessor, arguments: DataArguments
) -> Dataset:
    """Return `dataset` with ``features``, (F,) float32, of the columns that `processor` was fitted to."""

    def encode(rows: Mapping[str, Sequence[Any]], numbers: Sequence[int]) -> dict[str, Any]:
        return {INPUT: processor(rows, first_row=numbers[0])[INPUT]}

    kinds = Features({**dataset.features, INPUT: SequenceFeature(Value("float32"))})
    encoded = dataset.map(encode, with_indices=True, batched=True, features=kinds, desc="Reading rows")
    return encoded.with_format("numpy", columns=[INPUT], output_all_columns=True)


def stack_rows(processor: TabularProcessor) -> Collator:
    """Return what stacks rows to a batch, with their labels where they have some."""
    return stack_column(INPUT)


def _described(processor: TabularProcessor) -> str:
    """Return what the inputs are, by name."""
    parts = {"numbers": processor.numbers, "categories": processor.categories}
    named = [
        f"{what} ({len(found)}): {listed(entry['column'] for entry in found)}" for what, found in parts.items() if found
    ]
    return f"Inputs: {'; '.join(named)}. Together {processor.num_features} features."


def _shown(kind: Any) -> str:
    return str(kind.dtype) if isinstance(kind, Value) else type(kind).__name__


def columns_of_model(
    processor: TabularProcessor, dataset: Dataset, arguments: DataArguments, label_column: str
) -> tuple[str, ...] | None:
    """Return the columns that a trained model reads, whatever else the data has; None for a new one."""
    if not processor.columns:
        return None
    columns = trained_columns(processor, dataset, arguments, label_column)
    logger.info(f"As the model was trained. {_described(processor)}")
    return columns


TABULAR_REGRESSION = Task(
    name="tabular_regression",
    load_processor=table_processor,
    auto_model=TabularMLPForPrediction,
    observable=features,
    labels=NUMBERS,
    find_columns=table_columns,
    columns_of_model=columns_of_model,
    check=require_table,
    encode=encode_table,
    collator=stack_rows,
    default_metrics={REGRESSION: ("rmse", "mae", "r2")},
    fit=fit_processor,
    refused_acquisitions=CLASSES_ALONE,
    model_fields=lambda processor: {"num_features": processor.num_features},
    callbacks=lambda: (ScaleTargets(),),
)
TABULAR_CLASSIFICATION = Task(
    name="tabular_classification",
    load_processor=table_processor,
    auto_model=TabularMLPForPrediction,
    observable=probabilities,
    labels=CLASSES,
    find_columns=table_columns,
    columns_of_model=columns_of_model,
    check=require_table,
    encode=encode_table,
    collator=stack_rows,
    default_metrics={SINGLE_LABEL: ("accuracy", "f1"), MULTI_LABEL: ("f1", "accuracy")},
    fit=fit_processor,
    model_fields=lambda processor: {"num_features": processor.num_features},
)
