"""Tasks: which model class, which preprocessing, which metrics and which observable belong to a kind of problem."""

from .base import Prepared, Task
from .image_classification import IMAGE_CLASSIFICATION
from .segmentation import SEGMENTATION
from .targets import Targets
from .text_classification import TEXT_CLASSIFICATION
from .text_regression import TEXT_REGRESSION

TASKS: dict[str, Task] = {
    task.name: task for task in (TEXT_CLASSIFICATION, TEXT_REGRESSION, IMAGE_CLASSIFICATION, SEGMENTATION)
}

__all__ = ["TASKS", "Prepared", "Targets", "Task"]
