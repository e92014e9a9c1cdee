"""Files of labels: read line by line, or refused with file and line, whatever bytes are in them."""

import json
import re
from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise_al.annotators import LabelFile
from hf_noise_al.annotators.label_file import KnownRows
from hf_noise_al.exchange.label_lines import query_files, read_label_lines, shortened
from hf_noise_al.exchange.query_file import refuse_other_rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.jsonl"


def test_lines_are_read_with_their_places_and_as_they_stand(path: Path) -> None:
    path.write_bytes('\ufeff{"row": 3, "label": "é"}\r\n\r\n{"row":0,"label":null,"text":"a\u2028b"}'.encode())
    first, second = read_label_lines(path)
    assert (first.row, first.label, first.number, first.text) == (3, "é", 1, '{"row": 3, "label": "é"}')
    assert (second.row, second.label, second.place) == (0, None, f"{path}, line 3")
    assert second.entry["text"] == "a\u2028b"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"row": 0, "label": ' + "1" * 5000 + "}", "Exceeds the limit"),
        ('{"row": ' + "1" * 5000 + ', "label": 1}', "Exceeds the limit"),
        ('{"row": 0, "label": ' + "[" * 100_000, "too many brackets inside each other"),
        ('{"row": 0, "label": ' + "[" * 50 + "]" * 50 + "}", "too many brackets inside each other"),
        ('{"row": 0, "label": 1, "label": 2}', "a key stands twice"),
        ('{"row": 0, "label": 1', "Expecting ',' delimiter at character 22"),
        ('"row label"', "no object"),
        ('{"row": 0}', "no `label`"),
    ],
)
def test_a_line_that_is_none_is_refused_with_its_place_and_the_reason(path: Path, line: str, reason: str) -> None:
    path.write_text('{"row": 1, "label": 0}\n' + line)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}, line 2: expected .*{re.escape(reason)}"):
        read_label_lines(path)


def test_masks_as_rows_of_pixels_are_not_too_deep(path: Path) -> None:
    path.write_text('{"row": 0, "label": [[[0], [1]], [[1], [0]]]}')
    assert read_label_lines(path)[0].label == [[[0], [1]], [[1], [0]]]


def test_query_files_are_found_without_those_set_aside(tmp_path: Path) -> None:
    for name in ("round-01.jsonl", "round-00.jsonl", "round-00.previous-1.jsonl", "round-00 ada.jsonl", "else.jsonl"):
        (tmp_path / name).touch()
    assert [path.name for path in query_files(tmp_path)] == ["round-00 ada.jsonl", "round-00.jsonl", "round-01.jsonl"]


def test_long_values_are_shortened() -> None:
    assert shortened("short") == "'short'"
    assert len(shortened("x" * 1000)) < 70


NAMES = ["negative", "positive", "negative", "positive"]
TEXTS = ["one \u2028", "two \u00e9", "three", "four"]
LINES = [json.dumps({"row": row, "label": NAMES[row], "text": text}) for row, text in enumerate(TEXTS)]
WHOLE = "".join(line + "\n" for line in LINES).encode()


def read_name(row: int, label: object) -> int:
    if label not in ("negative", "positive"):
        raise ValueError(f"Cannot label row {row}: {label!r} is no class.")
    return int(label == "positive")


@settings(max_examples=150, deadline=None)
@given(
    start=st.integers(0, len(WHOLE)),
    removed=st.integers(0, 60),
    inserted=st.binary(max_size=4) | st.sampled_from([b"\n", b"\0", b"[" * 5000, b"1" * 5000, b"\xff\xfe", b"}", b'"']),
)
def test_damaged_bytes_give_the_right_label_or_a_refusal_that_names_the_file(
    tmp_path_factory: pytest.TempPathFactory, start: int, removed: int, inserted: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.jsonl"
    path.write_bytes(WHOLE[:start] + inserted + WHOLE[start + removed :])
    pool, annotator = Dataset.from_dict({"text": TEXTS}), LabelFile(path)
    annotator.compare_with(KnownRows({}, read_name, lambda lines: refuse_other_rows(pool, lines)))
    for row in range(4):
        try:
            (label,) = annotator.annotate([row])
            assert read_name(row, label) == read_name(row, NAMES[row])
        except ValueError as error:
            assert str(path) in str(error)
