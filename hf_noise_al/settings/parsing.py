"""A recipe and flags -> the settings of a run: both are read by the same rules, and flags win."""

import argparse
import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from transformers import HfArgumentParser

from .acquisition_flags import PREFIX, check_kwargs, merged, names_of_options
from .arguments import DataArguments, ModelArguments, RunArguments
from .recipe import InvalidArgument, Setting, did_you_mean, read_recipe

ARGUMENT_CLASSES = (ModelArguments, DataArguments, RunArguments)


def parse(recipe: Path | None, flags: Sequence[str] = ()) -> tuple[ModelArguments, DataArguments, RunArguments]:
    """Return the settings of `recipe`, overridden by `flags` (``--name value``).

    Raises `InvalidArgument` for an unknown name, with the nearest known one, and for a value of the wrong type.
    """
    settings = [] if recipe is None else read_recipe(recipe)
    own, chosen = _acquisitions(settings, flags)
    if chosen != own:  # what the recipe sets for its own would not fit another
        settings = [setting for setting in settings if not setting.name.startswith(("acquisition_kwargs", PREFIX))]
    settings, flags = merged(settings, flags, chosen, recipe)
    if _makes_another_model(flags):
        settings = [setting for setting in settings if setting.name not in ("model_name_or_path", "model_revision")]
    parser = _Parser()
    for setting in settings:
        if setting.name not in parser.hints:
            raise InvalidArgument(
                f"{recipe}, line {setting.line}: unknown key `{setting.name}`."
                f"{did_you_mean(setting.name, list(parser.hints))}"
            )
    _refuse_unknown_flags(flags, parser, chosen)
    tokens = [token for setting in settings for token in _tokens(setting, parser, recipe)]
    lines = {setting.name: f" ({recipe}, line {setting.line})" for setting in settings}
    for flag in flags:
        lines.pop(_flag_name(flag), None)
    parsed = parser.parse_tokens([*tokens, *flags], lines)
    training = parsed[2]
    if isinstance(training.acquisition_kwargs, dict):
        check_kwargs(training.acquisition, training.acquisition_kwargs)
    return parsed


class _Parser(HfArgumentParser):  # type: ignore[misc, unused-ignore]
    """HfArgumentParser whose complaints are `InvalidArgument` and which takes no abbreviated flags."""

    def __init__(self) -> None:
        classes: Any = ARGUMENT_CLASSES
        super().__init__(classes, allow_abbrev=False, add_help=False, exit_on_error=False)
        self.hints: dict[str, Any] = {}
        for cls in ARGUMENT_CLASSES:
            hints = get_type_hints(cls)
            self.hints |= {item.name: hints[item.name] for item in dataclasses.fields(cls) if item.init}
        for action in self._actions:
            if action.dest == "report_to":  # a list in TrainingArguments, which HfArgumentParser reads as one string
                action.nargs = "+"

    def takes_list(self, name: str) -> bool:
        return any(action.dest == name and action.nargs == "+" for action in self._actions)

    def error(self, message: str) -> NoReturn:
        raise InvalidArgument(message)

    def parse_tokens(
        self, tokens: list[str], lines: dict[str, str]
    ) -> tuple[ModelArguments, DataArguments, RunArguments]:
        try:
            model, data, training, rest = self.parse_args_into_dataclasses(
                tokens, return_remaining_strings=True, look_for_args_file=False
            )
        except argparse.ArgumentError as error:
            name = _flag_name((error.argument_name or "").split("/")[0])
            raise InvalidArgument(f"Cannot use `{name}`{lines.get(name, '')}: {error.message}.") from error
        except InvalidArgument:
            raise
        except (ValueError, TypeError, ImportError, RuntimeError, OSError) as error:  # TrainingArguments' own checks
            raise InvalidArgument(str(error)) from error
        if rest:
            raise InvalidArgument(f"Cannot use {' '.join(map(repr, rest))}: write flags as `--name value`.")
        return model, data, training


def _refuse_unknown_flags(flags: Sequence[str], parser: _Parser, acquisition: str) -> None:
    known = {_flag_name(option) for option in parser._option_string_actions}
    for flag in flags:
        if flag.startswith("--") and _flag_name(flag) not in known:
            names = [*parser.hints, *names_of_options(acquisition)]
            near = did_you_mean(_flag_name(flag), names).replace("`", "`--", 1)
            raise InvalidArgument(f"Unknown flag `{flag.partition('=')[0]}`.{near}")


def _acquisitions(settings: Sequence[Setting], flags: Sequence[str]) -> tuple[str, str]:
    """Return the acquisition of the recipe, and the one that is used: that of `flags` where they name one."""
    own = next((str(setting.value) for setting in settings if setting.name == "acquisition"), "noise_stability")
    words = [word for flag in flags for word in (flag.split("=", 1) if flag.startswith("--") else [flag])]
    return own, [own, *(value for flag, value in itertools.pairwise(words) if flag == "--acquisition")][-1]


def _makes_another_model(flags: Sequence[str]) -> bool:
    """Return whether `flags` name a model to be made, which would else lose against a checkpoint of the recipe."""
    names = {_flag_name(flag) for flag in flags if flag.startswith("--")}
    return "model_config" in names and "model_name_or_path" not in names


def _flag_name(flag: str) -> str:
    return flag.partition("=")[0].removeprefix("--").replace("-", "_")


def _tokens(setting: Setting, parser: _Parser, recipe: Path | None) -> list[str]:
    """Return `setting` as command line tokens, so that recipes and flags are read by the same rules."""
    name, value = setting.name, setting.value
    place = f"`{name}` ({recipe}, line {setting.line})"
    if value is None or value == []:
        return []
    if isinstance(value, list):
        if not parser.takes_list(name):
            raise InvalidArgument(f"Cannot use {place}: it takes one value, found the list {value}.")
        if any(isinstance(item, (list, dict)) for item in value):
            raise InvalidArgument(f"Cannot use {place}: it takes a list of plain values, found {value}.")
        return [f"--{name}", *map(_scalar, value)]
    if isinstance(value, dict):
        if "dict" not in str(parser.hints[name]):
            raise InvalidArgument(f"Cannot use {place}: it takes no mapping, found {json.dumps(value, default=str)}.")
        return [f"--{name}={json.dumps(value, default=str)}"]
    if isinstance(value, bool) and "bool" not in str(parser.hints[name]) and name != "resume_from_checkpoint":
        raise InvalidArgument(f"Cannot use {place}: it is not a yes-or-no setting; put text in quotes.")
    return [f"--{name}", _scalar(value)] if parser.takes_list(name) else [f"--{name}={_scalar(value)}"]


def _scalar(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
