"""The command `hf-noise-al`: which verb is asked for, and how it ended."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

from ..files.shown_text import printable
from ..plugins import Registry
from ..refusals import Refusal
from ..settings.recipe import InvalidArgument, did_you_mean
from .console import PACKAGE, log_lines_on_stderr, say, tell

DONE, WRONG_INPUT, INTERRUPTED = 0, 2, 130


class Verb(NamedTuple):
    """What the help says of a verb; the module of its name in this folder has its ``main(words)``."""

    usage: str
    help: str


VERBS = {
    "run": Verb("run RECIPE [--name value ...]", "train in rounds; each asks for the labels that help most"),
    "query": Verb(
        "query RECIPE --model_name_or_path CHECKPOINT [--query_size N]",
        "ask once with a trained model: the rows to label, best first",
    ),
    "compare": Verb("compare RUN [RUN ...] [--plot curve.png] [--json]", "learning curves side by side, over seeds"),
    "recipes": Verb("recipes", "what there is to run"),
}


BROUGHT: Registry[Callable[[Sequence[str]], None]] = Registry(
    group="hf_noise_al.verbs",
    kind="verb",
    own={},
    wanted="a function that takes the words behind the verb",
    fits=lambda name, value: callable(value),
)
"""Verbs of other packages."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 when done, 2 for wrong input, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verb, rest = (words[0], words[1:]) if words else ("", [])
    try:
        if verb in ("", "-h", "--help"):
            say(usage(), end="")
            return DONE if verb else WRONG_INPUT
        run_verb = _find(verb)
        with log_lines_on_stderr():
            run_verb(rest)
        part_from_other_processes()
    except KeyboardInterrupt as interrupt:
        how_to_go_on = getattr(interrupt, "how_to_go_on", None)
        tell(how_to_go_on(words) if how_to_go_on else "Interrupted.")
        return INTERRUPTED
    except Refusal as refusal:
        logging.getLogger(PACKAGE).debug("Refused.", exc_info=True)
        tell(f"hf-noise-al: {printable(str(refusal))}")
        return WRONG_INPUT
    return DONE


def usage() -> str:
    """Return the help of the command: each verb with one line of what it is for."""
    lines = []
    for verb in VERBS.values():
        shown = f"  hf-noise-al {verb.usage}"
        lines += [f"{shown:<48} {verb.help}"] if len(shown) < 48 else [shown, f"{'':<48} {verb.help}"]
    lines += [f"  hf-noise-al {name}" for name in BROUGHT]
    return (
        "Fine-tune models of the Hugging Face Hub with fewer labels: active learning with noise stability.\n\n"
        + "\n".join(lines)
        + "\n\nRECIPE is a YAML file, or a name that `recipes` lists. `hf-noise-al run --help` lists every setting.\n"
    )


def _find(verb: str) -> Callable[[Sequence[str]], None]:
    """Return what does `verb`, imported only now: some verbs need torch and transformers, which take seconds."""
    if verb in VERBS:
        run_verb: Callable[[Sequence[str]], None] = import_module(f"{__package__}.{verb}").main
        return run_verb
    if verb in BROUGHT:
        return BROUGHT[verb]
    known = [*VERBS, *BROUGHT]
    raise InvalidArgument(f"Unknown command `{verb}`.{did_you_mean(verb, known)} See `hf-noise-al --help`.")


def part_from_other_processes() -> None:
    """Close what connects this process to others: torch's threads, still there at exit, can abort a finished run."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
