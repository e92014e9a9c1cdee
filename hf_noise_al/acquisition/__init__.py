"""What to label next: each acquisition chooses a set of candidates that it sees through `observe` alone.

One family per file, and the list of their names.
"""

from __future__ import annotations

import inspect
from typing import Any

from ..plugins import Registry
from .badge import BADGE
from .bald import BALD
from .base import Acquisition, Candidates, Choice, Observe, Query
from .core_set import CoreSet
from .noise_stability import NoiseStability
from .random_sampling import RandomSampling
from .uncertainty_sampling import EntropySampling, LeastConfidence, MarginSampling


def _is_acquisition(name: str, value: object) -> bool:
    if not isinstance(value, type) or not issubclass(value, Acquisition) or inspect.isabstract(value):
        return False
    settings: Any = getattr(value, "__dataclass_params__", None)
    return settings is not None and bool(settings.frozen)


_OWN: dict[str, type[Acquisition]] = {
    "noise_stability": NoiseStability,
    "random": RandomSampling,
    "entropy": EntropySampling,
    "margin": MarginSampling,
    "least_confidence": LeastConfidence,
    "core_set": CoreSet,
    "badge": BADGE,
    "bald": BALD,
}

ACQUISITIONS: Registry[type[Acquisition]] = Registry(
    group="hf_noise_al.acquisitions",
    kind="acquisition",
    own=_OWN,
    wanted="a subclass of `hf_noise_al.Acquisition` that is a frozen dataclass and has a `select`",
    fits=_is_acquisition,
)
"""Acquisitions by name; packages bring more by entry points of this group."""

__all__ = [
    "ACQUISITIONS",
    "BADGE",
    "BALD",
    "Acquisition",
    "Candidates",
    "Choice",
    "CoreSet",
    "EntropySampling",
    "LeastConfidence",
    "MarginSampling",
    "NoiseStability",
    "Observe",
    "Query",
    "RandomSampling",
]
