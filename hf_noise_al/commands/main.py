"""The command `hf-noise-al`: run, query, compare, recipes."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..files.shown_text import one_line, printable
from ..settings.recipe import InvalidArgument, did_you_mean, find_recipe, list_recipes

if TYPE_CHECKING:
    from ..experiments.learning_curve import LearningCurve

USAGE = """\
Fine-tune models of the Hugging Face Hub with fewer labels: active learning with noise stability.

  hf-noise-al run RECIPE [--name value ...]      train in rounds; each asks for the labels that help most
  hf-noise-al query RECIPE --model_name_or_path CHECKPOINT [--query_size N]
                                                 ask once with a trained model: the rows to label, best first
  hf-noise-al compare RUN [RUN ...] [--plot curve.png] [--json]
                                                 learning curves side by side, over seeds
  hf-noise-al recipes                            what there is to run

RECIPE is a YAML file, or a name that `recipes` lists. `hf-noise-al run --help` lists every setting.
"""

PACKAGE = "hf_noise_al"
DONE, WRONG_INPUT, INTERRUPTED = 0, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 when done, 2 for wrong input, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verb, rest = (words[0], words[1:]) if words else ("", [])
    try:
        if verb in ("", "-h", "--help"):
            _say(USAGE, end="")
            return DONE if verb else WRONG_INPUT
        if verb not in VERBS:
            raise InvalidArgument(
                f"Unknown command `{verb}`.{did_you_mean(verb, list(VERBS))} See `hf-noise-al --help`."
            )
        with _log_lines_on_stderr():
            VERBS[verb](rest)
        part_from_other_processes()
    except KeyboardInterrupt as interrupt:
        tell = getattr(interrupt, "how_to_go_on", None)
        _tell(tell(words) if tell else "Interrupted.")
        return INTERRUPTED
    except (ValueError, FileNotFoundError, ImportError) as error:
        if not _is_refusal(error):
            raise
        logging.getLogger(PACKAGE).debug("Refused.", exc_info=True)
        _tell(f"hf-noise-al: {printable(str(error))}")
        return WRONG_INPUT
    return DONE


def part_from_other_processes() -> None:
    """Close what connects this process to others: torch's threads, still there at exit, can abort a finished run."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _run(words: list[str]) -> None:
    from .run import run

    if _wants_help(words):
        _print_settings("run")
        return
    with _lines_above_bars():
        for text in run(*_recipe_and_flags("run", words)):
            _say(text)


def _query(words: list[str]) -> None:
    from .run import query

    if _wants_help(words):
        _print_settings("query")
        return
    with _lines_above_bars():
        for text in query(*_recipe_and_flags("query", words)):
            _say(text)


def _compare(words: list[str]) -> None:
    from ..experiments.comparison import compare, to_json
    from ..experiments.plotting import FORMATS, plot_curves
    from ..experiments.tables import format_table

    parser = argparse.ArgumentParser("hf-noise-al compare", description="Learning curves side by side, over seeds.")
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="output_dir of a run, or of repeated runs")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves, as png, svg or pdf")
    parser.add_argument("--baseline", default="random", help="acquisition to compare with (default: random)")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = _options(parser, words)
    if options.plot is not None and options.plot.suffix.lower() not in FORMATS:
        raise InvalidArgument(f"Cannot draw {options.plot}: name a file that ends in one of {', '.join(FORMATS)}.")
    comparisons = compare(_curves(options.runs), options.baseline)
    _say(to_json(comparisons) if options.json else format_table(comparisons), end="" if options.json else "\n")
    if options.plot is not None:
        try:
            plot_curves(comparisons, options.plot)
        except OSError as error:
            raise InvalidArgument(f"Cannot write {options.plot}: {error}. Pass another `--plot`.") from error


def _recipes(words: list[str]) -> None:
    parser = argparse.ArgumentParser("hf-noise-al recipes", description="List the recipes that come with the library.")
    _options(parser, words)
    recipes = list_recipes()
    if not recipes:
        raise InvalidArgument("Found no recipes beside the library. Pass the path of a YAML file to `run`.")
    width = max(map(len, recipes))
    for name, line in recipes.items():
        _say(f"{name:<{width}}  {line}")


VERBS: dict[str, Callable[[list[str]], None]] = {
    "run": _run,
    "query": _query,
    "compare": _compare,
    "recipes": _recipes,
}


def _recipe_and_flags(verb: str, words: list[str]) -> tuple[Path, list[str]]:
    if not words or words[0].startswith("-"):
        raise InvalidArgument(f"Name a recipe first: `hf-noise-al {verb} RECIPE [--name value ...]`.")
    return find_recipe(words[0]), words[1:]


def _curves(runs: Sequence[Path]) -> list[LearningCurve]:
    """Return the curve of every run; a folder of repeated runs stands for all of them."""
    from ..experiments.learning_curve import FILE_NAME, LearningCurve
    from ..run_folder.earlier_run import is_kept

    curves = []
    for run in runs:
        inside = sorted(run.glob(f"*/{FILE_NAME}")) if run.is_dir() and not (run / FILE_NAME).exists() else []
        inside = [path for path in inside if not is_kept(path.parent)]
        curves += [LearningCurve.load(path) for path in inside or [run]]
    return curves


def _say(text: str, end: str = "\n") -> None:
    """Print `text`; where nobody reads any more, as after ``| head``, go on in silence."""
    try:
        print(printable(text), end=end, flush=True)
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as error:
        _silence(sys.stdout)
        raise InvalidArgument(f"Cannot print to where the output goes: {error.strerror or error}.") from error


def _tell(text: str) -> None:
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


def _options(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """Return the options in `words`; print the help where it is asked for."""
    try:
        return parser.parse_args(words)
    except SystemExit:
        _say("", end="")  # argparse leaves its help in the buffer
        raise


def _wants_help(words: Sequence[str]) -> bool:
    return "-h" in words or "--help" in words


def _print_settings(verb: str) -> None:
    from .settings_help import describe_settings

    _say(describe_settings(verb))


class _Formatter(logging.Formatter):
    """Writes a message in one line, whatever names it shows."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        return one_line(text, len(text))


@contextmanager
def _log_lines_on_stderr() -> Iterator[None]:
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
def _lines_above_bars() -> Iterator[None]:
    """Print log lines of this library and of transformers above a progress bar while one is shown, not into it."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    loggers = [logging.getLogger(name) for name in (PACKAGE, "transformers")]
    with logging_redirect_tqdm([logger for logger in loggers if any(map(_is_on_terminal, logger.handlers))]):
        yield


def _is_on_terminal(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr)


def _is_refusal(error: BaseException) -> bool:
    """Return whether the library itself raised `error`, as a message to the user, rather than something under it."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, InvalidArgument) or Path(frames[-1].filename).is_relative_to(Path(__file__).parents[1])
