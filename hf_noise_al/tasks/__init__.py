"""Tasks: which model class, which preprocessing, which metrics and which observable belong to a kind of problem."""

from .base import Prepared, Task
from .image_classification import IMAGE_CLASSIFICATION
from .segmentation import SEGMENTATION
from .tabular import TABULAR_CLASSIFICATION, TABULAR_REGRESSION
from .targets import Targets
from .text_classification import TEXT_CLASSIFICATION
from .text_regression import TEXT_REGRESSION
from .token_classification import TOKEN_CLASSIFICATION

TASKS: dict[str, Task] = {
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
}

__all__ = ["TASKS", "Prepared", "Targets", "Task"]
