"""What to label next: each acquisition chooses a set of candidates that it sees through `observe` alone.

One family per file, and the list of their names.
"""

from __future__ import annotations

from .badge import BADGE
from .bald import BALD
from .base import Acquisition, Candidates, Observe, Query
from .core_set import CoreSet
from .noise_stability import NoiseStability
from .random_sampling import RandomSampling
from .uncertainty_sampling import EntropySampling, LeastConfidence, MarginSampling

ACQUISITIONS: dict[str, type[Acquisition]] = {
    "noise_stability": NoiseStability,
    "random": RandomSampling,
    "entropy": EntropySampling,
    "margin": MarginSampling,
    "least_confidence": LeastConfidence,
    "core_set": CoreSet,
    "badge": BADGE,
    "bald": BALD,
}

__all__ = [
    "ACQUISITIONS",
    "BADGE",
    "BALD",
    "Acquisition",
    "Candidates",
    "CoreSet",
    "EntropySampling",
    "LeastConfidence",
    "MarginSampling",
    "NoiseStability",
    "Observe",
    "Query",
    "RandomSampling",
]
