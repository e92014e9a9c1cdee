"""Who gives labels.

One file for each: labels that are held out, and a file that somebody fills in.
"""

from __future__ import annotations

from .base import Annotator
from .held_out_labels import HeldOutLabels
from .label_file import LabelFile

__all__ = ["Annotator", "HeldOutLabels", "LabelFile"]
