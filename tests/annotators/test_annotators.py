"""Annotators: every row asked for gets its label, or an error that names it."""

import json
import os
from pathlib import Path

import pytest
from datasets import Dataset

from hf_noise_al.annotators import Annotator, HeldOutLabels, LabelFile
from hf_noise_al.annotators.label_file import KnownRows, new_classes_in
from hf_noise_al.exchange.query_file import write_query_file
from hf_noise_al.pool.pool import Label


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
    path.write_text('{"row": 0, "label": [NaN]}\n')
    assert str(LabelFile(path).annotate([0])) == "[[nan]]"


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


def known(told: dict[int, Label] | None = None) -> KnownRows:
    """What a run of the classes a, b and c knows of its rows."""

    def read(row: int, label: object) -> int:
        if label not in ("a", "b", "c", 0, 1, 2) or isinstance(label, bool):
            raise ValueError(f"Cannot label row {row}: the label {label!r} is not a known class.")
        return "abc".index(label) if isinstance(label, str) else int(str(label))

    return KnownRows(told or {}, read, lambda lines: None)


def test_the_name_and_the_number_of_a_class_are_one_label(path: Path) -> None:
    path.write_text('{"row": 0, "label": "b"}\n{"row": 0, "label": 1}\n{"row": 5, "label": 0}\n')
    with pytest.raises(ValueError, match="line 2: row 0 has two labels, 'b' and 1. The other is in .*line 1: leave"):
        LabelFile(path).annotate([0])
    annotator = LabelFile(path)
    annotator.compare_with(known({5: 0}))
    assert annotator.annotate([0]) == ["b"]
    path.write_text('{"row": 0, "label": "b"}\n{"row": 0, "label": true}\n')
    with pytest.raises(ValueError, match="line 2: row 0 has two labels, 'b' and True"):
        annotator.annotate([0])


def test_a_label_that_is_none_is_refused_with_its_line_when_its_row_is_asked_for(path: Path) -> None:
    path.write_text('{"row": 0, "label": "b"}\n{"row": 1, "label": "bb"}\n')
    annotator = LabelFile(path)
    annotator.compare_with(known())
    assert annotator.annotate([0]) == ["b"]
    with pytest.raises(ValueError, match="labels.jsonl, line 2: Cannot label row 1: the label 'bb' is not a known"):
        annotator.annotate([1])


@pytest.mark.parametrize(("label", "shown"), [('"c"', "'c'"), ("2", "2")])
def test_a_label_that_was_changed_after_it_was_told_is_refused(path: Path, label: str, shown: str) -> None:
    path.write_text(f'{{"row": 0, "label": "a"}}\n{{"row": 7, "label": {label}}}\n')
    annotator = LabelFile(path)
    annotator.compare_with(known({7: 1}))
    for look in (lambda: annotator.check([]), lambda: annotator.annotate([0])):
        with pytest.raises(
            ValueError,
            match=f"line 2: row 7 has the label {shown}, and in the run it has 1. Put 1 back; .* start afresh",
        ):
            look()
    annotator.compare_with(known({7: 2}))
    annotator.check([0])


def test_whatever_a_reader_raises_is_a_refusal_with_the_line(path: Path) -> None:
    def read(row: int, label: object) -> Label:
        raise OSError(36, "File name too long")

    path.write_text('{"row": 0, "label": "x"}\n{"row": 9, "label": 1}\n{"row": 9, "label": 2}\n')
    annotator = LabelFile(path)
    annotator.compare_with(KnownRows({}, read, lambda lines: None))
    with pytest.raises(ValueError, match="line 3: row 9 has two labels, 1 and 2"):
        annotator.annotate([0])
    path.write_text('{"row": 0, "label": "x"}\n')
    with pytest.raises(ValueError, match="line 1: the label 'x' cannot be read .*File name too long"):
        annotator.annotate([0])


def test_a_label_that_is_packed_otherwise_today_is_the_one_that_was_told(path: Path) -> None:
    path.write_text('{"row": 0, "label": "mask"}\n')
    annotator = LabelFile(path)
    annotator.compare_with(KnownRows({0: "MASK"}, lambda row, label: str(label).lower(), lambda lines: None))
    annotator.check([])
    annotator.compare_with(KnownRows({0: "ANOTHER"}, lambda row, label: str(label).lower(), lambda lines: None))
    with pytest.raises(ValueError, match="row 0 has the label 'mask', and in the run it has 'ANOTHER'"):
        annotator.check([])


def test_there_is_nothing_to_check_where_nobody_wrote_anything(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.jsonl"):
        annotator = LabelFile(path)
        annotator.compare_with(known({0: 1}))
        annotator.check([0])


def test_a_query_file_that_was_set_aside_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "round-00.previous-1.jsonl").write_text('{"row": 3, "label": "b"}\nslip')
    (tmp_path / "round-00.jsonl").write_text('{"row": 3, "label": 1}\n')
    assert LabelFile(tmp_path).annotate([3]) == [1]


def test_the_file_that_asks_for_a_row_is_named(tmp_path: Path) -> None:
    (tmp_path / "round-99.jsonl").write_text('{"row": 5, "label": 0}\n')
    (tmp_path / "round-100.jsonl").write_text('{"row": 3, "label": null}\n')
    with pytest.raises(ValueError, match=r"Fill in the labels in .*round-100\.jsonl"):
        LabelFile(tmp_path).annotate([3])
    with pytest.raises(ValueError, match=r'Add a line such as {"row": 4, "label": 0} for each to .*round-99\.jsonl'):
        LabelFile(tmp_path).annotate([4])


@pytest.mark.parametrize("content", ["é".encode("latin-1"), '{"row": 0}'.encode("utf-16"), None])
def test_what_cannot_be_read_is_refused(path: Path, content: bytes | None) -> None:
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=r"labels\.jsonl"):
        LabelFile(path).annotate([0])
    (path.parent / "round-00.jsonl").mkdir()
    with pytest.raises(ValueError, match=r"Cannot read .*round-00\.jsonl: it is a folder"):
        LabelFile(path.parent).annotate([0])


def test_a_folder_of_query_files_is_one_label_file(tmp_path: Path) -> None:
    (tmp_path / "round-00.jsonl").write_text('{"row": 3, "label": 1}\n')
    (tmp_path / "round-01.jsonl").write_text('{"row": 5, "label": null}\n')
    folder = LabelFile(tmp_path)
    assert folder.annotate([3]) == [1]
    with pytest.raises(ValueError, match=r"no label for 1 of the 2 rows .* row 5\. Fill in the labels in .*round-01"):
        folder.annotate([3, 5])
    with pytest.raises(ValueError, match="There is no label file"):
        LabelFile(tmp_path / "nowhere").annotate([0])


def test_a_place_that_may_not_be_looked_at_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(ValueError, match="Cannot read x+: File name too long. Name a file or folder"):
        LabelFile("x" * 300).annotate([0])
    monkeypatch.setattr(os, "listdir", denied)
    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(ValueError, match=f"Cannot read {tmp_path}: Permission denied. Name a file or folder"):
        LabelFile(tmp_path).annotate([0])


def test_a_label_for_a_row_that_is_not_there_is_refused_and_one_that_is_set_aside_is_told(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def told(lines: str) -> LabelFile:
        path.write_text(lines)
        annotator = LabelFile(path)
        annotator.compare_with(KnownRows({}, lambda row, label: 0, lambda lines: None, size=5, set_aside={3}))
        return annotator

    with pytest.raises(ValueError, match="labels.jsonl, line 2: there is no row 5: rows are 0 to 4. Correct the row"):
        told('{"row": 0, "label": "a"}\n{"row": 5, "label": "a"}\n').annotate([0])
    assert told('{"row": 0, "label": "a"}\n{"row": 3, "label": "b"}\n').annotate([0]) == ["a"]
    assert (
        "line 2: row 3 is set aside to measure with, so that its label here is not used (1 such lines)" in caplog.text
    )


@pytest.mark.parametrize("label", ["null", '""', '" "', "NaN", "-100", '"-100"'])
def test_what_is_missing_is_no_answer_yet(path: Path, label: str) -> None:
    path.write_text(f'{{"row": 0, "label": {label}}}\n')
    with pytest.raises(ValueError, match="has no label for 1 of the 1 rows asked for"):
        LabelFile(path).annotate([0])


def test_new_classes_are_found_by_name_and_by_number_where_classes_are_numbers(path: Path) -> None:
    path.write_text(
        '{"row": 0, "label": "b"}\n{"row": 1, "label": 4}\n{"row": 2, "label": ["c", "4"]}\n{"row": 3, "label": null}\n'
        '{"row": 99, "label": "ghost"}\n{"row": 4, "label": -100}\n{"row": 5, "label": true}\n'
    )
    assert new_classes_in(path, ["1", "2"], 10) == ["b", "4", "c"]
    assert new_classes_in(path, ["a", "b"], 10) == ["c"], "4 is the place of a class, and of none here"
    assert new_classes_in(path.with_name("nothing.jsonl"), ["a"], 10) == []
