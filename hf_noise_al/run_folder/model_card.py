"""The model card: task, data, budget, acquisition, learning curve, how to reproduce."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from ..acquisition import Acquisition
from ..files.atomic import write_atomically
from ..files.shown_text import one_line
from ..measuring.intervals import few_rows, format_interval
from ..training_args import ActiveTrainingArguments
from .fingerprint import describe
from .history import RoundRecord

LONGEST_NAME, LONGEST_CODE = 200, 2000
"""Letters of a name, and of an acquisition with its settings, that a card shows."""

MOST_NAMES = 8
"""Metrics of one evaluation set that are named beside its number of rows."""

SETTINGS = (
    *("seed", "num_rounds", "initial_size", "initial_selection", "query_size", "candidate_size", "warm_start"),
    "eval_folds",
    *("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size"),
)


def write_model_card(
    path: Path,
    model: object,
    args: ActiveTrainingArguments,
    acquisition: Acquisition,
    pool_size: int,
    history: Sequence[RoundRecord],
    **card: Any,
) -> None:
    """Write the card of a model and of the rounds that it was trained in.

    Args:
        path: The file.
        model: Its configuration says what it was made from.
        args: The settings that the rounds had.
        acquisition: What chose the queries.
        pool_size: How many rows there were to choose from.
        history: One record per round.
        card: What `Trainer.create_model_card` takes: ``model_name``, ``finetuned_from``, ``tags``, ``dataset``, ...
    """
    config = getattr(model, "config", None)
    base_model = card.get("finetuned_from") or getattr(config, "_name_or_path", None) or None
    tags = card.get("tags") or []
    unused = "num_train_epochs" if args.max_steps > 0 else "max_steps"
    data = ModelCardData(
        language=card.get("language"),
        license=card.get("license"),
        library_name="transformers",
        tags=["active-learning", "hf_noise_al", *([tags] if isinstance(tags, str) else tags)],
        base_model=None if _is_path(base_model) else base_model,
        datasets=card.get("dataset_tags"),
        pipeline_tag=card.get("tasks"),
    )
    text = model_card(
        title=card.get("model_name") or Path(str(args.output_dir)).resolve().name,
        base_model=base_model,
        dataset=card.get("dataset"),
        acquisition=describe(acquisition),
        pool_size=pool_size,
        history=history,
        settings={name: getattr(args, name) for name in SETTINGS if name != unused},
        versions={"Python": platform.python_version()}
        | {name: _version(name) for name in ("hf_noise_al", "transformers", "torch", "datasets", "accelerate")},
        data=data,
    )
    write_atomically(path, text)


def model_card(
    *,
    title: str,
    base_model: str | None,
    dataset: str | None,
    acquisition: str,
    pool_size: int,
    history: Sequence[RoundRecord],
    settings: Mapping[str, object],
    versions: Mapping[str, str],
    data: ModelCardData,
) -> str:
    """Return the text of the card, metadata block first."""
    origin = None if _is_path(base_model) else base_model
    labeled = history[-1].num_labeled if history else 0
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {_literal(title)}",
        f"Fine-tuned{f' from {_literal(origin)}' if origin else ''}{f' on {_literal(dataset)}' if dataset else ''} by "
        f"active learning with `hf_noise_al`: {labeled:,} of {pool_size:,} examples of the pool were labeled, over "
        f"{len(history)} rounds, chosen by {_code(acquisition)}.",
        "## Learning curve",
        rounds_table(history),
        *rows_notes(history),
        "## How to reproduce",
        _block(shlex.join(_command(sys.argv))),
        "\n".join(f"- {name}: {_code(value)}" for name, value in settings.items()),
        "## Versions",
        "\n".join(f"- {name} {version}" for name, version in versions.items()),
    ]
    return "\n\n".join(parts) + "\n"


def rounds_table(history: Sequence[RoundRecord]) -> str:
    """Return the rounds as a Markdown table: labels and every metric, with its 95 % interval where it has one."""
    names = list(dict.fromkeys(name for record in history for name in record.metrics))
    lines = ["| " + " | ".join(["round", "labels", *map(_literal, names)]) + " |", "| --: " * (2 + len(names)) + "|"]
    for record in history:
        values = [_score(record, name) if name in record.metrics else "" for name in names]
        lines.append("| " + " | ".join([str(record.round), str(record.num_labeled), *values]) + " |")
    return "\n".join(lines)


def rows_notes(history: Sequence[RoundRecord]) -> list[str]:
    """Return paragraphs that say on how many rows metrics were measured, and what few rows mean."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for name in dict.fromkeys(name for record in history for name in record.num_rows):
        counts = tuple(record.num_rows[name] for record in history if name in record.num_rows)
        groups.setdefault(counts, []).append(name)
    shown = [
        f"{', '.join(map(_literal, names[:MOST_NAMES]))}{', ...' if len(names) > MOST_NAMES else ''} on "
        f"{_span(counts)} rows"
        for counts, names in groups.items()
    ]
    if not shown:
        return []
    interval = " In brackets: 95 % intervals, of these rows alone, not of other seeds or other labels."
    notes = [f"Measured: {'; '.join(shown)}.{interval if any(record.intervals for record in history) else ''}"]
    if any(name.startswith("cv_") for names in groups.values() for name in names):
        notes.append(
            "`cv_`: cross-validated over the labeled rows of the round. Where a query chose them, they are no random "
            "sample of the pool."
        )
    few = {count for record in history[-1:] for name, count in record.num_rows.items() if name.startswith("eval_")}
    said = few_rows({"": min(few, default=0)}, crossed=True)
    return [*notes, f"**{said}**"] if said else notes


def _score(record: RoundRecord, name: str) -> str:
    interval = record.intervals.get(name)
    return f"{record.metrics[name]:.4f}{'' if interval is None else f' ({format_interval(interval)})'}"


def _span(counts: Sequence[int]) -> str:
    return f"{counts[0]:,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"


def _literal(name: str) -> str:
    """Return a name of the user's as Markdown that shows it as it is: no table, link, emphasis or HTML comes of it."""
    text = one_line(name, LONGEST_NAME).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"[\\`*\[\]|~$#]", r"\\\g<0>", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # inside a word an underscore is only that


def _code(value: object) -> str:
    """Return `value` as code within a line."""
    text = one_line(value, LONGEST_CODE)
    fence = "`" * (_longest_run_of_backticks(text) + 1)
    padding = " " if len(fence) > 1 else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def _block(command: str) -> str:
    """Return `command` as a block of code; a quoted word may have several lines."""
    text = "\n".join(one_line(line, len(line)) for line in command.split("\n"))
    fence = "`" * max(3, _longest_run_of_backticks(text) + 1)
    return f"{fence}bash\n{text}\n{fence}"


def _longest_run_of_backticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _command(argv: Sequence[str]) -> list[str]:
    """Return the command line without secrets."""
    command, hide = _program(argv[0] if argv else ""), False
    for word in argv[1:]:
        secret = word.startswith("--") and "token" in word
        command.append("..." if hide else word.split("=")[0] + "=..." if secret and "=" in word else word)
        hide = secret and "=" not in word
    return command


def _program(script: str) -> list[str]:
    """Return what starts `script`: the command of this library, its module, or Python with the file."""
    path = Path(script)
    if path.name.removesuffix(".exe") == "hf-noise-al":
        return ["hf-noise-al"]
    if path.name == "__main__.py" and path.parent.name == "hf_noise_al":
        return ["python", "-m", "hf_noise_al"]
    return ["python", script]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a folder, not installed
        return "unknown"


def _is_path(name: str | None) -> bool:
    return name is None or name.startswith(("/", ".", "~")) or os.path.exists(name)
