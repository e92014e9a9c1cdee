"""What to say to a user who stops a run: the command that goes on with it, or that starts it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..files.run_names import STATE_FILE
from ..settings.arguments import RunArguments


class RunInterrupted(KeyboardInterrupt):
    """The user stopped a run."""

    def __init__(self, resumable: bool, afresh: bool) -> None:
        super().__init__("Interrupted.")
        self.resumable, self.afresh = resumable, afresh

    def how_to_go_on(self, words: Sequence[str]) -> str:
        """Return what to tell a user who gave the command `words`."""
        if not self.resumable:
            return f"Interrupted. To start again:\n  {shlex.join(['hf-noise-al', *words])}"
        command = ["hf-noise-al", *_without(words, ("resume_from_checkpoint", "start_afresh")), *_RESUME]
        command += ("--start_afresh", "false") if self.afresh else ()  # the recipe may say otherwise
        return f"Interrupted; rounds and labels so far are saved. To go on:\n  {shlex.join(command)}"


_RESUME = ("--resume_from_checkpoint", "true")


@contextmanager
def telling_what_is_saved(runs: Sequence[RunArguments]) -> Iterator[None]:
    """Raise `RunInterrupted` where the user stops the body, which trains `runs`.

    They can be resumed where a state is saved, unless one that they were to replace is still there.
    """
    before = _states(runs)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        after, afresh = _states(runs), any(arguments.start_afresh for arguments in runs)
        stale = afresh and bool(before.items() & after.items())
        raise RunInterrupted(bool(after) and not stale, afresh) from interrupt


def _states(runs: Sequence[RunArguments]) -> dict[Path, int]:
    """Return the state files of `runs` that are there, each with the time that it was written at."""
    files = [Path(str(arguments.output_dir)) / STATE_FILE for arguments in runs]
    return {file: file.stat().st_mtime_ns for file in files if file.exists()}


def _without(words: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return `words` without the flags `names` and their values."""
    kept: list[str] = []
    dropping = False
    for word in words:
        if word.startswith("--"):
            name, equals, _ = word[2:].partition("=")
            dropped = name.replace("-", "_") in names
            dropping = dropped and not equals
            if not dropped:
                kept.append(word)
        elif not dropping:
            kept.append(word)
    return kept
