"""Find the columns that a task reads, and refuse what it cannot read with the column, the row and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from datasets import Dataset, Image, Value

from ..files.shown_text import listed
from ..loading.data import LABELS
from ..pool.places import row_at
from ..refusals import Refusal
from ..settings.recipe import did_you_mean

TEXT_PAIRS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
)
TEXTS = ("text", "sentence")
IMAGES = ("image", "img")


def find_label_column(dataset: Dataset, label_column: str | None, names: Sequence[str] = LABELS) -> str:
    """Return the label column: the one asked for, else the first of `names` that is there."""
    if label_column is not None:
        return require_column(dataset, label_column, "label_column")
    for name in names:
        if name in dataset.column_names:
            return name
    raise Refusal(
        f"Found no label column. Set `label_column` to one of: {listed(dataset.column_names)}. "
        "(A pool without any label needs an empty column of that name.)"
    )


def find_text_columns(dataset: Dataset, text: str | None, pair: str | None, label: str | None) -> tuple[str, ...]:
    """Return one or two text columns: those asked for, else a known pair, a known name, or the only text there is."""
    if text is not None:
        names = (text,) if pair is None else (text, pair)
        roles = ("text_column", "text_pair_column")
        return tuple(require_column(dataset, name, role) for name, role in zip(names, roles, strict=False))
    if pair is not None:
        raise Refusal(f"`text_pair_column: {pair}` is the second text. Set `text_column` to the first one.")
    known: tuple[tuple[str, ...], ...] = (*TEXT_PAIRS, *((name,) for name in TEXTS))
    for candidate in known:
        if set(candidate) <= set(dataset.column_names) - {label}:
            return candidate
    texts: list[str] = [name for name in dataset.column_names if name != label and _is_text(dataset, name)]
    if len(texts) == 1:
        return (texts[0],)
    raise Refusal(
        f"Cannot tell which column is the text. Set `text_column` (and `text_pair_column`) to one of: "
        f"{listed(texts or dataset.column_names)}."
    )


def find_image_column(dataset: Dataset, image: str | None) -> str:
    """Return the image column: the one asked for, else a known name, else the only column of type Image."""
    if image is not None:
        return require_column(dataset, image, "image_column")
    typed: list[str] = [name for name, feature in dataset.features.items() if isinstance(feature, Image)]
    candidates: tuple[str, ...] = (*IMAGES, *(typed if len(typed) == 1 else ()))
    for candidate in candidates:
        if candidate in dataset.column_names:
            return candidate
    raise Refusal(
        f"Cannot tell which column is the image. Set `image_column` to one of: {listed(dataset.column_names)}."
    )


def require_column(dataset: Dataset, name: str, role: str) -> str:
    """Return `name` if `dataset` has that column."""
    if name in dataset.column_names:
        return name
    raise Refusal(
        f"The data has no column `{name}` (`{role}`).{did_you_mean(name, dataset.column_names)} "
        f"It has: {listed(dataset.column_names)}."
    )


def require_texts(dataset: Dataset, columns: Sequence[str], place: str) -> None:
    """Refuse the first value of `columns` that is not a string."""
    for name in columns:
        if _is_text(dataset, name) and not dataset.data.column(name).null_count:
            continue
        row, found = _first_not_text(dataset[name])
        if row is not None:
            raise Refusal(
                f"Column `{name}` of {place} is not text in {row_at(place, row)}: found {_shown(found)}. "
                "Fill or remove such rows, or name another `text_column`."
            )


def _first_not_text(values: Iterable[object]) -> tuple[int | None, object]:
    return next(((row, value) for row, value in enumerate(values) if not isinstance(value, str)), (None, None))


def _is_text(dataset: Dataset, name: str) -> bool:
    feature = dataset.features[name]
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
