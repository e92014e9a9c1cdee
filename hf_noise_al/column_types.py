"""What the cells of a column are, by all of them: whole numbers, numbers, true or false, or text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

MISSING_WORDS = frozenset(
    "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null".split("|")
)
"""Words that pandas takes for a missing value."""
_POWER = "([eE][-+]?[0-9]+)?"
_WHOLE = "0|[1-9][0-9]*"  # not 007 and not +7, which are names of something
_PATTERNS = {
    "truth": "^(True|TRUE|true|False|FALSE|false)$",
    "whole": f"^-?({_WHOLE})$",
    "number": rf"^-?((({_WHOLE})(\.[0-9]*)?|\.[0-9]+){_POWER}|(?i:inf|infinity))$",
    "comma": f"^-?(({_WHOLE})(,[0-9]*)?|,[0-9]+){_POWER}$",
}
_EXACT = 2**53  # whole numbers up to here are floats, too


@dataclass(frozen=True)
class Kind:
    """What a column is."""

    name: str
    """``truth``, ``whole``, ``number``, ``comma`` (numbers with a decimal comma), ``text`` or ``empty``."""
    type: pa.DataType | None
    """What its values become; None leaves them as they are."""


TEXT, EMPTY = Kind("text", None), Kind("empty", pa.float64())


def find_kind(parts: Sequence[pa.ChunkedArray], words: Collection[str], decimal_comma: bool, is_label: bool) -> Kind:
    """Return what the cells of `parts`, all text or null, are together.

    Whole numbers with gaps are floats, as pandas has them, unless one is too large for that.

    Args:
        parts: The column, of every file.
        words: What stands for a missing value.
        decimal_comma: Whether numbers may have a decimal comma.
        is_label: Whether a column of such words alone is empty, and not text.
    """
    possible = [name for name in _PATTERNS if decimal_comma or name != "comma"]
    largest, gaps, seen, worded = 0, False, False, False
    for chunk in (chunk for part in parts for chunk in part.chunks):
        cells = _without(pc.utf8_trim_whitespace(chunk), ["", *words])
        known = cells.drop_null()
        worded = worded or _count(cells) < _count(chunk)
        gaps = gaps or bool(cells.null_count)
        if not len(known):
            continue
        seen = True
        possible = [name for name in possible if pc.all(pc.match_substring_regex(known, _PATTERNS[name])).as_py()]
        if possible[:1] == ["whole"]:
            try:
                bounds = pc.min_max(pc.cast(known, pa.int64())).as_py()
                largest = max(largest, -bounds["min"], bounds["max"])
            except pa.ArrowInvalid:
                largest = 2**64
        elif not possible:
            return TEXT
    if not seen:
        return TEXT if worded and not is_label else EMPTY
    if possible[0] == "whole" and largest == 2**64:  # more than is kept as a number
        return TEXT
    types = {"truth": pa.bool_(), "whole": pa.float64() if gaps and largest <= _EXACT else pa.int64()}
    return Kind(possible[0], types.get(possible[0], pa.float64()))


def as_kind(part: pa.ChunkedArray, kind: Kind, words: Collection[str]) -> pa.ChunkedArray:
    """Return the cells of `part` as what they are; blanks around numbers go, and `words` are null."""
    if kind.type is None:
        return pa.chunked_array([_without(chunk, words) for chunk in part.chunks], type=part.type)
    return pa.chunked_array([_typed(chunk, kind, words) for chunk in part.chunks], type=kind.type)


def count_words(part: pa.ChunkedArray, words: Collection[str]) -> Counter[str]:
    """Return how often each of `words` is a cell of `part`."""
    found: Counter[str] = Counter()
    for chunk in part.chunks:
        trimmed = pc.utf8_trim_whitespace(chunk)
        told = trimmed.filter(pc.is_in(trimmed, value_set=pa.array(sorted(words), trimmed.type)))
        found.update(told.to_pylist())
    return found


def _typed(chunk: pa.Array, kind: Kind, words: Collection[str]) -> pa.Array:
    cells = _without(pc.utf8_trim_whitespace(chunk), ["", *words])
    if kind.name == "empty":
        return pa.nulls(len(cells), kind.type)
    if kind.name == "truth":
        return pc.cast(pc.utf8_lower(cells), kind.type)
    if kind.name == "whole":
        return pc.cast(pc.cast(cells, pa.int64()), kind.type)
    if kind.name == "comma":
        cells = pc.replace_substring(cells, ",", ".")
    # by the parser of pandas: whoever has read the file so far has these bits
    numbers = pd.to_numeric(pd.Series(cells.to_pylist(), dtype=object)).to_numpy(dtype="float64")
    return pa.array(numbers, type=kind.type, from_pandas=True)


def _without(cells: pa.Array, words: Collection[str]) -> pa.Array:
    """Return `cells` with null in the place of `words`, blanks around them or not."""
    trimmed = pc.utf8_trim_whitespace(cells)
    missing = pc.is_in(trimmed, value_set=pa.array(sorted(words), trimmed.type))
    return pc.if_else(missing, pa.scalar(None, cells.type), cells)


def _count(cells: pa.Array) -> int:
    """Return how many of `cells` hold more than blanks."""
    return int(pc.sum(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(cells)), 0)).as_py() or 0)
