"""The verb `run`: arguments -> trainer -> rounds -> the files that a run leaves; once, or with every seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from transformers.utils import logging

from ..experiments.comparison import Comparison, compare, to_json
from ..experiments.learning_curve import LearningCurve
from ..experiments.plotting import plot_curves
from ..experiments.tables import format_rounds, format_table
from ..files.atomic import write_atomically
from ..files.run_names import COMPARISON_FILE, CURVE_FILE, PICTURE_FILE, STATE_FILE
from ..files.shown_text import one_line
from ..settings.acquisition_flags import without_options
from ..settings.arguments import RunArguments
from ..settings.parsing import parse
from ..tasks import TASKS
from .console import lines_above_bars, say
from .existing_runs import is_finished, refuse_folder_in_use, refuse_other_settings
from .interruption import telling_what_is_saved
from .prepare import Job, Settings, prepare, refuse_settings
from .recipes import recipe_and_flags
from .settings_help import describe_settings, wants_help

logger = logging.get_logger(__name__)


def main(words: Sequence[str]) -> None:
    """Do what the recipe that `words` begins with says, changed by the flags after it."""
    if wants_help(words):
        say(describe_settings("run"))
        return
    with lines_above_bars():
        for text in run(*recipe_and_flags("run", words)):
            say(text)


def run(recipe: Path, flags: Sequence[str]) -> Iterator[str]:
    """Do what the recipe says, once or with every acquisition and seed; yield what to tell on the main process."""
    model, data, training = parse(recipe, flags)
    if training.seeds or training.baselines:
        yield from _run_repeats(recipe, flags, training)
        return
    refuse_folder_in_use([training])
    refuse_other_settings([(model, data, training)])
    with telling_what_is_saved([training]):
        job = prepare(model, data, training)
        table = train(job)
    yield from _on_main_process(training, f"{table}\n\nModel, learning curve and queries are in {job.folder}")


def _run_repeats(recipe: Path, flags: Sequence[str], training: RunArguments) -> Iterator[str]:
    parts = _repeats(recipe, flags, training)
    refuse_folder_in_use([part[2] for part in parts])
    refuse_other_settings(parts)
    refuse_settings(parts)
    with telling_what_is_saved([part[2] for part in parts]):
        for number, part in enumerate(parts, start=1):
            title = f"[{number}/{len(parts)}] {part[2].acquisition}, seed {part[2].seed}"
            if is_finished(part[2]) and part[2].resumes:
                yield from _on_main_process(training, f"{title}: finished before")
                continue
            yield from _on_main_process(training, f"{title}\n{train(prepare(*part))}\n")
    if training.should_save:
        yield _compare_repeats(Path(str(training.output_dir)), [Path(str(part[2].output_dir)) for part in parts])


def _repeats(recipe: Path, flags: Sequence[str], training: RunArguments) -> list[Settings]:
    acquisitions = list(dict.fromkeys([training.acquisition, *(training.baselines or ())]))
    seeds = list(dict.fromkeys(training.seeds or [training.seed]))
    return [
        parse(recipe, _flags_of_repeat(flags, training, acquisition, seed))
        for seed in seeds
        for acquisition in acquisitions
    ]


def _flags_of_repeat(flags: Sequence[str], training: RunArguments, acquisition: str, seed: int) -> list[str]:
    folder = Path(str(training.output_dir)) / f"{acquisition}-seed-{seed}"
    own: list[str] = []
    if acquisition != training.acquisition:
        flags, own = without_options(flags), ["--acquisition", acquisition, "--acquisition_kwargs={}"]
    return [*flags, *own, f"--seed={seed}", f"--output_dir={folder}"]


def train(job: Job) -> str:
    """Run all rounds and leave the model, its card and the learning curve; return the table of rounds."""
    with job.trainer.alone_in_folder():
        return _train(job)


def _train(job: Job) -> str:
    state = job.folder / STATE_FILE
    resume = job.arguments.resumes and state.exists()
    if job.arguments.resumes and not resume:
        logger.warning(f"There is no {state} to resume from: starting with round 0.")
    job.trainer.train(resume_from_checkpoint=resume)
    job.trainer.save_model()
    curve = replace(job.curve, points=tuple(map(asdict, job.trainer.history)))
    if job.trainer.is_world_process_zero():
        curve.save(job.folder / CURVE_FILE)
        _draw(compare([curve]), job.folder / PICTURE_FILE)
    card = {"dataset": curve.dataset, "tasks": TASKS[curve.task].hub_name or curve.task.replace("_", "-")}
    if job.arguments.push_to_hub:
        job.trainer.push_to_hub(**card)
    else:
        job.trainer.create_model_card(**card)
    return format_rounds(curve.points, curve.metric)


def _compare_repeats(folder: Path, runs: Sequence[Path]) -> str:
    comparisons = compare([LearningCurve.load(run) for run in runs])
    write_atomically(folder / COMPARISON_FILE, to_json(comparisons))
    drawn = _draw(comparisons, folder / PICTURE_FILE)
    return format_table(comparisons) + (f"\n\nThe picture is {folder / PICTURE_FILE}" if drawn else "")


def _draw(comparisons: Sequence[Comparison], file: Path) -> bool:
    """Draw the curves, and return whether that went well: a finished run does not fail for want of a picture."""
    try:
        plot_curves(comparisons, file)
    except Exception as error:
        logger.warning(
            f"Cannot draw {file}: {one_line(error, 200)}. The run is complete without it; draw it later with "
            f"`hf-noise-al compare {file.parent} --plot {PICTURE_FILE}`."
        )
        return False
    return True


def _on_main_process(arguments: RunArguments, text: str) -> Iterator[str]:
    if arguments.should_save:
        yield text
