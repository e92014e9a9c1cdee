"""Runs that are there already: which may be overwritten, continued or left alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..experiments.learning_curve import LearningCurve
from ..files.run_names import CARD_FILE, CURVE_FILE, STATE_FILE
from ..run_folder.fingerprint import argument_fingerprint, fingerprint_defaults
from ..run_folder.state_file import refuse_other_run
from ..settings.arguments import RunArguments
from ..settings.recipe import InvalidArgument
from .prepare import Settings, refusing
from .run_settings import refuse_other_inputs, settings_of


def refuse_folder_in_use(runs: Sequence[RunArguments]) -> None:
    """Refuse to overwrite a run that is neither resumed nor, explicitly, started afresh."""
    for arguments in runs:
        folder = Path(str(arguments.output_dir))
        if (folder / STATE_FILE).exists() and not arguments.resumes and not arguments.start_afresh:
            raise InvalidArgument(
                f"{folder} already holds a run. Continue it with `--resume_from_checkpoint true`, replace it with "
                "`--start_afresh true`, or pass another `--output_dir`."
            )


def refuse_other_settings(runs: Sequence[Settings]) -> None:
    """Refuse to resume runs that were made otherwise, also those that are finished, before one is trained.

    Compared are the settings of training and acquisition, of the model, the data and the metrics. Rows that changed
    under the name of their file are noticed where a run is continued.
    """
    for model, data, training in runs:
        folder = Path(str(training.output_dir))
        if not training.resumes or not (folder / STATE_FILE).exists():
            continue
        with refusing():
            acquisition = training.make_acquisition()
            defaults = fingerprint_defaults(training, acquisition)
            refuse_other_run(folder / STATE_FILE, argument_fingerprint(training, acquisition), defaults)
        refuse_other_inputs(settings_of(model, data, training), folder)
        try:
            curve = LearningCurve.load(folder)
        except (OSError, ValueError):
            continue  # the run goes on from its state and writes the curve anew
        if len(curve.points) > training.num_rounds:
            raise InvalidArgument(
                f"{folder} holds a run of {len(curve.points)} rounds, and {training.num_rounds} are asked for. Pass "
                f"`--num_rounds {len(curve.points)}`, or another `--output_dir`."
            )


def is_run(folder: Path) -> bool:
    """Return whether `folder` holds a run of which at least one round is trained."""
    return (folder / CURVE_FILE).exists()


def is_finished(arguments: RunArguments) -> bool:
    """Return whether all rounds of a run are trained and what comes after them is written."""
    folder = Path(str(arguments.output_dir))
    try:
        rounds = len(LearningCurve.load(folder).points)
    except (OSError, ValueError):
        return False
    return rounds >= arguments.num_rounds and (folder / CARD_FILE).exists()  # the card is written last
