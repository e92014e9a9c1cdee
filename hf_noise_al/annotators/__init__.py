"""Annotators: who gives labels."""

from __future__ import annotations

from .base import Annotator
from .held_out_labels import HeldOutLabels
from .label_file import LabelFile

__all__ = ["Annotator", "HeldOutLabels", "LabelFile"]
