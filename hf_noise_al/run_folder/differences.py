"""What tells two runs apart, entry by entry of their fingerprints, across releases."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..refusals import Refusal


class OtherRun(Refusal):
    """The state is whole and belongs to another run."""


def refuse_differences(
    path: Path, saved: Mapping[str, object], fingerprint: Mapping[str, object], defaults: Mapping[str, object]
) -> None:
    """Raise `OtherRun` where the state at `path` was `saved` by a run of another `fingerprint`; it says in what.

    An entry that one of them lacks has its default there: a release before did not know the setting, and did what the
    default does. Where there is no default, an entry that only the present run has says nothing about the saved one,
    and one that only the saved one has matters where it was set to something.
    """
    now: dict[str, object] = _with_the_classes_of(saved, json.loads(json.dumps(fingerprint)))
    differing = list(_differences(saved, now, json.loads(json.dumps(defaults))))
    if differing:
        moved = any(entry.startswith("data.") for entry in differing)
        rows = (
            " The rows of the data, their order or their labels changed: put the file back as it was." if moved else ""
        )
        raise OtherRun(
            f"Cannot resume: {path} belongs to another run: {'; '.join(differing)}.{rows} "
            "Use the same data and arguments, or start afresh in another `output_dir`."
        )


def has_more_classes(saved: Mapping[str, object], now: Mapping[str, object]) -> bool:
    """Return whether a run goes on with new classes behind those that it had."""
    before, after = saved.get("classes"), now.get("classes")
    if not isinstance(before, list) or not isinstance(after, list):
        return False
    return len(after) > len(before) and after[: len(before)] == before


def _with_the_classes_of(saved: Mapping[str, object], now: dict[str, object]) -> dict[str, object]:
    """Return `now` without what follows from new classes: an output head with more outputs."""
    if not has_more_classes(saved, now):
        return now
    return {**now, **{name: saved.get(name) for name in ("classes", "model.num_labels", "model.parameters")}}


def _differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    for key in sorted({*saved, *now}):
        before, after = saved.get(key, defaults.get(key)), now.get(key, defaults.get(key))
        if isinstance(after, dict) and isinstance(before, str):
            before = _as_settings(before)
        same = _same_setting(before, after) if prefix == "acquisition." else before == after
        if same or (key not in saved and key not in defaults):
            continue
        if key not in now and key not in defaults and not before:
            continue
        if isinstance(before, dict) and isinstance(after, dict) and before.get("class") == after.get("class"):
            yield from _differences(before, after, defaults.get(key, {}), f"{key}.")
        else:
            values = [value.get("class", value) if isinstance(value, dict) else value for value in (before, after)]
            yield f"{prefix}{key} was {values[0]!r}, is {values[1]!r}"


def _same_setting(before: object, after: object) -> bool:
    """Return whether two settings of an acquisition are equal, also where they are one number, such as 1 and 1.0.

    They are texts; other entries, such as hashes of data, are compared as they stand.
    """
    if before == after or not isinstance(before, str) or not isinstance(after, str):
        return before == after
    try:
        return float(before) == float(after)
    except ValueError:
        return False


def _as_settings(text: str) -> dict[str, str]:
    """Return ``Name(setting=value, ...)``, as version 1 described an acquisition, in the form of today."""
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {"class": text}
    if not isinstance(call, ast.Call):
        return {"class": text}
    return {
        "class": ast.unparse(call.func),
        **{keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg},
    }
