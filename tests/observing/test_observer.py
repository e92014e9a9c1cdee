"""Observation: each row once, in order, collated once, in batches of similar length."""

import random
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny_run import collate, make_model, make_pool, make_trainer
from torch import Tensor, nn
from torch._utils import ExceptionWrapper

from hf_noise_al.noise.gradient_sketch.layer_taps import UnsupportedModuleError
from hf_noise_al.noise.gradient_sketch.sketch import GradientSketch
from hf_noise_al.observables.base import probabilities
from hf_noise_al.observing import observer as observation
from hf_noise_al.observing.observer import Observer, untouched_random_state


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
    assert list(map(len, observer.batches)) == [4, 4, 2], "nobody knows tokens here"


def limited(rows: int, text: str = "CUDA out of memory. Tried to allocate 2 GiB") -> Any:
    """An observable for which no more than so many rows fit into memory."""

    def observable(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        if len(inputs["input_ids"]) > rows:
            raise torch.OutOfMemoryError(text)
        return first_tokens(model, inputs)

    return observable


class Slow:
    """An observable that takes a second for every token, by a clock of its own, and sees each row three times."""

    passes = 3

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("hf_noise_al.observing.observer.time.perf_counter", lambda: self.now)

    def __call__(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        self.now += inputs["input_ids"].numel()
        return first_tokens(model, inputs)


@pytest.mark.parametrize("batch_size", [5, 30, 1000])
def test_the_first_batches_tell_once_how_long_all_passes_take(
    batch_size: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    observer, slow = make_observer(make_pool(50), nn.Linear(1, 1), batch_size=batch_size), Slow(monkeypatch)
    with caplog.at_level("INFO", logger="hf_noise_al"):
        observer(first_tokens)
        assert "takes about" not in caplog.text
        observer(slow)
        seconds = slow.now
        observer(slow)
    count = len(observer.batches)
    assert f"By the first {min(2, count)} of {count} batches" in caplog.text
    assert f"observing them 3 times takes about {3 * seconds:.0f} s" in caplog.text
    assert caplog.text.count("takes about") == 1


def test_batches_shrink_when_memory_runs_out_and_stay_small(caplog: pytest.LogCaptureFixture) -> None:
    pool = make_pool(50)
    observer = make_observer(pool, nn.Linear(1, 1), batch_size=20)
    before = observer.budget
    with caplog.at_level("WARNING", logger="hf_noise_al"):
        rows = observer(limited(7))
    assert torch.equal(rows, make_observer(pool, nn.Linear(1, 1))(first_tokens))
    assert max(map(len, observer.batches)) <= 7 and observer.budget < before
    assert "Out of memory: observing again, " in caplog.text
    small = observer.budget
    assert torch.equal(observer(limited(7)), rows) and observer.budget == small


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


def test_what_does_not_fit_in_any_batch_is_an_error() -> None:
    observer = make_observer(make_pool(20), nn.Linear(1, 1), batch_size=4)
    with pytest.raises(ValueError, match=r"A single row does not fit into memory\. Shorten rows .*CUDA out of memory"):
        observer(limited(0))


def test_other_errors_do_not_shrink_batches() -> None:
    observer = make_observer(make_pool(20), nn.Linear(1, 1))
    before = observer.budget
    with pytest.raises(RuntimeError, match="something else"):
        observer(limited(0, "something else"))
    assert observer.budget == before


@pytest.mark.parametrize("own", [None, ValueError("mine"), torch.OutOfMemoryError("CUDA out of memory. Mine")])
@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (ValueError("theirs"), "mine|theirs"),
        (RuntimeError("CUDA out of memory. Theirs"), "mine|CUDA out of memory"),
        (UnsupportedModuleError("theirs"), "mine|theirs"),
    ],
)
def test_an_error_of_one_process_is_raised_on_all(
    monkeypatch: pytest.MonkeyPatch, own: Exception | None, other: Exception, expected: str
) -> None:
    def gather(errors: list[Any], mine: Any) -> None:
        errors[:] = [other, mine]

    monkeypatch.setattr(observation.dist, "all_gather_object", gather)
    observer = make_observer(make_pool(20), nn.Linear(1, 1), processes=2)
    with pytest.raises(Exception, match=expected) as caught:
        observer._agree(own)
    if not isinstance(own, ValueError):
        assert type(caught.value) is type(other), "an error that smaller batches do not mend comes first"


def test_rows_do_not_depend_on_the_batch_size_but_for_rounding() -> None:
    pool, model = make_pool(50), make_model()
    whole = make_observer(pool, model, batch_size=50)(probabilities)
    ragged = make_observer(pool, model, batch_size=8)(probabilities)
    single = torch.cat([make_observer(pool.select([row]), model)(probabilities) for row in range(50)])
    assert torch.allclose(whole, ragged, atol=1e-6)
    assert torch.allclose(whole, single, atol=1e-6)


@pytest.mark.parametrize("processes", [2, 3, 4, 7])
def test_batches_are_formed_before_they_are_dealt(processes: int) -> None:
    pool, model = make_pool(50), nn.Linear(1, 1)
    alone = make_observer(pool, model).batches
    dealt = [make_observer(pool, model, process=process, processes=processes).batches for process in range(processes)]
    assert sorted(batch for batches in dealt for batch in batches) == sorted(alone)
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_batches_hold_rows_of_similar_length() -> None:
    pool = make_pool(50)
    lengths = [len(ids) for ids in pool["input_ids"]]
    batches = make_observer(pool, nn.Linear(1, 1)).batches
    assert [lengths[row] for batch in batches for row in batch] == sorted(lengths, reverse=True)
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    assert padded < 1.2 * sum(lengths)


def test_rows_without_a_length_keep_their_order() -> None:
    pool = Dataset.from_dict({"id": list(range(10))})
    observer = make_observer(pool, nn.Linear(1, 1), lambda examples: {"x": torch.tensor([e["id"] for e in examples])})
    assert observer.batches == [[*range(8)], [8, 9]]
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

    monkeypatch.setattr(observation, "CACHE_BYTES", 3000)
    observer = make_observer(pool, nn.Linear(1, 1), collator)
    first = observer(first_tokens)
    assert 0 < len(observer.kept) < len(observer.batches)
    assert torch.equal(observer(first_tokens), first)
    assert sum(collated) == 50 + 50 - sum(len(batch["input_ids"]) for batch in observer.kept)


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


def test_the_model_is_in_evaluation_mode_meanwhile_and_each_module_as_before_after() -> None:
    model = make_model()
    model.train()
    model.bert.encoder.eval()
    before = [module.training for module in model.modules()]
    seen = []

    def observable(module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        seen.append((any(m.training for m in module.modules()), torch.is_grad_enabled()))
        return first_tokens(module, inputs)

    make_observer(make_pool(8), model)(observable)
    assert seen == [(False, False)]
    assert [module.training for module in model.modules()] == before


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


def test_random_states_are_put_back_also_after_an_error() -> None:
    def state() -> tuple[Any, ...]:
        return random.getstate(), torch.get_rng_state().tolist(), [*map(str, np.random.get_state())]

    before = state()
    with pytest.raises(RuntimeError), untouched_random_state():
        torch.rand(3), np.random.rand(3), random.random()
        assert state() != before
        raise RuntimeError
    assert state() == before


@pytest.mark.parametrize("key", ["grade", "lenght"])
def test_a_key_that_a_worker_process_misses_is_known_by_its_traceback(key: str) -> None:
    try:
        {}[key]
    except KeyError:
        caught = ExceptionWrapper(where="in DataLoader worker process 0")  # as the DataLoader passes it on
    message = "asks for 'grade', which the examples" if key == "grade" else "KeyError: 'lenght'"
    kind = ValueError if key == "grade" else KeyError
    with pytest.raises(kind, match=message), observation._explaining_missing_labels(["label", "grade"]):
        caught.reraise()
