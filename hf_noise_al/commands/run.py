"""What the verbs `run` and `query` do: arguments -> trainer -> rounds -> the files that a run leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerControl, TrainerState
from transformers.utils import logging

from ..acquisition import ACQUISITIONS
from ..annotators import LabelFile
from ..annotators.label_file import new_classes_in
from ..callbacks import ActiveTrainerCallback
from ..experiments.comparison import Comparison, compare, to_json
from ..experiments.learning_curve import FILE_NAME, LearningCurve
from ..experiments.plotting import plot_curves
from ..experiments.tables import format_rounds, format_table
from ..files.atomic import write_atomically
from ..files.shown_text import listed, one_line
from ..loading.data import hide_progress_bars, load_data, load_pool
from ..loading.models import checkpoint_classes, load_model_config, model_factory
from ..measuring.intervals import measured_on
from ..run_folder.fingerprint import argument_fingerprint, fingerprint_defaults
from ..run_folder.set_aside import read_set_aside
from ..run_folder.state import STATE_FILE, classes_of, labeled_rows_of, refuse_other_run
from ..settings.arguments import DataArguments, ModelArguments, RunArguments, parse
from ..settings.recipe import InvalidArgument, did_you_mean
from ..tasks import TASKS, Targets, Task
from ..tasks.metrics import GLUE_METRICS, check_best_metric, curve_metric, is_greater_better
from ..tasks.targets import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from ..trainer import ActiveTrainer
from ..training_args import ActiveTrainingArguments
from ..upstream.unsupported import refuse_unwritable_folder
from .interruption import telling_what_is_saved
from .run_settings import refuse_other_inputs, save_settings, saved_class_names, settings_of

logger = logging.get_logger(__name__)

OF_TASKS = {"remove_unused_columns": True, "eval_do_concat_batches": True}
"""What data collators and metrics are made for; those of a task are not the user's, and neither are these settings."""

PICTURE, CARD = "learning_curve.png", "README.md"


@dataclass(frozen=True)
class Job:
    """One run, ready to start: its trainer and the learning curve that it will fill."""

    trainer: ActiveTrainer
    curve: LearningCurve
    arguments: RunArguments

    @property
    def folder(self) -> Path:
        """Return the folder that the run writes to."""
        return Path(str(self.arguments.output_dir))


class CurveWriter(ActiveTrainerCallback):
    """Write ``learning_curve.json`` anew after every round, and a line to the log.

    Beside it stand the settings that the curve belongs to; a card of fewer rounds, which says that they were all, goes.
    """

    def __init__(self, curve: LearningCurve, folder: Path, settings: Mapping[str, Any]) -> None:
        self.curve, self.folder, self.settings = curve, folder, settings

    def on_round_end(
        self, args: ActiveTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the points of all rounds so far."""
        if state.is_world_process_zero:
            (self.folder / CARD).unlink(missing_ok=True)
            save_settings(self.settings, self.folder)
            replace(self.curve, points=tuple(map(asdict, kwargs["history"]))).save(self.folder / FILE_NAME)
            record, metric = kwargs["record"], self.curve.metric
            logger.info(
                f"round {record.round}: {record.num_labeled} labels, "
                f"{metric} {record.metrics.get(metric, float('nan')):.4f}"
                f"{measured_on(record.num_rows.get(metric), record.intervals.get(metric))} "
                f"({record.train_seconds:.1f} s training, {record.acquisition_seconds:.1f} s acquisition)"
            )


def prepare(model: ModelArguments, data: DataArguments, training: RunArguments, trained_model: bool = False) -> Job:
    """Load and check everything that a run needs; what cannot be used raises `InvalidArgument` before any training.

    With `trained_model` the model is one to query with as it is: it must have a trained output head.
    """
    with _refusals():
        if training.resumes and data.class_names is None:
            data.class_names = saved_class_names(Path(str(training.output_dir)))
        settings = settings_of(model, data, training)
        task = _task(data.task)
        _refuse_settings(task, data, training)
        if training.disable_tqdm:
            hide_progress_bars()
        folder = Path(str(training.output_dir))
        with training.main_process_first(desc="loading and preparing the data"):
            labels = [training.label_column] if training.label_column else task.label_columns
            rows = load_pool(data, labels) if trained_model else load_data(data, labels)
            processor = task.load_processor(model, data, rows.pool)
            collator = task.collator(processor)
            details = (training.label_column, rows.source, partial(_arranged, task, model, training, len(rows.pool)))
            if trained_model:
                config = load_model_config(model, {})
                ready = task.prepare_query(rows.pool, processor, data, config, *details)
            else:
                ready = task.prepare(rows.pool, rows.evaluation, processor, data, *details)
        training.label_column = "labels"
        for name, value in {**OF_TASKS, **task.settings}.items():
            setattr(training, name, value)
        training.dataloader_pin_memory = training.dataloader_pin_memory and training.device.type != "cpu"
        trusts = {"trusted": model.trust_remote_code} if "trusted" in signature(task.load_metrics).parameters else {}
        metrics = task.load_metrics(_metric_names(task, data, ready.targets), ready.targets, **trusts)
        sets, folds = list(ready.evaluation), training.eval_folds is not None and not trained_model
        measured = curve_metric(metrics.names(), sets if folds else sets or [""], data.metric_for_curve, folds)
        if training.metric_for_best_model is not None and training.eval_strategy != "no":
            check_best_metric(metrics.names(), list(ready.evaluation) or [""], training.metric_for_best_model)
        curve = _empty_curve(model, data, training, measured)
        fields = {**ready.targets.head(), **task.model_fields(processor)}
        pad_token_id = getattr(processor, "pad_token_id", None)
        make_model = model_factory(model, task.auto_model, fields, pad_token_id, trained_model)
        trainer = ActiveTrainer(
            model=make_model() if trained_model else None,
            model_init=None if trained_model else make_model,
            args=training,
            train_dataset=ready.pool,
            eval_dataset=ready.eval_dataset,
            annotator=None if training.label_file is None else LabelFile(training.label_file),
            processing_class=processor,
            data_collator=collator,
            compute_metrics=metrics,
            compute_loss_func=task.compute_loss,
            preprocess_logits_for_metrics=task.preprocess_logits or _without_states,
            observable=task.observable,
            augmentation=task.augmentation(data, ready),
            set_aside=rows.set_aside,
            id_column=rows.source.id_column,
            read_answer=None if task.read_answers is None else task.read_answers(ready, training.label_file),
            callbacks=[*task.callbacks(), CurveWriter(curve, folder, settings)],
        )
        trainer.remove_callback(PrinterCallback)  # without progress bars it prints every log entry as a dict
    return Job(trainer, curve, training)


def _arranged(task: Task, model: ModelArguments, training: RunArguments, size: int, targets: Targets) -> Targets:
    """Return `targets` with the classes in the order that the checkpoint, or the run that goes on, has them.

    A run that goes on may have more classes than it had: those of the data, and with `new_classes` those of answers.
    """
    if not targets.class_names:
        return targets
    asked, known = targets.class_names, checkpoint_classes(model)
    if known is not None and sorted(known) == sorted(asked):
        targets = targets.arranged(known)
    state = Path(str(training.output_dir)) / STATE_FILE
    before = classes_of(state) if training.resumes and state.exists() else []
    if before:
        targets = targets.arranged(before)
    elif targets.class_names != asked:
        logger.info(
            f"{model.model_name_or_path} has these classes in the order {listed(targets.class_names, 12)}, which is "
            f"kept; numbers in the data are read by the order {listed(asked, 12)}."
        )
    if training.new_classes == "allow" and training.label_file is not None and task.read_answers is None:
        new = new_classes_in(Path(training.label_file), targets.class_names, size)
        if new:
            logger.info(f"{training.label_file} names new classes: {listed(new, 12)} (`new_classes: allow`).")
        targets = targets.arranged((*targets.class_names, *new))
    if before and len(targets.class_names) > len(before) and targets.problem_type == MULTI_LABEL:
        raise ValueError(
            f"A run whose rows may have several classes cannot get new ones ({listed(targets.class_names, 12)}). Start "
            "afresh with all of them in `class_names` and the same label file (`--start_afresh true`): the answers in "
            "it are used again."
        )
    return targets


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
        curve.save(job.folder / FILE_NAME)
        _draw(compare([curve]), job.folder / PICTURE)
    card = {"dataset": curve.dataset, "tasks": TASKS[curve.task].hub_name or curve.task.replace("_", "-")}
    if job.arguments.push_to_hub:
        job.trainer.push_to_hub(**card)
    else:
        job.trainer.create_model_card(**card)
    return format_rounds(curve.points, curve.metric)


def run(recipe: Path, flags: Sequence[str]) -> Iterator[str]:
    """Do what the recipe says, once or with every acquisition and seed; yield what to tell on the main process."""
    model, data, training = parse(recipe, flags)
    if not training.seeds and not training.baselines:
        refuse_folder_in_use([training])
        refuse_other_settings([(model, data, training)])
        with telling_what_is_saved([training]):
            job = prepare(model, data, training)
            table = train(job)
        yield from _on_main_process(job.arguments, f"{table}\n\nModel, learning curve and queries are in {job.folder}")
        return
    acquisitions = list(dict.fromkeys([training.acquisition, *(training.baselines or ())]))
    seeds = list(dict.fromkeys(training.seeds or [training.seed]))
    parts = [
        parse(recipe, _flags_of_repeat(flags, training, acquisition, seed))
        for seed in seeds
        for acquisition in acquisitions
    ]
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


def query(recipe: Path, flags: Sequence[str]) -> Iterator[str]:
    """Ask once with a model that was trained already; yield where the rows to label are."""
    model, data, training = parse(recipe, flags)
    for name in ("seeds", "baselines"):
        if getattr(training, name):
            raise InvalidArgument(f"`query` asks once, and has no use for `{name}`. Leave it out.")
    folder = Path(str(training.output_dir))
    if is_run(folder) and not training.start_afresh:
        raise InvalidArgument(f"{folder} holds a run, whose queries would be overwritten. Pass another `--output_dir`.")
    job = prepare(model, data, training, trained_model=True)
    _leave_out_what_it_was_trained_on(job.trainer, Path(str(model.model_name_or_path)))
    chosen = job.trainer.query()
    yield from _on_main_process(
        training,
        f"{len(chosen.indices)} of {len(job.trainer.pool.unlabeled_rows)} rows, best first: "
        f"{folder / 'queries' / 'round-00.jsonl'}",
    )


def refuse_folder_in_use(runs: Sequence[RunArguments]) -> None:
    """Refuse to overwrite a run that is neither resumed nor, explicitly, started afresh."""
    for arguments in runs:
        folder = Path(str(arguments.output_dir))
        if (folder / STATE_FILE).exists() and not arguments.resumes and not arguments.start_afresh:
            raise InvalidArgument(
                f"{folder} already holds a run. Continue it with `--resume_from_checkpoint true`, replace it with "
                "`--start_afresh true`, or pass another `--output_dir`."
            )


def refuse_settings(runs: Sequence[tuple[ModelArguments, DataArguments, RunArguments]]) -> None:
    """Refuse runs that do not fit their task, or whose folder cannot be written, before one is trained."""
    with _refusals():
        for _, data, training in runs:
            _refuse_settings(_task(data.task), data, training)
        for *_, training in runs:
            refuse_unwritable_folder(training)  # last: it makes the folder


def refuse_other_settings(runs: Sequence[tuple[ModelArguments, DataArguments, RunArguments]]) -> None:
    """Refuse to resume runs that were made otherwise, also those that are finished, before one is trained.

    Compared are the settings of training and acquisition, of the model, the data and the metrics. Rows that changed
    under the name of their file are noticed where a run is continued.
    """
    for model, data, training in runs:
        folder = Path(str(training.output_dir))
        if not training.resumes or not (folder / STATE_FILE).exists():
            continue
        with _refusals():
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
    return (folder / FILE_NAME).exists()


def is_finished(arguments: RunArguments) -> bool:
    """Return whether all rounds of a run are trained and what comes after them is written."""
    folder = Path(str(arguments.output_dir))
    try:
        rounds = len(LearningCurve.load(folder).points)
    except (OSError, ValueError):
        return False
    return rounds >= arguments.num_rounds and (folder / CARD).exists()  # the card is written last


def _leave_out_what_it_was_trained_on(trainer: ActiveTrainer, folder: Path) -> None:
    """Count as labeled what the run in `folder` labeled, where its data was this data."""
    path = folder / STATE_FILE
    if not path.is_file():
        return
    rows = labeled_rows_of(path, trainer.data.fingerprint())
    if rows is None:
        logger.warning(
            f"{folder} was trained on a pool that is not this one, or that other settings made other inputs of: the "
            "query may ask for labels it has seen."
        )
        return
    known = set(trainer.pool.labeled_rows)
    new = {row: label for row, label in rows.items() if row not in known}
    trainer.pool.annotate(list(new), list(new.values()), round=-1, given=True)
    measured = read_set_aside(folder)
    trainer.pool.leave_out(measured)
    logger.info(
        f"Left out of the query are the {len(new)} rows that {folder} was trained on and did not come labeled, and the "
        f"{len(measured)} that it was measured on."
    )


def _flags_of_repeat(flags: Sequence[str], training: RunArguments, acquisition: str, seed: int) -> list[str]:
    folder = Path(str(training.output_dir)) / f"{acquisition}-seed-{seed}"
    own = [] if acquisition == training.acquisition else ["--acquisition", acquisition, "--acquisition_kwargs={}"]
    return [*flags, *own, f"--seed={seed}", f"--output_dir={folder}"]


def _compare_repeats(folder: Path, runs: Sequence[Path]) -> str:
    comparisons = compare([LearningCurve.load(run) for run in runs])
    write_atomically(folder / "comparison.json", to_json(comparisons))
    drawn = _draw(comparisons, folder / PICTURE)
    return format_table(comparisons) + (f"\n\nThe picture is {folder / PICTURE}" if drawn else "")


def _draw(comparisons: Sequence[Comparison], file: Path) -> bool:
    """Draw the curves, and return whether that went well: a finished run does not fail for want of a picture."""
    try:
        plot_curves(comparisons, file)
    except Exception as error:
        logger.warning(
            f"Cannot draw {file}: {one_line(error, 200)}. The run is complete without it; draw it later with "
            f"`hf-noise-al compare {file.parent} --plot {PICTURE}`."
        )
        return False
    return True


def _task(name: str) -> Task:
    if name not in TASKS:
        raise ValueError(f"Unknown `task` {name}.{did_you_mean(name, list(TASKS))} There are: {', '.join(TASKS)}.")
    return TASKS[name]


def _refuse_settings(task: Task, data: DataArguments, training: RunArguments) -> None:
    if not data.validation_fraction and training.eval_folds is None:
        raise ValueError(
            "`validation_fraction` is 0, so that nothing may be left to measure rounds with. Set it between 0 and 1, "
            "or measure on the labeled rows with `eval_folds`, such as 5."
        )
    why = task.refused_acquisitions.get(training.acquisition)
    if why is not None:
        others = ", ".join(sorted(ACQUISITIONS.keys() - task.refused_acquisitions.keys()))
        raise ValueError(f"The acquisition {training.acquisition} cannot work on {task.name}: {why}. Use {others}.")
    if task.compute_loss is not None and training.label_smoothing_factor:
        raise ValueError(
            f"`label_smoothing_factor` is {training.label_smoothing_factor}: it has no effect on {task.name}, whose "
            "loss is its own. Leave it out."
        )


def _without_states(predictions: Any, labels: Any) -> Any:
    """Keep hidden states and attentions, as long as each batch's longest text, from being gathered beside outputs."""
    return predictions[0] if isinstance(predictions, tuple) else predictions


def _metric_names(task: Task, data: DataArguments, targets: Targets) -> Sequence[str]:
    """Return the metrics asked for, else those of the GLUE task that the data is, else those of the task."""
    if data.metric:
        return data.metric
    config = data.dataset_config_name
    fits = targets.problem_type == (REGRESSION if config == "stsb" else SINGLE_LABEL)
    if config in GLUE_METRICS and fits:
        return [f"glue/{config}"]
    return task.default_metrics[targets.problem_type]


def _names(model: ModelArguments, data: DataArguments) -> dict[str, str]:
    """Return what a learning curve calls the task, the data set and the model."""
    dataset = str(data.dataset_name)
    if data.dataset_config_name and not Path(dataset).exists():
        dataset = f"{dataset} ({data.dataset_config_name})"
    made = model.model_config["model_type"] if isinstance(model.model_config, dict) else ""
    return {"task": data.task, "dataset": dataset, "model": model.model_name_or_path or str(made)}


def _empty_curve(model: ModelArguments, data: DataArguments, training: RunArguments, metric: str) -> LearningCurve:
    better = data.metric_greater_is_better
    return LearningCurve(
        **_names(model, data),
        acquisition=training.acquisition,
        seed=training.seed,
        metric=metric,
        greater_is_better=is_greater_better(metric) if better is None else better,
        points=(),
    )


def _on_main_process(arguments: RunArguments, text: str) -> Iterator[str]:
    if arguments.should_save:
        yield text


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what loading and checking raise into `InvalidArgument`: there is no training yet that could have failed."""
    try:
        yield
    except InvalidArgument:
        raise
    except (ValueError, OSError, ImportError) as error:
        raise InvalidArgument(str(error)) from error
    except Exception as error:
        if not type(error).__module__.startswith("huggingface_hub"):  # a configuration that contradicts itself
            raise
        raise InvalidArgument(
            f"Cannot use the model's configuration: {one_line(error.__cause__ or error, 300)}"
        ) from error
