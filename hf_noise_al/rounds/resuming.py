"""Going on with a run that stopped: its state, and the weights that its next step needs."""

from __future__ import annotations

from pathlib import Path

from transformers.utils.logging import get_logger

from ..files.shown_text import listed
from ..pool.pool import Pool
from ..refusals import Refusal
from ..run_folder.state import ActiveState
from ..run_folder.stored_run import StoredRun
from .training import RoundTraining

logger = get_logger(__name__)


def refuse_other_folder(run: StoredRun, folder: bool | str) -> None:
    """Raise ValueError where a run in another folder than `output_dir` is asked for."""
    if isinstance(folder, str) and Path(folder).resolve() != run.folder.resolve():
        raise Refusal(f"Cannot resume from {folder}: set `output_dir` to it, it is {run.folder} now.")


def take_weights(run: StoredRun, state: ActiveState, training: RoundTraining) -> None:
    """Give the model the weights that `state` was written with, from the disk or by training the last round again."""
    if state.has_new_classes:
        _go_on_with_new_classes(run, state, training)
    elif not run.weights.resume(state):
        _train_again(run, state, training)


def _go_on_with_new_classes(run: StoredRun, state: ActiveState, training: RoundTraining) -> None:
    """Train the last round of `state` again where a query needs its model: the stored one has fewer outputs."""
    trainer, names = run.trainer, run.reader.names or ()
    if trainer.model_init is None or trainer.args.warm_start:
        raise Refusal(
            f"{run.folder} holds a run of fewer classes, and new ones need a new output head in each round. "
            "Pass a `model_init`, without `warm_start`; or start afresh."
        )
    logger.info(f"The run goes on with {len(names)} classes: {listed(names)}.")
    run.weights.resumed_round = None
    if state.phase == "query" and state.history:
        _train_again(run, state, training)


def _train_again(run: StoredRun, state: ActiveState, training: RoundTraining) -> None:
    """Make the weights of the last round of `state` anew, from the labels that it had."""
    before, *history, last = run.state, *state.history
    known = Pool(state.pool.size, state.pool.annotations[: last.num_labeled], state.pool.set_aside)
    run.state = ActiveState(known, history)
    try:
        training.train(last.round)
    finally:
        run.state = before
    run.weights.resumed_round = state.round
