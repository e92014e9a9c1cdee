"""The file ``settings.json`` of a run: which model, data and metrics it is about, so that no other is taken for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from ..files.atomic import write_atomically
from ..files.run_names import SETTINGS_FILE
from ..settings.arguments import DataArguments, ModelArguments, RunArguments
from ..settings.recipe import InvalidArgument

PATHS = ("dataset_name", "model_name_or_path", "processor_name_or_path")
"""Settings that may be paths: one folder may be written in several ways."""


def settings_of(model: ModelArguments, data: DataArguments, training: RunArguments) -> dict[str, Any]:
    """Return what decides about model, rows and metrics, as plain JSON. To be asked before data is loaded."""
    values = {**asdict(model), **asdict(data), "label_column": training.label_column}
    del values["trust_remote_code"]
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


def save_settings(settings: Mapping[str, Any], folder: Path) -> None:
    """Write the file, in one step."""
    write_atomically(folder / SETTINGS_FILE, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def saved_class_names(folder: Path) -> list[str] | None:
    """Return the `class_names` that the run in `folder` was made with; None where it had none, or nothing is known."""
    try:
        names = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))["class_names"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return [str(name) for name in names] if isinstance(names, list) and names else None


def refuse_other_inputs(settings: Mapping[str, Any], folder: Path) -> None:
    """Raise `InvalidArgument` where the run in `folder` was made with other settings than these.

    Paths are the same where they lead to the same place. A run without the file, or with one that cannot be read, is
    not refused: what is left to be trained of it is compared by its state.
    """
    try:
        saved = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        before = {name: saved.get(name, default) for name, default in {**dict.fromkeys(settings), **_later()}.items()}
        differing = [name for name in settings if not _same(name, before[name], settings[name])]
    except (OSError, ValueError, AttributeError):
        return
    if differing:
        details = "; ".join(f"`{name}` was {before[name]!r}, is {settings[name]!r}" for name in differing)
        raise InvalidArgument(
            f"{folder} holds a run of other settings: {details}. Use the same settings, or pass another `--output_dir`."
        )


def _later() -> dict[str, Any]:
    """Return the settings of data whose default does something: the file of an earlier release may not have them."""
    return {item.name: item.default for item in fields(DataArguments) if item.default is not MISSING}


def _same(name: str, saved: object, asked: object) -> bool:
    if name == "class_names":  # a run knows its classes itself, and may get more of them
        return not isinstance(saved, list) or not isinstance(asked, list) or [n for n in asked if n in saved] == saved
    if saved == asked or name not in PATHS or saved is None or asked is None:
        return saved == asked
    places = [Path(str(value)).expanduser() for value in (saved, asked)]
    return all(place.exists() for place in places) and places[0].resolve() == places[1].resolve()
