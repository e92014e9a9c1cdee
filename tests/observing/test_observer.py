"""Observation: each row once, in order, collated once, in batches of similar length."""

from collections.abc import Mapping
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from tiny_run import collate, make_model, make_pool
from torch import Tensor, nn

from hf_noise_al.noise.gradient_sketch.sketch import GradientSketch
from hf_noise_al.observables.base import probabilities
from hf_noise_al.observing.observer import Observer


def make_observer(
    pool: Dataset,
    model: nn.Module,
    collator: Any = collate,
    batch_size: int = 8,
    process: int = 0,
    processes: int = 1,
    max_tokens_per_batch: int | None = None,
    train_batch_size: int = 16,
) -> Observer:
    accelerator = SimpleNamespace(
        num_processes=processes, process_index=process, is_local_main_process=True, device=torch.device("cpu")
    )
    dataset = pool.select_columns([name for name in pool.column_names if name in ("input_ids", "attention_mask", "id")])
    return Observer(
        model,
        dataset,
        list(range(len(pool))),
        collator,
        dict,
        batch_size,
        train_batch_size,
        accelerator,
        disable_tqdm=True,
        max_tokens_per_batch=max_tokens_per_batch,
    )


def first_tokens(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([inputs["input_ids"][:, 0], inputs["attention_mask"].sum(1)], dim=1).float()


def noting_shapes(shapes: list[torch.Size]) -> Any:
    """`first_tokens`, which adds the shape of every batch to `shapes`."""

    def observable(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        shapes.append(inputs["input_ids"].shape)
        return first_tokens(model, inputs)

    return observable


@pytest.mark.parametrize("batch_size", [1, 7, 8, 50, 1000])
def test_sees_each_row_once_in_order_whatever_the_batch_size(batch_size: int) -> None:
    pool = make_pool(50)
    seen: list[torch.Size] = []

    rows = make_observer(pool, nn.Linear(1, 1), batch_size=batch_size)(noting_shapes(seen))
    assert rows.tolist() == [[ids[0], len(ids)] for ids in pool["input_ids"]]
    assert sum(count for count, _ in seen) == 50
    longest = max(map(len, pool["input_ids"]))
    assert seen[0] == (min(batch_size, 50), longest)
    assert all(shape.numel() <= batch_size * longest for shape in seen)
    for (count, length), (_, next_length) in pairwise(seen):
        assert count == batch_size * longest // length, "as many rows as the tokens allow"
        assert next_length <= length


@pytest.mark.parametrize("budget", [1, 37, 100, 10_000])
def test_a_token_budget_takes_the_place_of_the_batch_size(budget: int) -> None:
    pool = make_pool(50)
    shapes: list[torch.Size] = []

    rows = make_observer(pool, nn.Linear(1, 1), max_tokens_per_batch=budget)(noting_shapes(shapes))
    assert rows[:, 1].tolist() == [len(ids) for ids in pool["input_ids"]]
    assert all(shape.numel() <= budget or shape[0] == 1 for shape in shapes)
    unknown = Dataset.from_dict({"id": list(range(10))})
    observer = make_observer(unknown, nn.Linear(1, 1), batch_size=4, max_tokens_per_batch=budget)
    assert list(map(len, observer.batches.positions)) == [4, 4, 2], "nobody knows tokens here"


@pytest.mark.parametrize("budget", [None, 40])
def test_a_graph_is_kept_for_half_as_many_tokens_as_in_training(budget: int | None) -> None:
    pool, model = make_pool(50), make_model()
    observer = make_observer(pool, model, batch_size=20, train_batch_size=6, max_tokens_per_batch=budget)
    seen: list[torch.Size] = []
    clean = observer(noting_shapes(seen))
    before = list(seen)

    def noting_probabilities(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        seen.append(inputs["input_ids"].shape)
        return probabilities(model, inputs)

    seen.clear()
    sketch = GradientSketch(model, 1e-3, torch.Generator().manual_seed(0), observable=noting_probabilities)
    rows = observer(sketch)
    assert max(map(torch.Size.numel, seen)) <= (budget or 3 * max(map(len, pool["input_ids"])))
    in_large_batches = make_observer(pool, model, batch_size=50, train_batch_size=100)
    assert torch.allclose(rows, in_large_batches(sketch), rtol=1e-3, atol=1e-7)
    seen.clear()
    assert torch.equal(observer(noting_shapes(seen)), clean) and seen == before, "without a graph, as before"


def test_rows_do_not_depend_on_the_batch_size_but_for_rounding() -> None:
    pool, model = make_pool(50), make_model()
    whole = make_observer(pool, model, batch_size=50)(probabilities)
    ragged = make_observer(pool, model, batch_size=8)(probabilities)
    single = torch.cat([make_observer(pool.select([row]), model)(probabilities) for row in range(50)])
    assert torch.allclose(whole, ragged, atol=1e-6)
    assert torch.allclose(whole, single, atol=1e-6)


def test_goes_on_after_a_failure_in_the_middle() -> None:
    pool = make_pool(50)
    observer = make_observer(pool, nn.Linear(1, 1))
    calls: list[int] = []

    def failing(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return first_tokens(model, inputs)

    with pytest.raises(RuntimeError, match="out of memory"):
        observer(failing)
    assert torch.equal(observer(first_tokens), make_observer(pool, nn.Linear(1, 1))(first_tokens))


def test_workers_may_collate() -> None:
    pool = make_pool(20)
    observer = make_observer(pool, nn.Linear(1, 1))
    observer.num_workers = 1
    assert torch.equal(observer(first_tokens), make_observer(pool, nn.Linear(1, 1))(first_tokens))


def test_wide_numbers_stay_wide() -> None:
    rows = make_observer(make_pool(9), nn.Linear(1, 1))(lambda m, inputs: first_tokens(m, inputs).double() / 3)
    assert rows.dtype == torch.float64
    low = make_observer(make_pool(9), nn.Linear(1, 1))(lambda m, inputs: first_tokens(m, inputs).bfloat16())
    assert low.dtype == torch.float32


@pytest.mark.parametrize(
    "observable", [lambda m, inputs: first_tokens(m, inputs)[0], lambda m, inputs: first_tokens(m, inputs)[:1]]
)
def test_an_observable_of_another_shape_is_refused(observable: Any) -> None:
    with pytest.raises(ValueError, match=r"must return one row per example: \(8, D\) here, found"):
        make_observer(make_pool(20), nn.Linear(1, 1))(observable)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_an_output_that_is_not_finite_is_refused_by_row(bad: float) -> None:
    pool = make_pool(20)

    def observable(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        rows = first_tokens(model, inputs)
        rows[rows[:, 1] == len(pool[13]["input_ids"])] = bad
        return rows

    same = [row for row, ids in enumerate(pool["input_ids"]) if len(ids) == len(pool[13]["input_ids"])]
    with pytest.raises(ValueError, match=rf"row {same[0]} of .* is NaN or infinite \({len(same)} of 20 rows are\)"):
        make_observer(pool, nn.Linear(1, 1))(observable)
