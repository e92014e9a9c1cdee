"""How long all passes take, told after the first batches."""

from collections.abc import Mapping

import pytest
from test_observer import first_tokens, make_observer
from tiny_run import make_pool
from torch import Tensor, nn


class Slow:
    """An observable that takes a second for every token, by a clock of its own, and sees each row three times."""

    passes = 3

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("hf_noise_al.observing.progress.time.perf_counter", lambda: self.now)

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
