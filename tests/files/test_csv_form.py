"""The form of csv files: separator, encoding and columns, and refusals that say file and line."""

import csv
import re
from pathlib import Path

import pytest

from hf_noise_al.files.csv_form import find_form, line_of_open_quote, line_of_record, refuse_wide_rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.csv"


@pytest.mark.parametrize(
    ("text", "separator", "columns"),
    [
        ("text,label\na,1\n", ",", ("text", "label")),
        ("text;label\na, b;1\nc;2\n", ";", ("text", "label")),
        ("text\tlabel\na, b; c\t1\n", "\t", ("text", "label")),
        ("text|label\na|1\n", "|", ("text", "label")),
        ('"text;long",label\na;b,1\n', ",", ("text;long", "label")),
        ("text (a|b),label\nc,1\n", ",", ("text (a|b)", "label")),
        (",text,label\n0,a,1\n", ",", ("Unnamed: 0", "text", "label")),
        ("\n \ntext,label\n", ",", ("text", "label")),
        ("text\nalone; really\n", ",", ("text",)),
        ("a;b;c\n1,2;3;4\n5,6;7;8\n", ";", ("a", "b", "c")),
    ],
)
def test_the_separator_is_told_by_header_and_rows(
    path: Path, text: str, separator: str, columns: tuple[str, ...]
) -> None:
    path.write_text(text)
    form = find_form(path)
    assert (form.separator, form.columns, form.rivals) == (separator, columns, ())


def test_what_else_would_fit_is_said(path: Path) -> None:
    path.write_text("id,name;alias\n1,a;b\n")
    form = find_form(path)
    assert (form.separator, form.rivals) == (",", (";",))
    tabs = path.with_suffix(".tsv")
    tabs.write_text("id,name\talias\n1,a\tb\n")
    assert find_form(tabs).separator == "\t", "the name of the file decides where both fit"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marks_of_an_encoding_are_understood_and_are_no_part_of_the_first_name(path: Path, encoding: str) -> None:
    path.write_bytes("größe,label\nä,1\n".encode(encoding))
    assert find_form(path).columns == ("größe", "label")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("text,label\nna\xefve,1\n".encode("latin-1"), "line 2: this is not UTF-8 text (the byte 0xef, as in Latin-1)"),
        (b"text,label\na,1\n" * 100_000 + b"\xe9", "line 200001: this is not UTF-8 text (the byte 0xe9"),
        ("text,label\n".encode("utf-16")[:-1], "line 1: this is not UTF-16 text (the byte"),
        (b"text,label,text\n", "line 1: the column `text` stands twice in the header. Rename one of them."),
        (b"text,label\n\"a\nb\",1\nc,2,3,''\n", "line 4: found 4 cells, and the header has 2 (text, label); too many:"),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_and_line(path: Path, data: bytes, message: str) -> None:
    path.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(f"{path}, {message}")):
        find_form(path)


@pytest.mark.parametrize("text", ["", "\n", "\ufeff", " \r\n"])
def test_a_file_without_a_header_is_empty(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{path}: the file is empty. Name another")):
        find_form(path)


def test_a_wide_row_is_found_wherever_it_is(path: Path) -> None:
    path.write_text("text,label\n" + "a,1\n" * 5000 + "b,2, c\n")
    form = find_form(path)
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 5002: found 3 cells, and the header has 2")):
        refuse_wide_rows(path, form)


def test_cells_may_be_long_and_the_limit_of_others_stays(path: Path) -> None:
    path.write_text(f'text,label\n"{"long " * 400_000}",1\nshort,2\n')
    before = csv.field_size_limit()
    assert find_form(path).columns == ("text", "label")
    assert line_of_record(path, 1) == 3
    assert csv.field_size_limit() == before


def test_lines_are_those_of_an_editor(path: Path) -> None:
    path.write_bytes(b'text;label\r\n"a\r\n\r\nb";1\r\n\r\n  \r\n"c ""d""";2\r\ne;3\r\n;\r\n')
    assert [line_of_record(path, row) for row in range(5)] == [2, 7, 8, 9, None]


def test_the_row_of_an_open_quote_is_the_last(path: Path) -> None:
    path.write_text('text,label\na,1\n"b,2\nc,3\n')
    assert line_of_open_quote(path, find_form(path)) == 3
