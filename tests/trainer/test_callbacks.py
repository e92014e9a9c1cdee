"""Events of the rounds: told to those who know them, and to nobody else."""

from pathlib import Path

import pytest
from tiny_run import make_trainer
from transformers import TrainerCallback

from hf_noise_al import ActiveTrainerCallback


@pytest.mark.parametrize("event", ["on_query_begin", "on_query_end", "on_round_end"])
def test_an_event_may_be_left_out_and_callbacks_of_transformers_do_not_get_it(tmp_path: Path, event: str) -> None:
    told: list[str] = []

    def remember(self: object, args: object, state: object, control: object, **kwargs: object) -> None:
        told.append(f"{type(self).__name__} {sorted(kwargs)}")

    knows = type("Knows", (ActiveTrainerCallback,), {event: remember})
    other = type("Other", (TrainerCallback,), {event: remember})
    trainer = make_trainer(tmp_path, trainer={"callbacks": [other(), knows(), ActiveTrainerCallback()]})
    trainer._fire(event, detail=1)
    assert told == ["Knows ['detail', 'model', 'processing_class']"]
