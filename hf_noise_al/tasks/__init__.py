"""Kinds of problems as data: model class, columns, preprocessing, labels, metrics and observable of each.

One room for each kind of input, beside what they share.
"""

from ..plugins import Registry
from .base import Prepared, Task
from .images.image_classification import IMAGE_CLASSIFICATION
from .masks.segmentation import SEGMENTATION
from .tables.tabular import TABULAR_CLASSIFICATION, TABULAR_REGRESSION
from .targets import Targets
from .text.sentences import TEXT_CLASSIFICATION, TEXT_REGRESSION
from .words.token_classification import TOKEN_CLASSIFICATION

TASKS: Registry[Task] = Registry(
    group="hf_noise_al.tasks",
    kind="task",
    own={
        task.name: task
        for task in (
            TEXT_CLASSIFICATION,
            TEXT_REGRESSION,
            TOKEN_CLASSIFICATION,
            IMAGE_CLASSIFICATION,
            SEGMENTATION,
            TABULAR_REGRESSION,
            TABULAR_CLASSIFICATION,
        )
    },
    wanted="a `hf_noise_al.tasks.Task` of that name",
    fits=lambda name, value: isinstance(value, Task) and value.name == name,
)
"""Tasks by name; packages bring more by entry points of this group."""

__all__ = ["TASKS", "Prepared", "Targets", "Task"]
