"""Annotators: every row asked for gets its label, or an error that names it."""

import json
from pathlib import Path

import pytest
from datasets import Dataset

from hf_noise_al.annotators import Annotator, HeldOutLabels, LabelFile
from hf_noise_al.query_file import write_query_file


def test_held_out_labels_are_revealed_in_the_order_asked() -> None:
    annotator = HeldOutLabels([0, 1.5, [1, 0], "a"])
    assert isinstance(annotator, Annotator)
    assert annotator.annotate([3, 0, 2]) == ["a", 0, [1, 0]]
    assert annotator.annotate([]) == []


@pytest.mark.parametrize("row", [-1, 2])
def test_held_out_labels_name_a_row_outside(row: int) -> None:
    with pytest.raises(ValueError, match=f"Row {row} has no held-out label: there are 2 of them"):
        HeldOutLabels([0, 1]).annotate([0, row])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.jsonl"


def test_label_file_answers_in_the_order_asked(path: Path) -> None:
    path.write_text('{"row": 3, "label": 1, "text": "x"}\n\n{"label": [0, 1], "row": 0}\n  \n{"row": 5, "label": null}')
    assert LabelFile(path).annotate([0, 3]) == [[0, 1], 1]
    assert LabelFile(str(path)).annotate([3]) == [1]


def test_label_file_is_read_anew_at_each_query(path: Path) -> None:
    annotator = LabelFile(path)
    with pytest.raises(ValueError, match=r"There is no label file .*labels\.jsonl"):
        annotator.annotate([0])
    path.write_text('{"row": 0, "label": 1}\n')
    assert annotator.annotate([0]) == [1]
    path.write_text('{"row": 0, "label": 2}\n')
    assert annotator.annotate([0]) == [2]


def test_label_file_counts_what_is_missing(path: Path) -> None:
    path.write_text('{"row": 0, "label": 1}\n{"row": 7, "label": null}\n')
    with pytest.raises(
        ValueError, match=r"no label for 2 of the 3 rows .* first is row 7\. .*\"row\": 7, \"label\": 0"
    ):
        LabelFile(path).annotate([0, 7, 8])


@pytest.mark.parametrize(
    "line",
    [
        "[1, 2]",
        "3",
        "{",
        '{"row": 1}',
        '{"label": 1}',
        '{"row": "1", "label": 0}',
        '{"row": [1], "label": 0}',
        "null",
        '{"row": 1.0, "label": 0}',
        '{"row": true, "label": 0}',
        '{"row": null, "label": 0}',
    ],
)
def test_label_file_names_a_line_that_is_wrong(path: Path, line: str) -> None:
    path.write_text('{"row": 0, "label": 1}\n' + line + "\n")
    with pytest.raises(ValueError, match=r'labels\.jsonl, line 2: expected a JSON object with "row" and "label"'):
        LabelFile(path).annotate([0])


def test_label_file_refuses_two_labels_and_takes_the_same_twice(path: Path) -> None:
    path.write_text('{"row": 0, "label": 1}\n{"row": 0, "label": 1}\n')
    assert LabelFile(path).annotate([0]) == [1]
    path.write_text('{"row": 0, "label": 1}\n{"row": 0, "label": null}\n{"row": 0, "label": 2}\n')
    with pytest.raises(ValueError, match="line 3: row 0 has two labels, 1 and 2"):
        LabelFile(path).annotate([0])


def test_label_file_hands_on_a_label_that_is_no_number(path: Path) -> None:
    path.write_text('{"row": 0, "label": NaN}\n')
    assert str(LabelFile(path).annotate([0])) == "[nan]"


@pytest.mark.parametrize("start, end", [("", "\n"), ("\ufeff", "\r\n")], ids=["unix", "windows"])
def test_label_file_reads_what_editors_write(path: Path, start: str, end: str) -> None:
    lines = ['{"row": 0, "label": "ja"}', '{"row": 1, "label": "n\u00e9in"}']
    path.write_bytes((start + end.join(lines) + end).encode())
    assert LabelFile(path).annotate([1, 0]) == ["n\u00e9in", "ja"]


def test_label_file_reads_a_query_file_whatever_is_in_the_texts(path: Path) -> None:
    text = 'next line \x85, line separator \u2028, paragraph \u2029, form feed \x0c, quote " and \n'
    dataset = Dataset.from_dict({"text": [text, "b"]})
    write_query_file(path, dataset, [1, 0], [0.5, 0.25], [None, 1])
    with pytest.raises(ValueError, match="no label for 1 of the 2 rows"):
        LabelFile(path).annotate([0, 1])
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    path.write_text(
        "".join(json.dumps({**e, "label": 0}, ensure_ascii=False) + "\n" for e in entries), encoding="utf-8"
    )
    assert LabelFile(path).annotate([0, 1]) == [0, 0]


def test_a_folder_of_query_files_is_one_label_file(tmp_path: Path) -> None:
    (tmp_path / "round-00.jsonl").write_text('{"row": 3, "label": 1}\n')
    (tmp_path / "round-01.jsonl").write_text('{"row": 5, "label": null}\n')
    folder = LabelFile(tmp_path)
    assert folder.annotate([3]) == [1]
    with pytest.raises(ValueError, match=r"no label for 1 of the 2 rows .* row 5\. Fill in the labels in .*round-01"):
        folder.annotate([3, 5])
    with pytest.raises(ValueError, match="There is no label file"):
        LabelFile(tmp_path / "nowhere").annotate([0])
