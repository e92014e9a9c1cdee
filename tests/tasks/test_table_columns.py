"""Which columns of a table are inputs: what names or numbers rows is left out by exact rules, and said."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from hf_noise_al.loading.data import load_data
from hf_noise_al.settings.arguments import DataArguments
from hf_noise_al.tasks import TASKS
from hf_noise_al.tasks.tables.table_columns import table_columns, trained_columns
from hf_noise_al.tasks.tables.tabular_processor import TabularProcessor

ROWS = 40
SHUFFLED = np.random.default_rng(0).permutation(ROWS).tolist()


def inputs(settings: dict[str, Any] | None = None, id_column: str | None = None, **columns: list[Any]) -> list[str]:
    """Return the inputs of a table that has `columns` beside ``area`` and the label, ``price``."""
    rows = len(next(iter(columns.values()), [0] * ROWS))
    own = {"area": [float(row % 7) for row in range(rows)], "price": [1.0] * rows}
    arguments = DataArguments(dataset_name="x", **(settings or {}))
    if id_column is not None:
        arguments.id_column = id_column  # type: ignore[attr-defined, unused-ignore]
    return list(table_columns(Dataset.from_dict({**own, **columns}), arguments, "price"))


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("Unnamed: 0", [7.5, 7.5, None], "an index, by its name"),
        ("__index_level_0__", [7, 7, 9], "an index, by its name"),
        ("n", list(range(5, 5 + ROWS)), "numbers the rows"),
        ("n", [float(row) for row in range(-3, ROWS)], "numbers the rows"),
        ("n", SHUFFLED, "numbers the rows"),
        ("n", [row + 1 for row in SHUFFLED], "numbers the rows"),
        ("name", [f"house {row}" for row in range(20)], "another text in each of 20 rows, such as 'house 0'"),
        ("name", [None, "", *(f"house {row}" for row in range(20))], "another text in each of 20 rows, such as 'hous"),
        ("Id", [5, 3, 900], "names the rows"),
        ("ID", ["x", "y", "z"], "names the rows"),
    ],
)
def test_what_names_or_numbers_the_rows_is_left_out_and_said(
    name: str, values: list[Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert inputs(**{name: values}) == ["area"]
    assert f"Left out of the inputs: `{name}` ({why}" in caplog.text
    assert "To keep one, name all inputs in `feature_columns`" in caplog.text


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("n", list(range(19))),  # so few may be in order by chance
        ("n", [*range(ROWS - 1), 0]),
        ("n", [2 * row for row in range(ROWS)]),
        ("n", [row + 2 for row in SHUFFLED]),
        ("n", [row + 0.5 for row in range(ROWS)]),
        ("n", [*range(ROWS - 1), None]),
        ("n", [row % 2 == 0 for row in range(ROWS)]),
        ("n", [2**60, *range(ROWS - 1)]),
        ("n", [float("inf"), *range(ROWS - 1)]),
        ("name", [f"house {row}" for row in range(19)]),
        ("name", ["house 1", *(f"house {row}" for row in range(ROWS))]),
        ("Id", [1, 1, 2]),
        ("id_of_owner", [5, 3, 900]),
    ],
)
def test_what_may_be_a_measure_stays(name: str, values: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    assert inputs(**{name: values}) == ["area", name]
    assert "Left out" not in caplog.text


def test_row_numbers_with_gaps_stay_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert inputs(n=[2 * row for row in range(ROWS)]) == ["area", "n"]
    assert "Column `n` rises from row to row. If it only numbers the rows, leave it out: `ignore_columns: [n]`" in (
        caplog.text
    )


def test_numbers_that_doubles_cannot_tell_apart_are_row_numbers() -> None:
    assert inputs(n=[2**62 + row for row in range(ROWS)]) == ["area"]


def test_columns_that_are_asked_for_stay(caplog: pytest.LogCaptureFixture) -> None:
    columns = {"Id": list(range(ROWS)), "name": [f"house {row}" for row in range(ROWS)]}
    assert inputs({"feature_columns": ["name", "Id"]}, **columns) == ["name", "Id"]
    assert inputs({"categorical_columns": ["Id"]}, **columns) == ["area", "Id"]
    assert inputs({"ignore_columns": ["Id"]}, **columns) == ["area"]
    assert "`Id`" not in caplog.text


def test_the_column_that_names_rows_is_no_input(caplog: pytest.LogCaptureFixture) -> None:
    assert inputs(id_column="key", key=[3, 3, 4], Id=[1, 2, 3]) == ["area"]
    assert "`key` (names the rows), `Id` (names the rows)" in caplog.text
    assert inputs({"feature_columns": ["key"]}, id_column="key", key=[3, 3, 4]) == ["key"]


def test_where_nothing_is_left_what_was_left_out_is_said() -> None:
    with pytest.raises(
        ValueError, match=r"No input column.*Left out of the inputs: `area` \(numbers the rows\)\. Name"
    ):
        inputs(area=list(range(ROWS)))


@pytest.mark.parametrize(("numbers", "kept"), [(list(range(ROWS)), 25), (SHUFFLED, ROWS)])
def test_row_numbers_of_a_file_are_known_where_rows_are_set_aside(
    numbers: list[int], kept: int, tmp_path: Path
) -> None:
    lines = [f"{number},{row % 5},{row}" for row, number in enumerate(numbers)]
    (tmp_path / "table.csv").write_text("\n".join(["number,area,price", *lines]))
    arguments = DataArguments(dataset_name=str(tmp_path / "table.csv"), max_train_samples=kept)
    pool = load_data(arguments, ["price"]).pool
    assert len(pool) == kept
    assert table_columns(pool, arguments, "price") == ("area",)


# ---- of a trained model --------------------------------------------------------------------------------------------


@pytest.fixture
def trained() -> TabularProcessor:
    processor = TabularProcessor()
    processor.fit({"size": [4, 2, 9], "kind": ["a", "b", "a"]}, ["kind"])
    return processor


def rows(**columns: list[Any]) -> Dataset:
    """Return a table in which the trained columns look like an index and like names."""
    own = {"kind": [f"k{row}" for row in range(ROWS)], "size": list(range(ROWS))}
    return Dataset.from_dict({**own, **columns})


@pytest.mark.parametrize("task", ["tabular_regression", "tabular_classification"])
def test_a_trained_model_reads_its_own_columns_of_any_table(
    task: str, trained: TabularProcessor, caplog: pytest.LogCaptureFixture
) -> None:
    index = {"Unnamed: 0": SHUFFLED, "photo": [[1]] * ROWS, "far": [float("inf")] * ROWS}
    arguments = DataArguments(dataset_name="x", ignore_columns=["Id"])  # as in the file that it was trained with
    with caplog.at_level(logging.INFO, "hf_noise_al"):
        config = type("Config", (), {"id2label": {0: "a", 1: "b"}, "num_labels": 2})
        ready = TASKS[task].prepare_query(rows(**index), trained, arguments, config)
    assert np.stack(ready.pool["features"][:]).shape == (ROWS, 3)
    assert "As the model was trained. Inputs: numbers (1): size; categories (1): kind. Together 3 features." in (
        caplog.text
    )
    assert "Left out" not in caplog.text


def test_a_trained_model_goes_on_with_its_own_columns(trained: TabularProcessor) -> None:
    pool, evaluation = rows(y=[0.0, 1.0] * 20, other=[1] * ROWS), rows(y=[0.0, 1.0] * 20)
    arguments = DataArguments(dataset_name="x")
    ready = TASKS["tabular_regression"].prepare(pool, evaluation, trained, arguments, "y")
    assert np.stack(ready.evaluation[""]["features"][:]).shape == (ROWS, 3)


@pytest.mark.parametrize(
    ("columns", "settings", "label", "message"),
    [
        (
            {"sizes": [1]},
            {},
            "y",
            r"no column `size`, which the model was trained with\. Did you mean `sizes`\? It has",
        ),
        ({}, {}, "size", "The label, `size`, is one of the inputs that the model was trained with"),
        (
            {},
            {"feature_columns": ["size"]},
            "y",
            r"ask for other inputs than .* trained with: size, kind\. Leave them out",
        ),
        (
            {},
            {"ignore_columns": ["size"]},
            "y",
            "ask for other inputs than those that the model was trained with: size, k",
        ),
        ({"features": [1]}, {}, "y", "has a column `features`, the name of the model's input"),
    ],
)
def test_what_a_trained_model_cannot_read_is_refused(
    columns: Any, settings: Any, label: str, message: str, trained: TabularProcessor
) -> None:
    table = {"kind": ["a"], **({} if "sizes" in columns else {"size": [1]}), **columns}
    arguments = DataArguments(dataset_name="x", **settings)
    with pytest.raises(ValueError, match=message):
        trained_columns(trained, Dataset.from_dict(table), arguments, label)
