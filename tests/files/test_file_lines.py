"""Lines of rows in data files, for messages."""

from pathlib import Path

import pytest

from hf_noise_al.files.file_lines import line_of_row

PRETTY = '{\n "text": "a"\n}\n'


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("rows.csv", 'text,label\n"a\nb",1\n\nc,2\n', [2, 5, None]),
        ("rows.tsv", "text\tlabel\na\t1\n", [2, None]),
        ("rows.jsonl", '\ufeff{"a": 1}\n\n  \n{"a": 2}\n', [1, 4, None]),
        ("rows.json", '{"a": 1}\r\n{"a": 2}\r\n', [1, 2, None]),
        ("rows.json", '[{"a": 1},\n{"a": 2}]\n', [None, None]),
        ("rows.json", PRETTY, [None]),
        ("rows.parquet", "PAR1", [None]),
    ],
)
def test_rows_are_counted_as_the_file_is_read(tmp_path: Path, name: str, text: str, lines: list[int | None]) -> None:
    path = tmp_path / name
    path.write_text(text, newline="")
    assert [line_of_row(path, row) for row in range(len(lines))] == lines
    assert line_of_row(path, -1) is None
