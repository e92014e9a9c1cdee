"""What the command says and where: results on stdout, log lines and refusals on stderr, whole beside progress bars."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from ..files.shown_text import one_line, printable
from ..settings.recipe import InvalidArgument

PACKAGE = "hf_noise_al"


def say(text: str, end: str = "\n") -> None:
    """Print `text`; where nobody reads any more, as after ``| head``, go on in silence."""
    try:
        print(printable(text), end=end, flush=True)
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as error:
        _silence(sys.stdout)
        raise InvalidArgument(f"Cannot print to where the output goes: {error.strerror or error}.") from error


def tell(text: str) -> None:
    """Print `text` on stderr; where nobody reads that any more, the code that is returned still says what happened."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
    """Send what is left in the buffer of `stream`, and all that follows, nowhere: Python flushes it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def read_options(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Return the options in `words`; print the help where it is asked for."""
    try:
        return parser.parse_args(words)
    except SystemExit:
        say("", end="")  # argparse leaves its help in the buffer
        raise


class _Formatter(logging.Formatter):
    """Writes a message in one line, whatever names it shows."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        return one_line(text, len(text))


@contextmanager
def log_lines_on_stderr() -> Iterator[None]:
    """Print the library's log lines while the body runs, of all processes only warnings beside those of the first."""
    logger = logging.getLogger(PACKAGE)
    level, propagate = logger.level, logger.propagate
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


@contextmanager
def lines_above_bars() -> Iterator[None]:
    """Print log lines of this library and of transformers above a progress bar while one is shown, not into it."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    loggers = [logging.getLogger(name) for name in (PACKAGE, "transformers")]
    with logging_redirect_tqdm([logger for logger in loggers if any(map(_is_on_terminal, logger.handlers))]):
        yield


def _is_on_terminal(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr)
