"""Deep active learning with noise stability, for models of the Hugging Face Hub."""

from __future__ import annotations

from .acquisition import (
    ACQUISITIONS,
    BADGE,
    BALD,
    Acquisition,
    Candidates,
    CoreSet,
    EntropySampling,
    LeastConfidence,
    MarginSampling,
    NoiseStability,
    Query,
    RandomSampling,
)
from .annotators import Annotator, HeldOutLabels, LabelFile
from .callbacks import ActiveTrainerCallback
from .noise.perturbation import perturbed
from .observables.base import Observable, features, probabilities
from .observables.words import word_probabilities
from .pool.pool import Annotation, Pool
from .run_folder.history import RoundRecord
from .selection.choosing import top_k
from .selection.k_center import k_center_greedy
from .selection.k_dpp import k_dpp
from .selection.k_means import k_means_plus_plus
from .trainer import ActiveTrainer
from .training_args import ActiveTrainingArguments

__version__ = "0.1.0"

__all__ = [
    "ACQUISITIONS",
    "BADGE",
    "BALD",
    "Acquisition",
    "ActiveTrainer",
    "ActiveTrainerCallback",
    "ActiveTrainingArguments",
    "Annotation",
    "Annotator",
    "Candidates",
    "CoreSet",
    "EntropySampling",
    "HeldOutLabels",
    "LabelFile",
    "LeastConfidence",
    "MarginSampling",
    "NoiseStability",
    "Observable",
    "Pool",
    "Query",
    "RandomSampling",
    "RoundRecord",
    "features",
    "k_center_greedy",
    "k_dpp",
    "k_means_plus_plus",
    "perturbed",
    "probabilities",
    "top_k",
    "word_probabilities",
]
