"""Query files: one JSON object a line, best first."""

import json
import math
from datetime import date
from pathlib import Path

import pytest
from datasets import Array2D, ClassLabel, Dataset, Features, Image, Value
from datasets import Sequence as SequenceFeature
from PIL import Image as PillowImage

from hf_noise_al.annotators import LabelFile
from hf_noise_al.exchange.label_lines import LabelLine, read_label_lines
from hf_noise_al.exchange.query_file import forget_open_lines, refuse_other_rows, write_query_file


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_shows_texts_scores_and_labels_best_first(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"sentence": ["ä", "b\n\u2028c", "d"], "n": [1, 2, 3]})
    path = tmp_path / "queries" / "round-00.jsonl"
    write_query_file(path, dataset, [2, 1], [0.5, None], [1, None])
    assert read(path) == [
        {"row": 2, "score": 0.5, "label": 1, "sentence": "d", "n": 3},
        {"row": 1, "score": None, "label": None, "sentence": "b\n\u2028c", "n": 2},
    ]
    assert "\n\n" not in path.read_text(encoding="utf-8")
    write_query_file(path, dataset, [0], [None], [None])
    assert "ä" in path.read_text(encoding="utf-8"), "people read it"


def test_pairs_and_large_strings_are_texts(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"a": ["x"], "b": ["y"]}).cast_column("b", Value("large_string"))
    write_query_file(tmp_path / "q.jsonl", dataset, [0], [1.0], [None])
    assert read(tmp_path / "q.jsonl")[0] == {"row": 0, "score": 1.0, "label": None, "a": "x", "b": "y"}


def test_words_of_sentences_are_shown(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"tokens": [["a", "b"], ["c"]]})
    write_query_file(tmp_path / "q.jsonl", dataset, [1], [1.0], [[0]])
    assert read(tmp_path / "q.jsonl") == [{"row": 1, "score": 1.0, "label": [0], "tokens": ["c"]}]


def test_images_are_shown_by_their_path(tmp_path: Path) -> None:
    PillowImage.new("L", (2, 2)).save(tmp_path / "one.png")
    dataset = Dataset.from_dict({"image": [str(tmp_path / "one.png"), None]}).cast_column("image", Image())
    write_query_file(tmp_path / "q.jsonl", dataset, [0, 1], [1.0, 0.5], [None, None])
    assert [line["image"] for line in read(tmp_path / "q.jsonl")] == [str(tmp_path / "one.png"), None]


def test_a_transform_is_not_applied(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"text": ["as it is"]}).with_transform(lambda batch: {"n": [0]})
    write_query_file(tmp_path / "q.jsonl", dataset, [0], [1.0], [None])
    assert read(tmp_path / "q.jsonl")[0]["text"] == "as it is"


def test_a_note_with_half_a_character_stays(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"row": 0, "label": null, "note": "\\ud83d \\ud83d\\ude00"}\n')
    write_query_file(path, Dataset.from_dict({"text": ["a"]}), [0], [1.0], [1])
    assert read(path) == [{"row": 0, "score": 1.0, "label": 1, "text": "a", "note": "\ud83d \U0001f600"}]


def test_every_column_of_a_table_is_shown(tmp_path: Path) -> None:
    kinds = Features(
        {
            "area": Value("float64"),
            "sold": Value("date32"),
            "id": Value("int64"),
            "zone": ClassLabel(names=["A", "B"]),
            "box": SequenceFeature(Value("int64")),
            "pixels": Array2D((1, 1), "float32"),
            "blob": Value("binary"),
        }
    )
    rows = {"area": [1.5, math.nan], "sold": [date(2026, 1, 2)] * 2, "id": [7, 8], "zone": [0, 1], "box": [[1, 2]] * 2}
    dataset = Dataset.from_dict({**rows, "pixels": [[[0.0]]] * 2, "blob": [b"x"] * 2}, features=kinds)
    write_query_file(tmp_path / "q.jsonl", dataset, [1], [1.0], [0])
    shown = {"area": None, "sold": "2026-01-02", "id": 8, "zone": "B", "box": [1, 2]}
    assert read(tmp_path / "q.jsonl") == [{"row": 1, "score": 1.0, "label": 0, **shown}]


def test_the_classes_to_choose_from_are_in_every_line_or_where_there_are_many_in_the_first(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"text": ["a", "b"]})
    for names, times in ((["bad", "good"], 2), ([str(number) for number in range(150)], 1)):
        write_query_file(tmp_path / "q.jsonl", dataset, [1, 0], [1.0, 0.5], [None, None], names)
        assert [line.get("classes") for line in read(tmp_path / "q.jsonl")] == [names, names if times == 2 else None]


def test_a_column_called_row_or_label_does_not_take_the_place_of_ours(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"row": ["theirs"], "score": ["theirs"], "text": ["t"]})
    write_query_file(tmp_path / "q.jsonl", dataset, [0], [1.0], [None])
    theirs = {"row (column)": "theirs", "score (column)": "theirs"}
    assert read(tmp_path / "q.jsonl")[0] == {"row": 0, "score": 1.0, "label": None, **theirs, "text": "t"}


def test_a_filled_in_file_is_a_label_file(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"text": ["a", "b\u2028c\x85d"]})
    write_query_file(tmp_path / "q.jsonl", dataset, [1, 0], [1.0, 0.5], [1, 0])
    assert LabelFile(tmp_path / "q.jsonl").annotate([0, 1]) == [0, 1]


def test_labels_that_were_typed_into_the_file_stay(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"text": ["a", "b", "c"]})
    path = tmp_path / "q.jsonl"
    write_query_file(path, dataset, [0, 1, 2], [3.0, 2.0, 1.0], [None, None, None])
    path.write_text(
        path.read_text().replace('"row": 1, "score": 2.0, "label": null', '"row": 1, "score": 2.0, "label": 7')
    )
    write_query_file(path, dataset, [0, 1, 2], [3.0, 2.0, 1.0], [5, None, None])
    assert [line["label"] for line in read(path)] == [5, 7, None]
    assert [file.name for file in tmp_path.iterdir()] == ["q.jsonl"]


def test_labels_of_other_rows_stay_behind_those_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"row": 2, "label": "b"}\n{"row": 1, "label": null}\n{"row": 1, "label": null, "note": "?"}\n')
    write_query_file(path, Dataset.from_dict({"text": ["a", "b", "c"]}), [0], [1.0], [None])
    assert path.read_text().split("\n") == [
        '{"row": 0, "score": 1.0, "label": null, "text": "a"}',
        '{"row": 2, "label": "b"}',
        '{"row": 1, "label": null, "note": "?"}',
        "",
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["q.jsonl"]


@pytest.mark.parametrize("label", ['"b"', '"no class"', "1.50", "{}", "[1,  2]"])
def test_what_somebody_typed_stays_as_it_was_typed_when_the_label_is_told(tmp_path: Path, label: str) -> None:
    path = tmp_path / "q.jsonl"
    typed = f'{{"label": {label},  "row": 0, "text": "a", "note": "sure?"}}'
    path.write_bytes(f"\ufeff{typed}\r\n".encode())
    write_query_file(path, Dataset.from_dict({"text": ["a", "b"]}), [1, 0], [1.0, 0.5], [0, 1])
    assert path.read_text() == f'{{"row": 1, "score": 1.0, "label": 0, "text": "b"}}\n{typed}\n'


def test_notes_beside_open_labels_stay(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"row": 0, "score": 9, "label": null, "text": "A", "note": "ask Ada"}\n')
    for label in (None, 1):
        write_query_file(path, Dataset.from_dict({"text": ["a"]}), [0], [1.0], [label])
        assert read(path) == [{"row": 0, "score": 1.0, "label": label, "text": "a", "note": "ask Ada"}]


@pytest.mark.parametrize("before", [b'{"row": 2, "label": 1\n', b'{"row": 2, "label": "\xe9"}\n', None])
def test_a_file_that_cannot_be_read_is_kept_aside_and_a_warning_says_where(
    tmp_path: Path, before: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path, kept = tmp_path / "q.jsonl", tmp_path / "q.previous-1.jsonl"
    path.mkdir() if before is None else path.write_bytes(before)
    write_query_file(path, Dataset.from_dict({"text": ["a"]}), [0], [1.0], [None])
    assert read(path) == [{"row": 0, "score": 1.0, "label": None, "text": "a"}]
    assert kept.is_dir() if before is None else kept.read_bytes() == before
    (record,) = caplog.records
    assert record.levelname == "WARNING" and str(path) in record.message and str(kept) in record.message


def lines_of(path: Path, *entries: dict[str, object]) -> list[LabelLine]:
    path.write_text("".join(json.dumps({"label": 0, **entry}) + "\n" for entry in entries))
    return read_label_lines(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"row": 1},
        {"row": 1, "text": None, "note": "x", "n": 2, "file_row": 3},
        {"row": 0, "text": "a\u2028b\x85", "words": ["c", "d"], "id": 5, "image": "/else/one.png"},
        {"row": 0, "image": "C:\\else\\one.png"},
        {"row": 1, "words": [], "image": None},
    ],
)
def test_a_line_that_shows_its_row_or_less_is_taken(tmp_path: Path, entry: dict[str, object]) -> None:
    refuse_other_rows(_shown_pool(tmp_path), lines_of(tmp_path / "q.jsonl", entry))


@pytest.mark.parametrize(
    ("name", "value"),
    [("text", "b"), ("words", ["c"]), ("n", 2), ("id", 6), ("image", "/else/two.png"), ("text", ["a"])],
)
def test_a_line_that_shows_another_row_is_refused(tmp_path: Path, name: str, value: object) -> None:
    lines = lines_of(tmp_path / "q.jsonl", {"row": 1, "text": "b"}, {"row": 0, name: value})
    with pytest.raises(ValueError, match=rf"q.jsonl, line 2: `{name}` is .*, and in row 0 of the data "):
        refuse_other_rows(_shown_pool(tmp_path), lines)


def test_long_texts_are_shortened_where_they_differ(tmp_path: Path) -> None:
    lines = lines_of(tmp_path / "q.jsonl", {"row": 0, "text": "x" * 5000})
    with pytest.raises(ValueError) as refused:
        refuse_other_rows(Dataset.from_dict({"text": ["y" * 5000]}), lines)
    assert "'xxx" in str(refused.value) and "'yyy" in str(refused.value) and len(str(refused.value)) < 500


def _shown_pool(folder: Path) -> Dataset:
    rows = {
        "text": ["a\u2028b\x85", "b"],
        "words": [["c", "d"], []],
        "id": [5, 6],
        "n": [1, 2],
        "image": [str(folder / "one.png"), None],
    }
    return Dataset.from_dict(rows).cast_column("image", Image())


def test_only_what_people_typed_stays_when_nothing_is_asked_any_more(tmp_path: Path) -> None:
    texts = {
        "round-00.jsonl": '{"row": 0, "label": null}\n{"row": 1,  "label": "b"}\n',
        "round-01.jsonl": '{"row": 2, "label": null}\n',
        "round-02.jsonl": '{"row": 2, "label":\n',
        "round-00.previous-1.jsonl": '{"row": 3, "label": null}\n',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    forget_open_lines(tmp_path)
    texts["round-00.jsonl"] = '{"row": 1,  "label": "b"}\n'
    del texts["round-01.jsonl"]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == texts


def test_an_image_of_another_folder_with_the_same_name_is_another_row(tmp_path: Path) -> None:
    paths = ["im/a/u15.png", "im/b/u15.png", "im/c.png"]
    for name in paths:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        PillowImage.new("L", (2, 2)).save(tmp_path / name)
    pool = Dataset.from_dict({"image": [str(tmp_path / name) for name in paths]}).cast_column("image", Image())
    refuse_other_rows(
        pool, lines_of(tmp_path / "q.jsonl", {"row": 0, "image": "C:\\x\\a\\u15.png"}, {"row": 2, "image": "y/c.png"})
    )
    for other in ("/elsewhere/b/u15.png", "u15.png"):
        with pytest.raises(ValueError, match="`image` is .*, and in row 0 of the data"):
            refuse_other_rows(pool, lines_of(tmp_path / "q.jsonl", {"row": 0, "image": other}))


def test_no_column_hides_another(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"score": ["s"], "score (column)": ["t"]})
    write_query_file(tmp_path / "q.jsonl", dataset, [0], [1.0], [None])
    shown = {"score (column) (column)": "s", "score (column)": "t"}
    assert read(tmp_path / "q.jsonl") == [{"row": 0, "score": 1.0, "label": None, **shown}]
