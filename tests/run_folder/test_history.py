"""One record per round: frozen, and plain JSON."""

import json
from dataclasses import FrozenInstanceError, asdict

import pytest

from hf_noise_al.run_folder.history import RoundRecord


def test_a_record_goes_through_json_and_cannot_be_changed() -> None:
    record = RoundRecord(1, 30, 10, 2.5, 0.5, {"eval_accuracy": 0.75})
    assert RoundRecord(**json.loads(json.dumps(asdict(record)))) == record
    with pytest.raises(FrozenInstanceError):
        record.round = 2  # type: ignore[misc]


def test_records_do_not_share_their_metrics() -> None:
    first, second = RoundRecord(0, 1, 1, 0.0, 0.0), RoundRecord(0, 1, 1, 0.0, 0.0)
    first.metrics["eval_loss"] = 1.0
    assert second.metrics == {}
