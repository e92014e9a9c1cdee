"""The learning curve of a run: which metric it shows, and its file, written anew after every round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState
from transformers.utils import logging

from ..callbacks import ActiveTrainerCallback
from ..experiments.learning_curve import LearningCurve
from ..files.run_names import CARD_FILE, CURVE_FILE
from ..measuring.intervals import measured_on
from ..pool.problem_type import REGRESSION
from ..settings.arguments import DataArguments, ModelArguments, RunArguments
from ..tasks import Targets, Task
from ..tasks.curve_metric import is_greater_better
from ..tasks.measures import GLUE_METRICS
from ..tasks.targets import SINGLE_LABEL
from ..training_args import ActiveTrainingArguments
from .run_settings import save_settings

logger = logging.get_logger(__name__)


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
            (self.folder / CARD_FILE).unlink(missing_ok=True)
            save_settings(self.settings, self.folder)
            replace(self.curve, points=tuple(map(asdict, kwargs["history"]))).save(self.folder / CURVE_FILE)
            record, metric = kwargs["record"], self.curve.metric
            logger.info(
                f"round {record.round}: {record.num_labeled} labels, "
                f"{metric} {record.metrics.get(metric, float('nan')):.4f}"
                f"{measured_on(record.num_rows.get(metric), record.intervals.get(metric))} "
                f"({record.train_seconds:.1f} s training, {record.acquisition_seconds:.1f} s acquisition)"
            )


def metric_names(task: Task, data: DataArguments, targets: Targets) -> Sequence[str]:
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


def empty_curve(model: ModelArguments, data: DataArguments, training: RunArguments, metric: str) -> LearningCurve:
    """Return the curve that a run will fill."""
    better = data.metric_greater_is_better
    return LearningCurve(
        **_names(model, data),
        acquisition=training.acquisition,
        seed=training.seed,
        metric=metric,
        greater_is_better=is_greater_better(metric) if better is None else better,
        points=(),
    )
