"""The data set without labels, the labeled split, and labels as plain JSON."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets import Array2D, ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PillowImage

from hf_noise_al.pool.pool import Pool
from hf_noise_al.pool.pool_dataset import PoolDataset


def make(labels: list[Any], kind: Any = None, column: str = "label") -> Dataset:
    texts = [[row, row + 1] for row in range(len(labels))]
    kinds = None if kind is None else Features({"input_ids": Value("int64"), column: kind})
    if kinds is not None:
        return Dataset.from_dict({"input_ids": list(range(len(labels))), column: labels}, features=kinds)
    return Dataset.from_dict({"input_ids": texts, column: labels})


def split(data: PoolDataset, labels: dict[int, Any]) -> Dataset:
    pool = Pool(len(data))
    pool.annotate(list(labels), list(labels.values()), 0)
    return data.labeled_split(pool)


@pytest.mark.parametrize("column", ["label", "labels", "label_ids"])
def test_takes_the_label_column_away(column: str) -> None:
    data = PoolDataset(make([0, None, 1], column=column))
    assert data.label_column == column
    assert data.inputs.column_names == ["input_ids"]
    assert data.labels == [0, None, 1]


def test_labels_is_found_before_label_and_both_are_taken_away() -> None:
    data = PoolDataset(make([0, 1, 1]).add_column("labels", [1, 0, 0]))
    assert data.label_column == "labels"
    assert data.labels == [1, 0, 0]
    assert data.inputs.column_names == ["input_ids"]


def test_a_named_label_column_becomes_labels_in_the_split() -> None:
    data = PoolDataset(make([5, 6, 7], column="target"), "target")
    assert split(data, {2: 7, 0: 5})[:] == {"input_ids": [[0, 1], [2, 3]], "labels": [5, 7]}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([None, -100, 1], [None, None, 1]),
        ([float("nan"), -100.0, 0.5], [None, None, 0.5]),
        ([[], [None, 1], [-100, -100]], [None, None, None]),
        ([[0, 1], None, [1, -100]], [[0, 1], None, [1, -100]]),
        ([None, None, None], [None, None, None]),
    ],
)
def test_what_stands_for_a_missing_label(labels: list[Any], expected: list[Any]) -> None:
    assert PoolDataset(make(labels)).labels == expected


def test_the_split_has_the_labels_of_the_pool_in_the_order_of_rows() -> None:
    data = PoolDataset(make([None] * 5))
    assert split(data, {4: 1, 0: 0, 2: 1})[:] == {"input_ids": [[0, 1], [2, 3], [4, 5]], "label": [0, 1, 1]}
    assert len(split(data, {})) == 0


def test_the_split_keeps_features() -> None:
    kind = ClassLabel(names=["bad", "good"])
    data = PoolDataset(make([1, None, 0], kind))
    assert split(data, {0: 1, 1: 0}).features["label"] == kind


def test_floats_told_for_a_column_of_whole_numbers_stay_floats() -> None:
    assert split(PoolDataset(make([1, 2, None])), {2: 2.5, 0: 1.0})["label"][:] == [1.0, 2.5]
    found = split(PoolDataset(make([[0, 1], [1, 0]])), {0: [0.0, 1.0]})["label"][0]
    assert found == [0.0, 1.0]
    assert isinstance(found[0], float)


def test_the_split_keeps_images_and_selections() -> None:
    pictures = [PillowImage.new("L", (4, 4), color) for color in (0, 100, 200)]
    dataset = Dataset.from_dict({"image": pictures, "label": [0, 1, 0]}).cast_column("image", Image())
    data = PoolDataset(dataset.select([2, 0]))
    assert [np.asarray(example["image"]).max() for example in split(data, {0: 1, 1: 0})] == [200, 0]


def test_the_split_keeps_array_columns() -> None:
    kinds = Features({"pixel_values": Array2D((2, 2), "float32"), "label": Value("int64")})
    dataset = Dataset.from_dict({"pixel_values": np.arange(12.0).reshape(3, 2, 2), "label": [0, 1, 0]}, features=kinds)
    assert split(PoolDataset(dataset), {1: 1})[0]["pixel_values"] == [[4.0, 5.0], [6.0, 7.0]]


def test_the_split_keeps_the_format() -> None:
    dataset = make([0, 1, 1]).with_format("numpy", columns=["input_ids", "label"])
    found = split(PoolDataset(dataset), {1: 1})
    assert isinstance(found[0]["input_ids"], np.ndarray)
    assert found[0]["label"] == 1
    calls = []
    transformed = make([0, 1, 1]).with_transform(lambda batch: calls.append(list(batch)) or batch)
    assert split(PoolDataset(transformed), {1: 1})[0] == {"input_ids": [1, 2], "label": 1}
    assert calls == [["input_ids", "label"]]


def test_large_text_columns_survive() -> None:
    dataset = make([0, 1]).add_column("text", ["a", "b"]).cast_column("text", Value("large_string"))
    assert split(PoolDataset(dataset), {1: 1})[0]["text"] == "b"


@pytest.mark.parametrize(
    ("label", "num_labels", "problem_type", "expected"),
    [
        (1, 3, None, 1),
        (1.0, 3, "single_label_classification", 1),
        (np.int64(2), 3, None, 2),
        (1.5, None, None, 1.5),
        (np.float32(0.5), 1, "regression", 0.5),
        (3, 1, "regression", 3.0),
        ([1, 2], 2, "regression", [1.0, 2.0]),
        ([0, 1], None, None, [0, 1]),
        (np.array([0, 1]), 2, "multi_label_classification", [0.0, 1.0]),
        ((1, 0), 2, "multi_label_classification", [1.0, 0.0]),
    ],
)
def test_labels_become_plain_json(label: Any, num_labels: int | None, problem_type: str | None, expected: Any) -> None:
    (found,) = PoolDataset(make([None])).parse_labels([0], [label], num_labels, problem_type)
    assert found == expected
    assert repr(found) == repr(expected)


def test_a_pool_has_rows() -> None:
    with pytest.raises(ValueError, match="`train_dataset` is empty: there is nothing to label"):
        PoolDataset(make([]))
    assert len(PoolDataset(make([1]))) == 1


def test_rows_are_checked_against_the_rows_there_are() -> None:
    data = PoolDataset(make([None] * 3))
    assert data.checked_rows("set_aside", [np.int64(2), 0]) == [2, 0]
    for row in (3, -1):
        with pytest.raises(ValueError, match=rf"`set_aside` names row {row}: rows of `train_dataset` are 0 to 2\."):
            data.checked_rows("set_aside", [0, row])


def test_what_a_task_prepared_is_restored_as_it_is_and_anything_else_is_read() -> None:
    read = []

    def read_answer(row: int, answer: object) -> str:
        read.append((row, answer))
        return f"read {answer}"

    data = PoolDataset(make(["a", "b", None]), read_answer=read_answer)
    reader = data.reader_for(None)
    found = data.restore(reader, [0, 1, 2, -1, 3], ["a", "c", "d", "b", "e"])
    assert found == ["a", "read c", "read d", "read b", "read e"]
    assert read == [(1, "c"), (2, "d"), (-1, "b"), (3, "e")], "what is no row is for the pool to refuse"


def test_labels_in_the_data_are_checked_as_any_where_no_task_prepared_them() -> None:
    data = PoolDataset(make([5, 1]))
    reader = data.reader_for(SimpleNamespace(config=SimpleNamespace(num_labels=2)))
    assert data.restore(reader, [1], [1]) == [1]
    with pytest.raises(ValueError, match="Cannot label row 0: the label 5 is outside the model's 2 classes"):
        data.restore(reader, [0], [5])


def test_names_of_classes_become_numbers() -> None:
    data = PoolDataset(make([None, 0], ClassLabel(names=["bad", "good"])))
    assert data.parse_labels([0], ["good"], 2) == [1]
    with pytest.raises(ValueError, match="row 4: the label 'best' is not a known class. Classes are bad, good."):
        data.parse_labels([4], ["best"], 2)
    with pytest.raises(ValueError, match="Encode them with `class_encode_column` first"):
        PoolDataset(make([None])).parse_labels([0], ["good"], 2)


@pytest.mark.parametrize("label", [float("inf"), [1.0, float("inf")], [1.0, float("nan")]])
def test_labels_that_are_not_finite_are_refused(label: Any) -> None:
    with pytest.raises(ValueError, match="row 3: the label .* is not finite"):
        PoolDataset(make([None])).parse_labels([3], [label], None)


def test_the_fingerprint_follows_the_contents() -> None:
    base = PoolDataset(make([0, 1, None])).fingerprint()
    assert PoolDataset(make([0, 1, None])).fingerprint() == base
    assert PoolDataset(make([0, 0, None])).fingerprint()["labels"] != base["labels"]
    longer = make([0, 1, None]).map(lambda example: {"input_ids": [*example["input_ids"], 9]})
    assert PoolDataset(longer).fingerprint()["inputs"] != base["inputs"]
    assert PoolDataset(longer).fingerprint()["labels"] == base["labels"]
    reordered = PoolDataset(make([0, 1, None]).select([1, 0, 2])).fingerprint()
    assert reordered["inputs"] != base["inputs"]
    assert PoolDataset(make([0, 1, None, 1]).select(range(3))).fingerprint() == base


def test_the_fingerprint_does_not_depend_on_how_the_rows_are_stored() -> None:
    texts = [None if row % 3 == 0 else f"text {row}" for row in range(2500)]
    stored = Dataset.from_dict({"text": texts})
    picked = Dataset.from_dict({"text": ["first", *texts]}).select(range(1, 2501))
    shuffled = Dataset.from_dict({"text": texts[::-1]}).select(range(2499, -1, -1))
    found = {PoolDataset(dataset).fingerprint()["inputs"] for dataset in (stored, picked, shuffled)}
    assert len(found) == 1


def test_minus_one_is_a_missing_class_and_a_number_like_others() -> None:
    assert PoolDataset(make([0, -1, 1]), are_classes=True).labels == [0, None, 1]
    assert PoolDataset(make([0, -1, 1], ClassLabel(names=["-1", "1"]))).labels == [0, None, 1], "class numbers"
    assert PoolDataset(make([0.0, -1.0, 1.0])).labels == [0.0, -1.0, 1.0]


def test_a_text_called_label_stays_for_people_to_read() -> None:
    rows = Dataset.from_dict({"label": ["a text", "another"], "target": [0, 1]})
    data = PoolDataset(rows, "target")
    assert data.inputs["label (column)"][:] == ["a text", "another"]
    assert data.labels == [0, 1]


def test_a_row_is_told_with_what_its_id_column_says() -> None:
    rows = Dataset.from_dict({"id": ["A-1", "B\n2"], "key": [7, 8], "label": [0, None]})
    data = PoolDataset(rows.cast_column("label", ClassLabel(names=["bad", "good"])))
    with pytest.raises(ValueError, match=r"Cannot label row 1 \(id B 2\): the label 'fine' is not a known class"):
        data.parse_labels([1], ["fine"], 2)
    with pytest.raises(ValueError, match=r"Cannot label row 9: the label 'fine'"):
        data.parse_labels([9], ["fine"], 2)
    assert PoolDataset(rows, id_column="key").place_of(0) == "row 0 (key 7)"
    with pytest.raises(ValueError, match=r"no column 'code' \(`id_column`\). It has id, key, label"):
        PoolDataset(rows, id_column="code")
