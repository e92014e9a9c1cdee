"""The processor of tables: scikit-learn's numbers, kept as plain JSON, and refusals with column, row and remedy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from transformers import AutoFeatureExtractor

from hf_noise_al.tasks.tables.tabular_model import TabularMLPConfig
from hf_noise_al.tasks.tables.tabular_processor import TabularProcessor

TABLE: dict[str, list[Any]] = {
    "area": [1.1, None, 7.3, 0.2, float("nan")],
    "kind": ["b", None, "a", "b", ""],
    "year": [1990, 2001, 1990, 1985, 2020],
    "constant": [3, 3, 3, 3, 3],
}


@pytest.fixture
def fitted() -> TabularProcessor:
    processor = TabularProcessor()
    processor.fit(TABLE, ["kind"])
    return processor


def test_gives_the_numbers_of_scikit_learn(fitted: TabularProcessor) -> None:
    kinds = np.array([value or "" for value in TABLE["kind"]], dtype=object)
    table = np.array([TABLE["area"], TABLE["year"], TABLE["constant"], kinds], dtype=object).T
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    expected = ColumnTransformer([("n", numbers, [0, 1, 2]), ("c", one_hot, [3])]).fit_transform(table)
    found = fitted(TABLE)["features"]
    assert found.dtype == np.float32
    assert np.array_equal(found, expected.astype(np.float32))
    assert fitted.columns == ("area", "year", "constant", "kind")
    assert fitted.num_features == found.shape[1] == 6


def test_is_kept_as_plain_json_and_gives_the_same_bits_when_loaded(fitted: TabularProcessor, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["preprocessor_config.json"]
    written = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert written["categories"] == [{"column": "kind", "values": ["", "a", "b"]}]
    TabularMLPConfig(num_features=6).save_pretrained(tmp_path)
    for loaded in (TabularProcessor.from_pretrained(tmp_path), AutoFeatureExtractor.from_pretrained(tmp_path)):
        assert type(loaded) is TabularProcessor
        assert fitted(TABLE)["features"].tobytes() == loaded(TABLE)["features"].tobytes()
        assert loaded.to_dict() == fitted.to_dict()


def test_a_category_that_was_not_seen_is_all_zeros(fitted: TabularProcessor) -> None:
    row = {**{name: values[:1] for name, values in TABLE.items()}, "kind": ["new"]}
    assert fitted(row)["features"][0, 3:].tolist() == [0, 0, 0]


def test_missing_values_are_the_median_and_a_category_of_their_own(fitted: TabularProcessor) -> None:
    found = fitted({"area": [None, 1.1], "year": [1990, None], "constant": [3, 3], "kind": [None, "a"]})["features"]
    assert found[0, 0] == found[1, 0]  # 1.1 is the median
    assert found[0, 1] == found[1, 1]  # 1990 is
    assert found[:, 3:].tolist() == [[1, 0, 0], [0, 1, 0]]


def test_whole_numbers_are_one_category_with_and_without_a_missing_one_beside_them() -> None:
    processor = TabularProcessor()
    processor.fit({"code": [20, 30, 20]}, ["code"])
    found = processor({"code": [20.0, None, 30.0]})["features"]  # as pandas reads a column with a gap
    assert found.tolist() == [[1, 0], [0, 0], [0, 1]]


def test_tensors_are_made_when_asked_for(fitted: TabularProcessor) -> None:
    assert fitted(TABLE, return_tensors="pt")["features"].shape == (5, 6)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("area", ["x"], r"Column `area`, row 7: found 'x' where numbers are expected.*`categorical_columns`"),
        ("area", [float("inf")], "Column `area`, row 7: found an infinite number"),
        ("year", [1e300], "Column `year`, row 7: 1e\\+300 is too far from the numbers of the pool"),
    ],
)
def test_values_that_cannot_be_numbers_are_refused_with_their_row(
    fitted: TabularProcessor, column: str, values: list[Any], message: str
) -> None:
    row = {**{name: [value[0]] for name, value in TABLE.items()}, column: values}
    with pytest.raises(ValueError, match=message):
        fitted(row, first_row=7)


def test_columns_without_any_value_are_refused_by_name() -> None:
    table = {"a": [None, float("nan")], "b": ["", None], "c": [1, 2]}
    with pytest.raises(ValueError, match=r"in columns `a`, `b` of the pool.*`ignore_columns: \[a, b\]`"):
        TabularProcessor().fit(table, ["b"])


@pytest.mark.parametrize("largest", [1e300, 1.7e308])
def test_numbers_too_large_to_scale_are_refused(largest: float) -> None:
    processor = TabularProcessor()
    processor.fit({"a": [largest, largest / 2]}, [])
    with pytest.raises(ValueError, match="Column `a`, row 0: .* is too far from the numbers of the pool"):
        processor({"a": [largest, largest / 2]})


def test_what_is_not_fitted_or_misses_a_column_is_refused(fitted: TabularProcessor) -> None:
    with pytest.raises(ValueError, match="knows no columns yet. Call `fit`"):
        TabularProcessor()(TABLE)
    with pytest.raises(ValueError, match="The column `year` is missing: the model was trained with it. Found: area"):
        fitted({"area": [1], "kind": ["a"], "constant": [3]})
