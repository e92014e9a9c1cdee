"""The verb `query`: ask once with a model that was trained already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers.utils import logging

from ..files.run_names import STATE_FILE
from ..run_folder.set_aside import read_set_aside
from ..run_folder.state_file import labeled_rows_of
from ..settings.parsing import parse
from ..settings.recipe import InvalidArgument
from ..trainer import ActiveTrainer
from .console import lines_above_bars, say
from .existing_runs import is_run
from .prepare import prepare_query
from .recipes import recipe_and_flags
from .settings_help import describe_settings, wants_help

logger = logging.get_logger(__name__)


def main(words: Sequence[str]) -> None:
    """Ask once as the recipe that `words` begins with says, changed by the flags after it."""
    if wants_help(words):
        say(describe_settings("query"))
        return
    with lines_above_bars():
        for text in query(*recipe_and_flags("query", words)):
            say(text)


def query(recipe: Path, flags: Sequence[str]) -> Iterator[str]:
    """Ask once with a model that was trained already; yield where the rows to label are."""
    model, data, training = parse(recipe, flags)
    for name in ("seeds", "baselines"):
        if getattr(training, name):
            raise InvalidArgument(f"`query` asks once and does not use `{name}`. Leave it out.")
    folder = Path(str(training.output_dir))
    if is_run(folder) and not training.start_afresh:
        raise InvalidArgument(f"{folder} holds a run, whose queries would be overwritten. Pass another `--output_dir`.")
    job = prepare_query(model, data, training)
    _leave_out_what_it_was_trained_on(job.trainer, Path(str(model.model_name_or_path)))
    chosen = job.trainer.query()
    if training.should_save:
        yield (
            f"{len(chosen.indices)} of {len(job.trainer.pool.unlabeled_rows)} rows, best first: "
            f"{folder / 'queries' / 'round-00.jsonl'}"
        )


def _leave_out_what_it_was_trained_on(trainer: ActiveTrainer, folder: Path) -> None:
    """Count as labeled what the run in `folder` labeled, where its data was this data."""
    path = folder / STATE_FILE
    if not path.is_file():
        return
    rows = labeled_rows_of(path, trainer.data.fingerprint())
    if rows is None:
        logger.warning(
            f"{folder} was trained on another pool, or on this one with other settings of the inputs: the query may "
            "ask for labels that it has seen."
        )
        return
    known = set(trainer.pool.labeled_rows)
    new = {row: label for row, label in rows.items() if row not in known}
    trainer.pool.annotate(list(new), list(new.values()), round=-1, given=True)
    measured = read_set_aside(folder)
    trainer.pool.leave_out(measured)
    logger.info(
        f"The query leaves out the {len(new)} rows that were labeled for {folder} and the {len(measured)} that it was "
        "measured on."
    )
