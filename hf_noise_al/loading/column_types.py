"""What the cells of a column are, by all of them: whole numbers, numbers, true or false, or text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
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
_BLOCK, _FEW = 20_000, 100  # cells


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
    for cells in (cells for part in parts for cells in _blocks(part)):
        known = _without(pc.utf8_trim_whitespace(cells), ["", *words]).drop_null()
        gaps = gaps or len(known) < len(cells)
        if not len(known):
            worded = worded or bool(count_words(pa.chunked_array([cells]), words))
            continue
        seen = True
        for some in (known[:_FEW], known):  # few are enough to see that most columns are not most kinds
            possible = [name for name in possible if pc.all(pc.match_substring_regex(some, _PATTERNS[name])).as_py()]
        if not possible:
            return TEXT
        if possible[0] == "whole":
            try:
                bounds = pc.min_max(pc.cast(known, pa.int64())).as_py()
                largest = max(largest, -bounds["min"], bounds["max"])
            except pa.ArrowInvalid:
                largest = 2**64
    if not seen:
        return TEXT if worded and not is_label else EMPTY
    if possible[0] == "whole" and largest == 2**64:  # more than is kept as a number
        return TEXT
    types = {"truth": pa.bool_(), "whole": pa.float64() if gaps and largest <= _EXACT else pa.int64()}
    return Kind(possible[0], types.get(possible[0], pa.float64()))


def as_kind(part: pa.ChunkedArray, kind: Kind, words: Collection[str]) -> pa.ChunkedArray:
    """Return the cells of `part` as what they are; blanks around numbers go, and `words` are null."""
    if kind.type is None:
        return pa.chunked_array([_without(cells, words) for cells in _blocks(part)], type=part.type)
    return pa.chunked_array([_typed(cells, kind, words) for cells in _blocks(part)], type=kind.type)


def count_words(part: pa.ChunkedArray, words: Collection[str]) -> Counter[str]:
    """Return how often each of `words` is a cell of `part`."""
    found: Counter[str] = Counter()
    for cells in _blocks(part):
        trimmed = pc.utf8_trim_whitespace(cells)
        found.update(trimmed.filter(_are(trimmed, words)).to_pylist())
    return found


def _blocks(part: pa.ChunkedArray) -> Iterator[pa.Array]:
    """Yield the cells of `part` in arrays that are neither small, as its chunks are, nor all of it."""
    for start in range(0, len(part), _BLOCK):
        yield pa.concat_arrays(part.slice(start, _BLOCK).chunks)


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
    numbers = pd.to_numeric(cells.to_numpy(zero_copy_only=False))
    return pa.array(numbers.astype("float64"), type=kind.type, from_pandas=True)


def _without(cells: pa.Array, words: Collection[str]) -> pa.Array:
    """Return `cells` with null in the place of `words`, blanks around them or not."""
    missing = _are(pc.utf8_trim_whitespace(cells), words)
    return pc.if_else(missing, pa.scalar(None, cells.type), cells)


def _are(cells: pa.Array, words: Collection[str]) -> pa.Array:
    return pc.is_in(cells, value_set=pa.array(sorted(words), cells.type))
