"""Events of the rounds, fired beside those of `transformers.TrainerCallback`."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from .training_args import ActiveTrainingArguments


class ActiveTrainerCallback(TrainerCallback):
    """A `TrainerCallback` that is also told about queries and rounds.

    Every event gets the keyword arguments of a `TrainerCallback` event (``model``, ``processing_class``, ...).
    """

    def on_query_begin(
        self, args: ActiveTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Be told that a query begins; ``kwargs["pool"]`` is the `Pool`."""

    def on_query_end(
        self, args: ActiveTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Be told what a query chose: ``kwargs["query"]``, rows of the data set, best first."""

    def on_round_end(
        self, args: ActiveTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Be told that a round was trained, evaluated and recorded: ``kwargs["record"]``, ``kwargs["history"]``."""
