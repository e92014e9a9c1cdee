"""Learning curves: one run as data, and as a file."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..files.atomic import write_atomically
from ..files.run_names import CURVE_FILE
from ..measuring.intervals import Interval
from ..refusals import MissingFile, Refusal

VERSION = 1
TEXTS = ("task", "dataset", "model", "acquisition", "metric")
FIELD_TYPES: dict[str, type] = {**dict.fromkeys(TEXTS, str), "seed": int, "greater_is_better": bool, "points": list}


@dataclass(frozen=True)
class LearningCurve:
    """Hold one run: what was run, and one point per round (the fields of `RoundRecord`, as plain JSON)."""

    task: str
    dataset: str
    model: str
    acquisition: str
    seed: int
    metric: str
    greater_is_better: bool
    points: tuple[dict[str, Any], ...]

    @property
    def num_labeled(self) -> tuple[int, ...]:
        """Return the number of labels each round was trained on."""
        return tuple(int(point["num_labeled"]) for point in self.points)

    @property
    def values(self) -> tuple[float, ...]:
        """Return `metric` of each round; NaN where the run measured no finite number."""
        return tuple(value_of(point, self.metric) for point in self.points)

    @property
    def num_rows(self) -> tuple[int | None, ...]:
        """Return on how many rows `metric` of each round was measured; None in files of an earlier release."""
        return tuple(detail_of(point, "num_rows", self.metric) for point in self.points)

    @property
    def intervals(self) -> tuple[Interval | None, ...]:
        """Return the 95 % interval of `metric` of each round, of the rows it was measured on, or None."""
        found = (detail_of(point, "intervals", self.metric) for point in self.points)
        return tuple(None if ends is None else (float(ends[0]), float(ends[1])) for ends in found)

    def save(self, path: str | Path) -> None:
        """Write the curve as JSON to the file `path`, replacing it in one step; a NaN becomes null."""
        write_atomically(Path(path), dump_json({"version": VERSION, **asdict(self)}))

    @classmethod
    def load(cls, path: str | Path) -> "LearningCurve":
        """Read the curve of a run: `path` is its output folder, or the JSON file itself.

        `FileNotFoundError` where there is none; `ValueError` naming the file where it is damaged or of another version.
        """
        path = Path(path)
        file = path / CURVE_FILE if path.is_dir() else path
        if not file.is_file():
            raise MissingFile(f"No learning curve at {file}. Pass the output_dir of a finished run.")
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            fields = _checked_fields(document)
        except ValueError as error:
            raise Refusal(f"Cannot read the learning curve {file}: {error}") from error
        return cls(**fields)


def value_of(point: Mapping[str, Any], metric: str) -> float:
    """Return `metric` of a round; NaN where it measured no finite number."""
    metrics = point["metrics"]
    if metric not in metrics:
        raise Refusal(f"No metric `{metric}` in round {point.get('round')}; it has {', '.join(sorted(metrics))}.")
    value = metrics[metric]
    return float(value) if value is not None and math.isfinite(value) else math.nan


def detail_of(point: Mapping[str, Any], field: str, metric: str) -> Any:
    """Return what a round says of `metric` in `field`, ``num_rows`` or ``intervals``; None where it says nothing."""
    return (point.get(field) or {}).get(metric)


def _checked_fields(document: object) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise Refusal(f"expected a JSON object, found {type(document).__name__}.")
    if document.get("version") != VERSION:
        raise Refusal(
            f"it has version {document.get('version')}, this hf_noise_al reads version {VERSION}. "
            f"Use the hf_noise_al that wrote it, or run again."
        )
    for name, kind in FIELD_TYPES.items():
        if type(document.get(name)) is not kind:
            raise Refusal(f"`{name}` should be {kind.__name__}, found {document.get(name)!r}.")
    for point in document["points"]:
        sound = isinstance(point, dict) and isinstance(point.get("num_labeled"), int)
        if not sound or not isinstance(point.get("metrics"), dict):
            raise Refusal(f"a point needs `num_labeled` and `metrics`, found {point!r}.")
        name, value = document["metric"], point["metrics"].get(document["metric"])
        if value is not None and type(value) not in (int, float):
            raise Refusal(f"`{name}` of round {point.get('round')} should be a number or null, found {value!r}.")
        _check_rows(point, document["metric"])
    return {**{name: document[name] for name in FIELD_TYPES}, "points": tuple(document["points"])}


def _check_rows(point: Mapping[str, Any], metric: str) -> None:
    for field in ("num_rows", "intervals"):
        if not isinstance(point.get(field) or {}, dict):
            raise Refusal(f"`{field}` of round {point.get('round')} should be an object, found {point[field]!r}.")
    count, ends = detail_of(point, "num_rows", metric), detail_of(point, "intervals", metric)
    if count is not None and type(count) is not int:
        raise Refusal(f"`num_rows` of round {point.get('round')} should be a whole number, found {count!r}.")
    if ends is not None and not (
        isinstance(ends, list | tuple) and len(ends) == 2 and all(type(end) in (int, float) for end in ends)
    ):
        raise Refusal(f"`intervals` of round {point.get('round')} should be two numbers, found {ends!r}.")


def _finite(value: Any) -> Any:
    """Return `value` with every NaN and infinity replaced by None: JSON has no number for them."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dump_json(document: Any) -> str:
    """Return `document` as JSON; NaN and infinity become null."""
    return json.dumps(_finite(document), indent=2, allow_nan=False) + "\n"
