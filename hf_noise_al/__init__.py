"""Deep active learning with noise stability, for models of the Hugging Face Hub."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .acquisition import (
        ACQUISITIONS,
        BADGE,
        BALD,
        Acquisition,
        Candidates,
        Choice,
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
    "Choice",
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

_NAMES_OF = {
    "acquisition": "ACQUISITIONS BADGE BALD Acquisition Candidates Choice CoreSet EntropySampling LeastConfidence "
    "MarginSampling NoiseStability Query RandomSampling",
    "annotators": "Annotator HeldOutLabels LabelFile",
    "callbacks": "ActiveTrainerCallback",
    "noise.perturbation": "perturbed",
    "observables.base": "Observable features probabilities",
    "observables.words": "word_probabilities",
    "pool.pool": "Annotation Pool",
    "run_folder.history": "RoundRecord",
    "selection.choosing": "top_k",
    "selection.k_center": "k_center_greedy",
    "selection.k_dpp": "k_dpp",
    "selection.k_means": "k_means_plus_plus",
    "trainer": "ActiveTrainer",
    "training_args": "ActiveTrainingArguments",
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names.split()}

if not TYPE_CHECKING:  # with a `__getattr__`, a type checker would believe in any name

    def __getattr__(name: str) -> object:
        """Import what is asked for: torch and transformers take seconds, which a command's help need not wait for."""
        if name in _MODULE_OF:
            value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        elif name.startswith("_") or find_spec(f"{__name__}.{name}") is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        else:
            value = import_module(f"{__name__}.{name}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
