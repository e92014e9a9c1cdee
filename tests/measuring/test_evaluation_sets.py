"""Evaluation sets: labels named as the pool's are, a few rows of two batches, and why nothing is measured."""

import torch
from datasets import Dataset
from tiny_run import make_pool

from hf_noise_al.measuring.evaluation_sets import name_labels, some_rows, why_nothing_is_measured
from hf_noise_al.pool.pool_dataset import PoolDataset


def test_labels_are_called_as_in_the_labeled_split_of_the_pool() -> None:
    rows = Dataset.from_dict({"x": [1, 2], "label": [5, 6], "intent": [0, 1]})
    pool = PoolDataset(rows, "intent")
    named = name_labels(rows, pool)
    assert (named.column_names, named["labels"][:]) == (["x", "labels"], [0, 1])
    assert name_labels(named, pool) is named, "named so already"
    sets = name_labels({"a": rows, "b": named}, pool)
    assert sets["a"].column_names == ["x", "labels"] and sets["b"] is named
    for other in (None, "a", [{"x": 1, "intent": 0}]):
        assert name_labels(other, pool) is other
    assert name_labels(rows, PoolDataset(rows, "label")) is rows, "models and collators know this name"


def test_rows_are_the_shortest_and_the_longest_where_there_is_more_than_one_batch() -> None:
    rows = Dataset.from_dict({"input_ids": [[1] * length for length in (5, 2, 9, 1, 7, 3)]})
    found, size = some_rows(rows, 4)
    assert (size, [len(ids) for ids in found["input_ids"]]) == (2, [1, 2, 7, 9])
    found, size = some_rows(rows, 8)
    assert (size, len(found)) == (2, 2), "all of them are one batch"
    found, size = some_rows(rows, 1)
    assert (size, [len(ids) for ids in found["input_ids"]]) == (1, [1, 9])
    assert some_rows([10, 11, 12], 2) == ([10, 11], 2)
    assert some_rows([10], 2) == ([10], 1)


def test_why_nothing_is_measured_is_told_by_what_is_missing() -> None:
    rows, batch = make_pool(2).remove_columns("label"), {"input_ids": torch.zeros(1)}
    labeled = {**batch, "labels": torch.zeros(1)}

    def why(inputs: dict[str, torch.Tensor], names: list[str], loss_only: bool = False) -> str:
        return why_nothing_is_measured("evaluation set", inputs, rows, names, loss_only)

    assert why(batch, ["labels"]).startswith(
        "the evaluation set has no labels; its columns are input_ids, attention_mask, text. Give it the column `labels`"
    )
    assert why(labeled, ["foo"]).startswith("`label_names` is ['foo'], and a batch of the evaluation set has input_ids")
    assert why(labeled, []).endswith("Set `label_names` to ['labels']")
    assert why(batch, []).startswith("`label_names` is empty")
    assert why(labeled, ["labels"], True).startswith("`prediction_loss_only` is set")
    assert why(labeled, ["labels"]).startswith("the model returns no predictions or no loss")
