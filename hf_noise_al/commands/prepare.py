"""Arguments -> a trainer that is ready to start: data and model are loaded, and all that cannot be used is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, TypeAlias

from transformers import PrinterCallback
from transformers.utils import logging

from ..acquisition import ACQUISITIONS
from ..annotators.label_file import new_classes_in
from ..experiments.learning_curve import LearningCurve
from ..files.run_names import STATE_FILE
from ..files.shown_text import listed, one_line
from ..loading.data import hide_progress_bars, load_data, load_pool
from ..loading.models import checkpoint_classes, load_model_config, model_factory
from ..pool.places import Source
from ..pool.problem_type import MULTI_LABEL
from ..refusals import Refusal
from ..run_folder.state_file import classes_of
from ..settings.arguments import DataArguments, ModelArguments, RunArguments
from ..settings.recipe import InvalidArgument, did_you_mean
from ..tasks import TASKS, Prepared, Targets, Task
from ..tasks.curve_metric import check_best_metric, curve_metric
from ..trainer import ActiveTrainer
from ..upstream.unsupported import refuse_unwritable_folder
from .run_curve import CurveWriter, empty_curve, metric_names
from .run_settings import saved_class_names, settings_of

logger = logging.get_logger(__name__)

Settings: TypeAlias = tuple[ModelArguments, DataArguments, RunArguments]

OF_TASKS = {"remove_unused_columns": True, "eval_do_concat_batches": True}
"""What data collators and metrics are made for; those of a task are not the user's, and neither are these settings."""


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


@dataclass(frozen=True)
class _Loaded:
    """Data that is ready for a model, and what it was made from."""

    task: Task
    settings: Settings
    processor: Any
    ready: Prepared
    source: Source
    set_aside: Sequence[int] = ()


def prepare(model: ModelArguments, data: DataArguments, training: RunArguments) -> Job:
    """Load and check everything that a run needs; what cannot be used raises `InvalidArgument` before any training."""
    with refusing():
        saved = _settings_to_save(model, data, training)
        loaded = _load_run(model, data, training)
        metrics, curve = _metrics_and_curve(loaded, folds=training.eval_folds is not None)
        trainer = _trainer(loaded, metrics, curve, saved, model_init=_model_factory(loaded))
    return Job(trainer, curve, training)


def prepare_query(model: ModelArguments, data: DataArguments, training: RunArguments) -> Job:
    """Load and check everything that one query needs: a model with a trained output head, and no evaluation rows."""
    with refusing():
        saved = _settings_to_save(model, data, training)
        loaded = _load_query(model, data, training)
        metrics, curve = _metrics_and_curve(loaded, folds=False)
        trainer = _trainer(loaded, metrics, curve, saved, model=_model_factory(loaded, trained=True)())
    return Job(trainer, curve, training)


def _settings_to_save(model: ModelArguments, data: DataArguments, training: RunArguments) -> dict[str, Any]:
    """Return what ``settings.json`` is to say; a run that goes on knows its classes."""
    if training.resumes and data.class_names is None:
        data.class_names = saved_class_names(Path(str(training.output_dir)))
    return settings_of(model, data, training)


def _load_run(model: ModelArguments, data: DataArguments, training: RunArguments) -> _Loaded:
    task = _task_for(data, training)
    with training.main_process_first(desc="loading and preparing the data"):
        rows = load_data(data, _label_columns(task, training))
        processor = task.load_processor(model, data, rows.pool)
        arrange = partial(_arranged, task, model, training, len(rows.pool))
        ready = task.prepare(rows.pool, rows.evaluation, processor, data, training.label_column, rows.source, arrange)
    return _Loaded(task, (model, data, training), processor, ready, rows.source, rows.set_aside)


def _load_query(model: ModelArguments, data: DataArguments, training: RunArguments) -> _Loaded:
    task = _task_for(data, training)
    with training.main_process_first(desc="loading and preparing the data"):
        rows = load_pool(data, _label_columns(task, training))
        processor = task.load_processor(model, data, rows.pool)
        arrange = partial(_arranged, task, model, training, len(rows.pool))
        config = load_model_config(model, {})
        ready = task.prepare_query(rows.pool, processor, data, config, training.label_column, rows.source, arrange)
    return _Loaded(task, (model, data, training), processor, ready, rows.source, rows.set_aside)


def _task_for(data: DataArguments, training: RunArguments) -> Task:
    task = _task(data.task)
    _refuse_settings(task, data, training)
    if training.disable_tqdm:
        hide_progress_bars()
    return task


def _label_columns(task: Task, training: RunArguments) -> Sequence[str]:
    return [training.label_column] if training.label_column else task.label_columns


def _metrics_and_curve(loaded: _Loaded, folds: bool) -> tuple[Any, LearningCurve]:
    """Return what measures the rounds, and the learning curve without points that it will fill."""
    task, (model, data, training), targets = loaded.task, loaded.settings, loaded.ready.targets
    trusts = {"trusted": model.trust_remote_code} if "trusted" in signature(task.load_metrics).parameters else {}
    metrics = task.load_metrics(metric_names(task, data, targets), targets, **trusts)
    sets = list(loaded.ready.evaluation)
    measured = curve_metric(metrics.names(), sets if folds else sets or [""], data.metric_for_curve, folds)
    if training.metric_for_best_model is not None and training.eval_strategy != "no":
        check_best_metric(metrics.names(), sets or [""], training.metric_for_best_model)
    return metrics, empty_curve(model, data, training, measured)


def _model_factory(loaded: _Loaded, trained: bool = False) -> Callable[[], Any]:
    fields = {**loaded.ready.targets.head(), **loaded.task.model_fields(loaded.processor)}
    pad_token_id = getattr(loaded.processor, "pad_token_id", None)
    return model_factory(loaded.settings[0], loaded.task.auto_model, fields, pad_token_id, trained)


def _trainer(
    loaded: _Loaded, metrics: Any, curve: LearningCurve, saved: Mapping[str, Any], **model: Any
) -> ActiveTrainer:
    """Return the trainer of `model`, which is made already (``model``) or made anew each round (``model_init``)."""
    task, ready, (_, data, training) = loaded.task, loaded.ready, loaded.settings
    _adjust(training, task)
    trainer = ActiveTrainer(
        **model,
        args=training,
        train_dataset=ready.pool,
        eval_dataset=ready.eval_dataset,
        annotator=training.make_annotator(),
        processing_class=loaded.processor,
        data_collator=task.collator(loaded.processor),
        compute_metrics=metrics,
        compute_loss_func=task.compute_loss,
        preprocess_logits_for_metrics=task.preprocess_logits or _without_states,
        observable=task.observable,
        augmentation=task.augmentation(data, ready),
        set_aside=loaded.set_aside,
        id_column=loaded.source.id_column,
        read_answer=None if task.read_answers is None else task.read_answers(ready, training.label_file),
        callbacks=[*task.callbacks(), CurveWriter(curve, Path(str(training.output_dir)), saved)],
    )
    trainer.remove_callback(PrinterCallback)  # without progress bars it prints every log entry as a dict
    return trainer


def _adjust(training: RunArguments, task: Task) -> None:
    """Set what is no longer the user's to set: the task's own settings, and the name that it gave the labels."""
    training.label_column = "labels"
    for name, value in {**OF_TASKS, **task.settings}.items():
        setattr(training, name, value)
    training.dataloader_pin_memory = training.dataloader_pin_memory and training.device.type != "cpu"


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
        raise Refusal(
            f"A run whose rows may have several classes cannot get new ones ({listed(targets.class_names, 12)}). Start "
            "afresh with all of them in `class_names` and the same label file (`--start_afresh true`): the answers in "
            "it are used again."
        )
    return targets


def refuse_settings(runs: Sequence[Settings]) -> None:
    """Refuse runs that do not fit their task, or whose folder cannot be written, before one is trained."""
    with refusing():
        for _, data, training in runs:
            _refuse_settings(_task(data.task), data, training)
        for *_, training in runs:
            refuse_unwritable_folder(training)  # last: it makes the folder


def _task(name: str) -> Task:
    if name not in TASKS:
        raise Refusal(f"Unknown `task` {name}.{did_you_mean(name, list(TASKS))} There are: {', '.join(TASKS)}.")
    return TASKS[name]


def _refuse_settings(task: Task, data: DataArguments, training: RunArguments) -> None:
    if not data.validation_fraction and training.eval_folds is None:
        raise Refusal(
            "`validation_fraction` is 0, and rounds may have nothing to be measured on. Set it between 0 and 1, "
            "or measure on the labeled rows with `eval_folds`, such as 5."
        )
    why = task.refused_acquisitions.get(training.acquisition)
    if why is not None:
        others = ", ".join(sorted(ACQUISITIONS.keys() - task.refused_acquisitions.keys()))
        raise Refusal(f"The acquisition {training.acquisition} cannot work on {task.name}: {why}. Use {others}.")
    if task.compute_loss is not None and training.label_smoothing_factor:
        raise Refusal(
            f"`label_smoothing_factor` is {training.label_smoothing_factor}: it has no effect on {task.name}, whose "
            "loss is its own. Leave it out."
        )


def _without_states(predictions: Any, labels: Any) -> Any:
    """Keep hidden states and attentions, as long as each batch's longest text, from being gathered beside outputs."""
    return predictions[0] if isinstance(predictions, tuple) else predictions


@contextmanager
def refusing() -> Iterator[None]:
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
