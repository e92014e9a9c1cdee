"""Batches: formed before they are dealt, collated once, kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from test_observer import first_tokens, make_observer
from tiny_run import collate, make_pool, make_trainer
from torch import Tensor, nn
from torch._utils import ExceptionWrapper

from hf_noise_al.observing import collated_batches
from hf_noise_al.observing.collated_batches import explaining_missing_labels


@pytest.mark.parametrize("processes", [2, 3, 4, 7])
def test_batches_are_formed_before_they_are_dealt(processes: int) -> None:
    pool, model = make_pool(50), nn.Linear(1, 1)
    alone = make_observer(pool, model).batches.positions
    dealt = [
        make_observer(pool, model, process=process, processes=processes).batches.positions
        for process in range(processes)
    ]
    assert sorted(batch for batches in dealt for batch in batches) == sorted(alone)
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_batches_hold_rows_of_similar_length() -> None:
    pool = make_pool(50)
    lengths = [len(ids) for ids in pool["input_ids"]]
    batches = make_observer(pool, nn.Linear(1, 1)).batches.positions
    assert [lengths[row] for batch in batches for row in batch] == sorted(lengths, reverse=True)
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    assert padded < 1.2 * sum(lengths)


def test_rows_without_a_length_keep_their_order() -> None:
    pool = Dataset.from_dict({"id": list(range(10))})
    observer = make_observer(pool, nn.Linear(1, 1), lambda examples: {"x": torch.tensor([e["id"] for e in examples])})
    assert observer.batches.positions == [[*range(8)], [8, 9]]
    assert observer(lambda model, inputs: inputs["x"][:, None].float())[:, 0].tolist() == list(range(10))


def test_collates_each_row_once_however_often_it_is_observed() -> None:
    pool = make_pool(50)
    collated: list[int] = []

    def collator(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        collated.append(len(examples))
        return collate(examples)

    observer = make_observer(pool, nn.Linear(1, 1), collator)
    first = observer(first_tokens)
    for _ in range(4):
        assert torch.equal(observer(first_tokens), first)
    assert sum(collated) == 50


def test_collates_once_in_a_query_of_many_perturbations(tmp_path: Path) -> None:
    collated: list[int] = []

    def collator(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        collated.append(len(examples))
        return collate(examples)

    trainer = make_trainer(tmp_path, trainer={"data_collator": collator}, acquisition_kwargs={"num_perturbations": 5})
    trainer.query(3)
    assert sum(collated) == 60


def test_what_does_not_fit_in_memory_is_collated_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool(50)
    collated: list[int] = []

    def collator(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        collated.append(len(examples))
        return collate(examples)

    monkeypatch.setattr(collated_batches, "CACHE_BYTES", 3000)
    observer = make_observer(pool, nn.Linear(1, 1), collator)
    first = observer(first_tokens)
    assert 0 < len(observer.batches.kept) < len(observer.batches)
    assert torch.equal(observer(first_tokens), first)
    assert sum(collated) == 50 + 50 - sum(len(batch["input_ids"]) for batch in observer.batches.kept)


@pytest.mark.parametrize("key", ["grade", "lenght"])
def test_a_key_that_a_worker_process_misses_is_known_by_its_traceback(key: str) -> None:
    try:
        {}[key]
    except KeyError:
        caught = ExceptionWrapper(where="in DataLoader worker process 0")  # as the DataLoader passes it on
    message = "asks for 'grade', which the examples" if key == "grade" else "KeyError: 'lenght'"
    kind = ValueError if key == "grade" else KeyError
    with pytest.raises(kind, match=message), explaining_missing_labels(["label", "grade"]):
        caught.reraise()
