"""Rows of a table, with numbers, categories and missing values, to one number or to one class of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset, Features, Value
from datasets import Sequence as SequenceFeature
from transformers.utils import logging

from ..arguments import DataArguments, ModelArguments
from ..loading import load_model_config
from ..observables import features, probabilities
from ..shown_text import listed
from .base import CLASSES_ALONE, Collator, Prepared, Task, stack_column
from .table_columns import INPUT, is_category, is_number, table_columns, trained_columns
from .tabular_model import TabularMLPConfig, TabularMLPForPrediction
from .tabular_processor import TabularProcessor, as_numbers
from .target_scale import ScaleTargets
from .targets import CLASSES, MULTI_LABEL, NUMBERS, REGRESSION, SINGLE_LABEL, LabelKind, Targets, with_targets

logger = logging.get_logger(__name__)


def require_table(dataset: Dataset, columns: Sequence[str], place: str) -> None:
    """Refuse a column that holds neither numbers nor categories, and the first number that is infinite."""
    for name in columns:
        kind = dataset.features[name]
        if is_number(kind):
            as_numbers(dataset[name][:], f"Column `{name}` of {place}")
        elif not is_category(kind) and kind != Value("null"):
            raise ValueError(
                f"Column `{name}` of {place} holds neither numbers nor text: found {_shown(kind)}. Turn it into one of "
                f"them, or leave it out: `ignore_columns: [{name}]`."
            )


def table_processor(model: ModelArguments, arguments: DataArguments, pool: Dataset) -> TabularProcessor:
    """Return the processor of a trained model, or one that is still to be fitted."""
    config = load_model_config(model, {})
    if not isinstance(config, TabularMLPConfig):
        raise ValueError(
            f"A {config.model_type} model does not read tables. Set `model_config: {{model_type: "
            f"{TabularMLPConfig.model_type}}}`, or name a folder with a model that such a run left."
        )
    source = model.processor_name_or_path or model.model_name_or_path
    if source is None:
        return TabularProcessor()
    try:
        processor = TabularProcessor.from_pretrained(source, revision=model.model_revision)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"Cannot load the processor of {source}: {error}") from error
    if not processor.columns:
        raise ValueError(f"The processor of {source} knows no columns. Name a folder that a tabular run left.")
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


def with_numbers(dataset: Dataset, column: str, targets: Targets, place: str, complete: bool) -> Dataset:
    """Return what `with_targets` does, also where one value that is no number made a file's column text."""
    if dataset.features[column] in (Value("string"), Value("large_string")):
        numbers = [_number(value, column, row, place) for row, value in enumerate(dataset[column])]
        dataset = dataset.remove_columns(column).add_column(column, numbers, feature=Value("float64"))
    return with_targets(dataset, column, targets, place, complete)


def _number(value: str | None, column: str, row: int, place: str) -> float | None:
    if value is None or not value.strip():
        return None
    try:
        return float(value)
    except ValueError:
        raise ValueError(
            f"Column `{column}` of {place} is not a number in row {row}: found {value!r}. Correct the row; for classes "
            "use `task: tabular_classification`."
        ) from None


def _described(processor: TabularProcessor) -> str:
    """Return what the inputs are, by name."""
    parts = {"numbers": processor.numbers, "categories": processor.categories}
    named = [
        f"{what} ({len(found)}): {listed(entry['column'] for entry in found)}" for what, found in parts.items() if found
    ]
    return f"Inputs: {'; '.join(named)}. Together {processor.num_features} features."


def _shown(kind: Any) -> str:
    return str(kind.dtype) if isinstance(kind, Value) else type(kind).__name__


@dataclass(frozen=True)
class TableTask(Task):
    """A task whose inputs, where the model is trained already, are the columns that it was trained with."""

    def prepare(
        self,
        pool: Dataset,
        evaluation: Dataset | Mapping[str, Dataset],
        processor: Any,
        arguments: DataArguments,
        label_column: str | None = None,
    ) -> Prepared:
        """Do what `Task.prepare` does."""
        return Task.prepare(self._of(processor), pool, evaluation, processor, arguments, label_column)

    def prepare_query(
        self, pool: Dataset, processor: Any, arguments: DataArguments, config: Any, label_column: str | None = None
    ) -> Prepared:
        """Do what `Task.prepare_query` does."""
        return Task.prepare_query(self._of(processor), pool, processor, arguments, config, label_column)

    def _of(self, processor: TabularProcessor) -> TableTask:
        def find(dataset: Dataset, arguments: DataArguments, label_column: str) -> tuple[str, ...]:
            columns = trained_columns(processor, dataset, arguments, label_column)
            logger.info(f"As the model was trained. {_described(processor)}")
            return columns

        return replace(self, find_columns=find) if processor.columns else self


TABULAR_REGRESSION = TableTask(
    name="tabular_regression",
    load_processor=table_processor,
    auto_model=TabularMLPForPrediction,
    observable=features,
    labels=LabelKind(NUMBERS.read, NUMBERS.trained, with_numbers),
    find_columns=table_columns,
    check=require_table,
    encode=encode_table,
    collator=stack_rows,
    default_metrics={REGRESSION: ("rmse", "mae", "r2")},
    fit=fit_processor,
    refused_acquisitions=CLASSES_ALONE,
    model_fields=lambda processor: {"num_features": processor.num_features},
    callbacks=lambda: (ScaleTargets(),),
)
TABULAR_CLASSIFICATION = TableTask(
    name="tabular_classification",
    load_processor=table_processor,
    auto_model=TabularMLPForPrediction,
    observable=probabilities,
    labels=CLASSES,
    find_columns=table_columns,
    check=require_table,
    encode=encode_table,
    collator=stack_rows,
    default_metrics={SINGLE_LABEL: ("accuracy", "f1"), MULTI_LABEL: ("f1", "accuracy")},
    fit=fit_processor,
    model_fields=lambda processor: {"num_features": processor.num_features},
)
