"""Smaller batches where memory runs out, and errors that every process raises."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_observer import first_tokens, make_observer
from tiny_run import make_pool
from torch import Tensor, nn

from hf_noise_al.noise.gradient_sketch.layer_taps import UnsupportedModuleError
from hf_noise_al.observing import out_of_memory
from hf_noise_al.observing.out_of_memory import raise_on_all


def limited(rows: int, text: str = "CUDA out of memory. Tried to allocate 2 GiB") -> Any:
    """An observable for which no more than so many rows fit into memory."""

    def observable(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        if len(inputs["input_ids"]) > rows:
            raise torch.OutOfMemoryError(text)
        return first_tokens(model, inputs)

    return observable


def test_batches_shrink_when_memory_runs_out_and_stay_small(caplog: pytest.LogCaptureFixture) -> None:
    pool = make_pool(50)
    observer = make_observer(pool, nn.Linear(1, 1), batch_size=20)
    before = observer.batches.budget
    with caplog.at_level("WARNING", logger="hf_noise_al"):
        rows = observer(limited(7))
    assert torch.equal(rows, make_observer(pool, nn.Linear(1, 1))(first_tokens))
    assert max(map(len, observer.batches.positions)) <= 7 and observer.batches.budget < before
    assert "Out of memory: observing again, " in caplog.text
    small = observer.batches.budget
    assert torch.equal(observer(limited(7)), rows) and observer.batches.budget == small


def test_what_does_not_fit_in_any_batch_is_an_error() -> None:
    observer = make_observer(make_pool(20), nn.Linear(1, 1), batch_size=4)
    with pytest.raises(ValueError, match=r"A single row does not fit into memory\. Shorten rows .*CUDA out of memory"):
        observer(limited(0))


def test_other_errors_do_not_shrink_batches() -> None:
    observer = make_observer(make_pool(20), nn.Linear(1, 1))
    before = observer.batches.budget
    with pytest.raises(RuntimeError, match="something else"):
        observer(limited(0, "something else"))
    assert observer.batches.budget == before


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

    monkeypatch.setattr(out_of_memory.dist, "all_gather_object", gather)
    processes = SimpleNamespace(num_processes=2)
    with pytest.raises(Exception, match=expected) as caught:
        raise_on_all(own, processes, single_rows=False)  # type: ignore[arg-type]
    if not isinstance(own, ValueError):
        assert type(caught.value) is type(other), "an error that smaller batches do not mend comes first"
