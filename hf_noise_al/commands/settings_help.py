"""The text of `--help`: every setting by group, ours first, from the help of the argument dataclasses."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any, get_type_hints

from transformers import TrainingArguments

from ..acquisition import ACQUISITIONS
from ..annotators import ANNOTATORS
from ..files.shown_text import one_line
from ..refusals import Refusal
from ..settings.acquisition_flags import PREFIX, options_of
from ..settings.arguments import DataArguments, ModelArguments, RunArguments
from ..tasks import TASKS
from ..training_args import default_of

_OFTEN_SET = (
    "output_dir",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "weight_decay",
    "warmup_steps",
    "lr_scheduler_type",
    "seed",
    "bf16",
    "use_cpu",
    "report_to",
    "push_to_hub",
    "resume_from_checkpoint",
)


def wants_help(words: Sequence[str]) -> bool:
    """Return whether a verb's `words` ask for its help."""
    return "-h" in words or "--help" in words


def describe_settings(verb: str) -> str:
    """Return the help of `verb`: usage, our settings, what is often set of transformers', and the names of the rest."""
    width = max(60, min(shutil.get_terminal_size().columns, 120))
    upstream = {item.name for item in dataclasses.fields(TrainingArguments) if item.init}
    ours = [item for item in dataclasses.fields(RunArguments) if item.init and item.name not in upstream]
    often = [item for item in dataclasses.fields(TrainingArguments) if item.name in _OFTEN_SET]
    often.sort(key=lambda item: _OFTEN_SET.index(item.name))
    rest = sorted(upstream - set(_OFTEN_SET))
    parts = [
        f"hf-noise-al {verb} RECIPE [--name value ...]",
        "RECIPE is a YAML file whose keys are these settings, or a name that `hf-noise-al recipes` lists. "
        "Flags override it. Lists are written `--name a b`, mappings as JSON.",
    ]
    blocks = [textwrap.fill(part, width) for part in parts]
    for title, cls, items in (
        ("Model", ModelArguments, dataclasses.fields(ModelArguments)),
        ("Data", DataArguments, dataclasses.fields(DataArguments)),
        ("Active learning", RunArguments, ours),
        ("Training (of transformers.TrainingArguments, often set)", RunArguments, often),
    ):
        hints = get_type_hints(cls)
        blocks.append("\n".join([f"{title}:", *(_entry_of(item, hints[item.name], width) for item in items)]))
    blocks += [_settings_of(acquisition, width) for acquisition in ACQUISITIONS]
    names = textwrap.fill(", ".join(rest), width, initial_indent="  ", subsequent_indent="  ")
    blocks.append(f"Further settings, described in transformers.TrainingArguments:\n{names}")
    return "\n\n".join(blocks)


def _settings_of(acquisition: str, width: int) -> str:
    """Return the settings of one acquisition; one that a package brings and that cannot be loaded says why."""
    title = f"With `--acquisition {acquisition}`"
    try:
        options = options_of(ACQUISITIONS[acquisition]).values()
    except Refusal as refusal:
        return textwrap.fill(f"{title}: {one_line(refusal, 300)}", width)
    entries = [
        _entry(f"{PREFIX}{option.name}", option.kind or "(in Python)", option.help, option.default, width)
        for option in options
    ]
    return "\n".join([f"{title}:", *entries]) if entries else f"{title}: no settings."


def _entry_of(item: dataclasses.Field[Any], hint: Any, width: int) -> str:
    default = default_of(item)
    text = str(item.metadata.get("help", "")).replace("%%", "%")
    for name, registry in (("tasks", TASKS), ("acquisitions", ACQUISITIONS), ("annotators", ANNOTATORS)):
        text = text.replace(f"{{{name}}}", ", ".join(registry))
    return _entry(item.name, _kind(hint), text, default, width)


def _entry(name: str, kind: str, text: str, default: object, width: int) -> str:
    shown = "" if default is None or default is dataclasses.MISSING or default == "" else f" [{_plain(default)}]"
    text = textwrap.shorten(" ".join(text.split()), 400, placeholder=" ...")
    body = textwrap.fill(f"{text}{shown}".strip(), width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return f"  --{name} {kind}".rstrip() + (f"\n{body}" if body.strip() else "")


def _kind(hint: Any) -> str:
    text = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    names = [name.strip() for name in text.replace("Optional[", "").split("|")]
    known = [name.rstrip("]") + ("]" if name.startswith("list[") else "") for name in names if name != "None"]
    return " | ".join(name for name in known if name.isidentifier() or name.startswith("list["))


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "value", getattr(value, "__name__", value)))
