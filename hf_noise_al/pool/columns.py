"""Columns of a data set: names with a meaning of ours, what a column holds, which classes it declares."""

from __future__ import annotations

from collections.abc import Collection

from datasets import ClassLabel, Value

LABEL_COLUMNS = ("labels", "label", "label_ids")
ID_COLUMN = "id"
"""Column that names each row for people, where no other is named."""
NUM_WORDS = "num_words"
"""Column that says how many words a row has, where each of them needs a tag of its own."""


def item_feature(feature: object) -> object:
    """Return the feature of the items of a list column, in any of the forms that `datasets` has for lists, or None."""
    return feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)


def declared_classes(feature: object, levels: float = 1) -> list[str] | None:
    """Return the classes that a column of type `feature` declares, itself or as the items of its lists; else None.

    Lists may stand in lists, `levels` deep.
    """
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    item = item_feature(feature)
    return None if item is None or levels < 1 else declared_classes(item, levels - 1)


def column_beside(name: str, taken: Collection[str] = ()) -> str:
    """Return a new name for a column whose `name` has a meaning of ours; none of those `taken`.

    Example:
        >>> column_beside("label")
        'label (column)'
        >>> column_beside("label", ["label (column)"])
        'label (column) (column)'
    """
    beside = f"{name} (column)"
    return column_beside(beside, taken) if beside in taken else beside


def is_text(kind: object) -> bool:
    """Return whether a column of type `kind` holds texts."""
    return isinstance(kind, Value) and kind.dtype in ("string", "large_string")
