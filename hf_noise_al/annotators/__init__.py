"""Who gives labels.

One file for each: labels that are held out, and a file that somebody fills in.
"""

from __future__ import annotations

import inspect

from ..plugins import Registry
from .base import Annotator
from .held_out_labels import HeldOutLabels
from .label_file import LabelFile


def _is_annotator(name: str, value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Annotator) and not inspect.isabstract(value)


ANNOTATORS: Registry[type[Annotator]] = Registry(
    group="hf_noise_al.annotators",
    kind="annotator",
    own={"label_file": LabelFile, "held_out_labels": HeldOutLabels},
    wanted="a subclass of `hf_noise_al.Annotator` that has an `annotate`",
    fits=_is_annotator,
)
"""Annotators by name; packages bring more by entry points of this group."""

__all__ = ["ANNOTATORS", "Annotator", "HeldOutLabels", "LabelFile"]
