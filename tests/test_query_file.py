"""Query files: one JSON object a line, best first."""

import json
from pathlib import Path

from datasets import Dataset, Image, Value
from PIL import Image as PillowImage

from hf_noise_al.annotators import LabelFile
from hf_noise_al.query_file import write_query_file


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_shows_texts_scores_and_labels_best_first(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"sentence": ["ä", "b\n\u2028c", "d"], "n": [1, 2, 3]})
    path = tmp_path / "queries" / "round-00.jsonl"
    write_query_file(path, dataset, [2, 1], [0.5, None], [1, None])
    assert read(path) == [
        {"row": 2, "score": 0.5, "label": 1, "sentence": "d"},
        {"row": 1, "score": None, "label": None, "sentence": "b\n\u2028c"},
    ]
    assert "\n\n" not in path.read_text(encoding="utf-8")
    write_query_file(path, dataset, [0], [None], [None])
    assert "ä" in path.read_text(encoding="utf-8"), "people read it"


def test_pairs_and_large_strings_are_texts(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"a": ["x"], "b": ["y"]}).cast_column("b", Value("large_string"))
    write_query_file(tmp_path / "q.jsonl", dataset, [0], [1.0], [None])
    assert read(tmp_path / "q.jsonl")[0] == {"row": 0, "score": 1.0, "label": None, "a": "x", "b": "y"}


def test_words_of_sentences_are_shown(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"tokens": [["a", "b"], ["c"]], "input_ids": [[1], [2]]})
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


def test_a_data_set_of_numbers_has_rows_only(tmp_path: Path) -> None:
    write_query_file(tmp_path / "q.jsonl", Dataset.from_dict({"n": [1, 2]}), [1], [1.0], [0])
    assert read(tmp_path / "q.jsonl") == [{"row": 1, "score": 1.0, "label": 0}]


def test_a_column_called_row_or_label_does_not_take_the_place_of_ours(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"row": ["theirs"], "score": ["theirs"], "text": ["t"]})
    write_query_file(tmp_path / "q.jsonl", dataset, [0], [1.0], [None])
    assert read(tmp_path / "q.jsonl")[0] == {"row": 0, "score": 1.0, "label": None, "text": "t"}


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


def test_a_file_whose_typed_labels_have_no_place_is_kept_beside(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"text": ["a", "b", "c"]})
    path = tmp_path / "q.jsonl"
    for before in ('{"row": 2, "label": 1}\n', '{"row": 2, "label": 1\n'):  # another row, a slip of the pen
        path.write_text(before)
        write_query_file(path, dataset, [0], [1.0], [None])
        assert read(path) == [{"row": 0, "score": 1.0, "label": None, "text": "a"}]
        assert before in [file.read_text() for file in tmp_path.glob("q.previous-*.jsonl")]
