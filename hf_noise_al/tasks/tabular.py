"""Rows of a table, with numbers, categories and missing values, to one number or to one class of several."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, Features, Value
from datasets import Sequence as SequenceFeature
from transformers.utils import logging

from ..arguments import DataArguments, ModelArguments
from ..labeled_split import LABEL_COLUMNS
from ..loading import load_model_config
from ..observables import features, probabilities
from ..shown_text import listed
from .base import CLASSES_ALONE, Collator, Task, stack_column
from .columns import require_column
from .tabular_model import TabularMLPConfig, TabularMLPForPrediction
from .tabular_processor import TabularProcessor, as_categories, as_numbers
from .target_scale import ScaleTargets
from .targets import CLASSES, MULTI_LABEL, NUMBERS, REGRESSION, SINGLE_LABEL, LabelKind, Targets, with_targets

logger = logging.get_logger(__name__)

_INPUT = "features"
_FEW_ROWS = 20  # so few may be all different by chance


def table_columns(dataset: Dataset, arguments: DataArguments, label_column: str) -> tuple[str, ...]:
    """Return the columns asked for, else all; without those to ignore, labels, and the numbers of rows in a file."""
    if _INPUT in dataset.column_names:
        raise ValueError(f"The data has a column `{_INPUT}`, the name of the model's input. Rename the column.")
    asked, ignored = arguments.feature_columns, arguments.ignore_columns or []
    roles = {"feature_columns": asked or [], "ignore_columns": ignored}
    roles["categorical_columns"] = arguments.categorical_columns or []
    for role, names in roles.items():
        for name in names:
            require_column(dataset, name, role)
    if label_column in (asked or []):
        raise ValueError(f"`feature_columns` names the label, `{label_column}`. Leave it out.")
    without = {label_column, *LABEL_COLUMNS, *ignored}
    columns = tuple(name for name in asked or dataset.column_names if name not in without)
    if not columns:
        raise ValueError(
            f"No input column is left of: {listed(dataset.column_names)}. Name some with `feature_columns`, or "
            "fewer with `ignore_columns`."
        )
    return columns


def require_table(dataset: Dataset, columns: Sequence[str], place: str) -> None:
    """Refuse a column that holds neither numbers nor categories, and the first number that is infinite."""
    for name in columns:
        kind = dataset.features[name]
        if _is_number(kind):
            as_numbers(dataset[name][:], f"Column `{name}` of {place}")
        elif not _is_category(kind) and kind != Value("null"):
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
    kinds = {name: pool.features[name] for name in columns}
    categories = [name for name in columns if _is_category(kinds[name])]
    table = pool.select_columns(list(columns))[:]
    for name in columns:
        _require_categories(table[name], name) if name in categories else _tell_row_numbers(table[name], name)
    coded = [name for name in arguments.categorical_columns or [] if name in columns]
    processor.fit(table, [*categories, *coded])
    logger.info(
        f"{len(columns)} columns are {processor.num_features} features: {len(processor.numbers)} numbers, and "
        f"{processor.num_features - len(processor.numbers)} values of {len(processor.categories)} categories."
    )


def encode_table(
    dataset: Dataset, columns: Sequence[str], processor: TabularProcessor, arguments: DataArguments
) -> Dataset:
    """Return `dataset` with ``features``, (F,) float32, of the columns that `processor` was fitted to."""

    def encode(rows: Mapping[str, Sequence[Any]], numbers: Sequence[int]) -> dict[str, Any]:
        return {_INPUT: processor(rows, first_row=numbers[0])[_INPUT]}

    kinds = Features({**dataset.features, _INPUT: SequenceFeature(Value("float32"))})
    encoded = dataset.map(encode, with_indices=True, batched=True, features=kinds, desc="Reading rows")
    return encoded.with_format("numpy", columns=[_INPUT], output_all_columns=True)


def stack_rows(processor: TabularProcessor) -> Collator:
    """Return what stacks rows to a batch, with their labels where they have some."""
    return stack_column(_INPUT)


def with_numbers(dataset: Dataset, column: str, targets: Targets, place: str, complete: bool) -> Dataset:
    """Return what `with_targets` does, also where one value that is no number made a file's column text."""
    if dataset.features[column] in (Value("string"), Value("large_string")):
        numbers = [_number(value, column, row, place) for row, value in enumerate(dataset[column])]
        dataset = dataset.remove_columns(column).add_column(column, numbers, feature=Value("float64"))
    return with_targets(dataset, column, targets, place, complete)


def _require_categories(values: Sequence[Any], name: str) -> None:
    known = [value for value in as_categories(values) if value]
    if len(known) >= _FEW_ROWS and len(set(known)) == len(known):
        raise ValueError(
            f"Column `{name}` of the pool has another text in each of its {len(known):,} rows, such as {known[0]!r}: "
            f"nothing is learned from that. Leave it out: `ignore_columns: [{name}]`."
        )


def _tell_row_numbers(values: Sequence[Any], name: str) -> None:
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    if whole and len(values) >= _FEW_ROWS and all(a < b for a, b in itertools.pairwise(values)):
        logger.warning(
            f"Column `{name}` rises from row to row. If it only numbers the rows, leave it out: "
            f"`ignore_columns: [{name}]`."
        )


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


def _is_number(kind: Any) -> bool:
    return isinstance(kind, Value) and kind.dtype.startswith(("int", "uint", "float", "bool", "decimal"))


def _is_category(kind: Any) -> bool:
    return isinstance(kind, ClassLabel) or (isinstance(kind, Value) and kind.dtype in ("string", "large_string"))


def _shown(kind: Any) -> str:
    return str(kind.dtype) if isinstance(kind, Value) else type(kind).__name__


TABULAR_REGRESSION = Task(
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
TABULAR_CLASSIFICATION = Task(
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
