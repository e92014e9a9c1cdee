"""Types of columns, by all of their cells."""

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import pytest
from pandas._libs.parsers import STR_NA_VALUES

from hf_noise_al.loading.column_types import MISSING_WORDS, Kind, as_kind, count_words, find_kind

WORDS = MISSING_WORDS


def column(*parts: Sequence[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(part, pa.string()) for part in parts], type=pa.string())


def kind_of(*parts: Sequence[str | None], comma: bool = False, is_label: bool = False) -> Kind:
    return find_kind([column(*parts)], WORDS, comma, is_label)


def test_the_words_are_those_of_pandas() -> None:
    assert set(MISSING_WORDS) == set(STR_NA_VALUES) - {""}


@pytest.mark.parametrize(
    ("cells", "name", "values"),
    [
        (["1", "-2", " 3 "], "whole", [1, -2, 3]),
        (["1", None, "NA", " "], "whole", [1.0, None, None, None]),
        (["9007199254740993", None], "whole", [9007199254740993, None]),
        (["1", "2.50", ".5", "5.", "-1e3", "n/a"], "number", [1.0, 2.5, 0.5, 5.0, -1000.0, None]),
        (["1.5", "-inf", "Infinity"], "number", [1.5, float("-inf"), float("inf")]),
        (["True", "false", "TRUE", None], "truth", [True, False, True, None]),
        ([None, None], "empty", [None, None]),
        (["01", "02"], "text", ["01", "02"]),
        (["+49", "50"], "text", ["+49", "50"]),
        (["99999999999999999999", "1"], "text", ["99999999999999999999", "1"]),
        (["99999999999999999999", "1.5"], "number", [1e20, 1.5]),
        (["1", "x "], "text", ["1", "x "]),
        (["true", "1"], "text", ["true", "1"]),
        (["0x10"], "text", ["0x10"]),
        (["1_000"], "text", ["1_000"]),
        (["NA", None], "text", ["NA", None]),
        (["2020-01-01"], "text", ["2020-01-01"]),
        (["3,5"], "text", ["3,5"]),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 20_000])
def test_a_column_is_what_all_of_its_cells_are(
    cells: list[str | None], name: str, values: list[object], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_noise_al.loading.column_types._BLOCK", block)
    for parts in ([cells], [[cell] for cell in cells], [[], cells[:1], cells[1:]]):
        kind = kind_of(*parts)
        assert kind.name == name
        found = as_kind(column(*parts), kind, WORDS if kind.type is not None else ())
        assert found.to_pylist() == values
        assert [type(value) for value in found.to_pylist()] == [type(value) for value in values]


def test_a_decimal_comma_counts_where_it_may() -> None:
    assert kind_of(["3,5", "4", " -0,25 "], comma=True).name == "comma"
    typed = as_kind(column(["3,5", "4", " -0,25 "]), kind_of(["3,5", "4", " -0,25 "], comma=True), WORDS)
    assert typed.to_pylist() == [3.5, 4.0, -0.25]
    for cells in (["3,5", "1.5"], ["1.234,5"], ["3,5", "x"], ["1,2,3"]):
        assert kind_of(cells, comma=True).name == "text"
    assert kind_of(["3", "1.5"], comma=True).name == "number"


def test_a_label_of_such_words_alone_is_empty_and_other_text_is_text() -> None:
    assert kind_of(["NA", None]).name == "text"
    assert kind_of(["NA", None], is_label=True).name == "empty"


def test_parts_have_one_type_together() -> None:
    assert find_kind([column(["1", "2"]), column(["a"])], WORDS, False, False).name == "text"
    together = find_kind([column(["1", "2"]), column([None])], WORDS, False, False)
    assert (together.name, together.type) == ("whole", pa.float64())


def test_words_are_counted_as_they_stand() -> None:
    assert count_words(column(["NA", " NA", "x"], ["n/a", None]), WORDS) == {"NA": 2, "n/a": 1}
    kept = as_kind(column(["NA", " x ", ""]), kind_of(["a"]), {"NA"})
    assert kept.to_pylist() == [None, " x ", ""]


def test_numbers_have_the_bits_that_pandas_gives_them() -> None:
    cells = [repr(number / 7 * 10.0 ** (number % 60 - 30)) for number in range(2000)]
    expected = pd.to_numeric(pd.Series(cells)).tolist()
    assert as_kind(column(cells), kind_of(cells), WORDS).to_pylist() == expected
