"""The names of the files and folders that a run keeps in its `output_dir`, each said once."""

from __future__ import annotations

STATE_FILE = "active_state.json"
JOURNAL_FILE = "labels.jsonl"
SET_ASIDE_FILE = "set_aside.json"
"""Rows of the pool that the run is measured on; only where there are some."""
QUERIES_FOLDER = "queries"
LOCK_FILE, HOLDER_FILE = ".lock", ".lock-holder.json"

SETTINGS_FILE = "settings.json"
CURVE_FILE, PICTURE_FILE = "learning_curve.json", "learning_curve.png"
COMPARISON_FILE = "comparison.json"
CARD_FILE = "README.md"

ROUNDS_FOLDER = "_rounds"
"""Weights; the leading underscore keeps it out of uploads."""
INITIAL_FOLDER, MODEL_FOLDER = "initial", "model"
OUTPUT_FILE, LABELS_FILE = "train_output.json", "labels.json"
SECONDS_FILE = "round_seconds.txt"
"""In a checkpoint: the seconds that its round had taken, those of killed processes included."""
WEIGHTS_FILE = "weights.safetensors"
CHECKSUMS_FILE = "checksums.json"
HUB_FOLDER = "_hub"
"""What is uploaded, and nothing else."""
