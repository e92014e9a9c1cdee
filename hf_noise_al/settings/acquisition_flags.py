"""Settings of the acquisition as flags and keys of their own: ``--acquisition.noise_scale 1e-3``."""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from ..acquisition import ACQUISITIONS
from ..training_args import default_of
from .arguments import json_mapping
from .recipe import InvalidArgument, Setting, did_you_mean

PREFIX = "acquisition."
KWARGS = "acquisition_kwargs"
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Option(NamedTuple):
    """One setting of an acquisition: a field of its dataclass."""

    name: str
    kinds: tuple[Any, ...]
    """The types that a value may have; those of a union one by one."""
    default: object
    help: str

    @property
    def kind(self) -> str:
        """Return what a value looks like, for messages and the help; empty where no text stands for one."""
        words = [word for kind in self.kinds for word in _written(kind)]
        return "" if words == ["none"] else " | ".join(words)

    @property
    def has_known_kinds(self) -> bool:
        """Return whether a text can stand for every value."""
        return all(get_origin(kind) is Literal or kind in _READERS for kind in self.kinds)


def options_of(acquisition: type) -> dict[str, Option]:
    """Return the settings of an acquisition class by name."""
    try:
        hints = get_type_hints(acquisition)
    except Exception:  # a name that is imported for type checkers alone; the acquisition works without it
        hints = {}
    fields = [field for field in dataclasses.fields(acquisition) if field.init]
    return {
        field.name: Option(
            field.name, _kinds(hints.get(field.name)), default_of(field), str(field.metadata.get("help", ""))
        )
        for field in fields
    }


def names_of_options(acquisition: str) -> list[str]:
    """Return the flags of an acquisition, without the dashes; none for a name that is unknown."""
    return [f"{PREFIX}{name}" for name in options_of(ACQUISITIONS[acquisition])] if acquisition in ACQUISITIONS else []


def read_value(option: Option, text: str, place: str) -> object:
    """Return the value that `text` stands for, the same as JSON or YAML make of it; `place` is for messages."""
    if not option.kind:
        raise InvalidArgument(
            f"Cannot use {place}: no text stands for its value. Set it as JSON in `{KWARGS}`, or in Python."
        )
    for kind in sorted(option.kinds, key=lambda kind: kind is str):  # any text is a str, also `none`
        values = _read(kind, text)
        if values:
            return values[0]
    raise InvalidArgument(f"Cannot use {place}: it takes {option.kind}, found {text!r}.")


def merged(
    settings: Sequence[Setting], flags: Sequence[str], acquisition: str, recipe: Path | None
) -> tuple[list[Setting], list[str]]:
    """Return `settings` and `flags` with those of the acquisition together, as one ``--acquisition_kwargs``.

    Flags win over the recipe; ``--acquisition_kwargs`` as a flag replaces all that the recipe says of the acquisition.
    """
    rest, own = without_options(flags), _options_in(flags)
    plain = [setting for setting in settings if not setting.name.startswith(PREFIX)]
    dotted = [setting for setting in settings if setting.name.startswith(PREFIX) and setting.value is not None]
    if (not own and not dotted) or acquisition not in ACQUISITIONS:  # an unknown acquisition is refused with the rest
        return plain, rest
    options = options_of(ACQUISITIONS[acquisition])
    by_recipe = _together(
        _mapping(next((setting.value for setting in settings if setting.name == KWARGS), None)),
        {
            setting.name.removeprefix(PREFIX): _value_in_recipe(setting, options, acquisition, recipe)
            for setting in dotted
        },
    )
    given = _last_kwargs(rest)
    by_flags = _together(
        _mapping(given),
        {name: _value_of_flag(name, text, options, acquisition) for name, text in own.items()},
    )
    values = by_flags if given is not None else {**by_recipe, **by_flags}
    return plain, [*rest, f"--{KWARGS}={json.dumps(values, default=str)}"]


def check_kwargs(acquisition: str, values: Mapping[str, object]) -> None:
    """Raise `InvalidArgument` where a value of ``acquisition_kwargs`` is not of the type that its setting has."""
    options = options_of(ACQUISITIONS[acquisition])
    for name, value in values.items():
        option = options[name]
        if option.has_known_kinds and not any(_is_of(kind, value) for kind in option.kinds):
            raise InvalidArgument(f"Cannot use `{KWARGS}`: `{name}` takes {option.kind}, found {value!r}.")


def _is_of(kind: Any, value: object) -> bool:
    """Return whether `value` is of the type `kind`; a whole number is a float too, and a bool is no number."""
    if get_origin(kind) is Literal:
        return any(value == one and type(value) is type(one) for one in get_args(kind))
    return type(value) in ((int, float) if kind is float else (kind,))


def without_options(flags: Sequence[str]) -> list[str]:
    """Return `flags` without those of the acquisition and their values."""
    kept: list[str] = []
    dropping = False
    for word in flags:
        if word.startswith("--"):
            dropping = _is_option(word) and "=" not in word
        elif dropping:
            dropping = False  # one value belongs to it
            continue
        if not _is_option(word):
            kept.append(word)
    return kept


def _options_in(flags: Sequence[str]) -> dict[str, str]:
    """Return the text of each setting of the acquisition among `flags`."""
    texts: dict[str, str] = {}
    for number, word in enumerate(flags):
        if _is_option(word):
            flag, equals, text = word.partition("=")
            following = flags[number + 1 : number + 2]
            if not equals and (not following or following[0].startswith("--")):
                raise InvalidArgument(f"Cannot use `{flag}`: expected one argument.")
            name = flag.removeprefix(f"--{PREFIX}").replace("-", "_")
            texts[name] = text if equals else following[0]
    return texts


def _is_option(word: str) -> bool:
    return word.startswith(f"--{PREFIX}")


def _last_kwargs(flags: Sequence[str]) -> str | None:
    """Return the text of ``--acquisition_kwargs`` among `flags`."""
    words = [part for flag in flags for part in (flag.split("=", 1) if flag.startswith("--") else [flag])]
    texts = [text for flag, text in pairwise(words) if flag in (f"--{KWARGS}", f"--{KWARGS.replace('_', '-')}")]
    return texts[-1] if texts else None


def _mapping(value: object) -> dict[str, Any]:
    if isinstance(value, str):
        return json_mapping(KWARGS, value)
    return value if isinstance(value, dict) else {}  # what is no mapping is refused with the other settings


def _together(mapping: dict[str, Any], dotted: dict[str, Any]) -> dict[str, Any]:
    for name, value in dotted.items():
        if name in mapping and mapping[name] != value:
            raise InvalidArgument(
                f"`{PREFIX}{name}` is {value!r}, and `{KWARGS}` says {mapping[name]!r}. Set it in one of them."
            )
    return {**dotted, **mapping}


def _value_of_flag(name: str, text: str, options: dict[str, Option], acquisition: str) -> object:
    if name not in options:
        near = did_you_mean(name, list(options)).replace("`", f"`--{PREFIX}", 1)
        raise InvalidArgument(f"Unknown flag `--{PREFIX}{name}`.{near} {_has(acquisition, options)}")
    return read_value(options[name], text, f"`--{PREFIX}{name}`")


def _value_in_recipe(setting: Setting, options: dict[str, Option], acquisition: str, recipe: Path | None) -> object:
    name, place = setting.name.removeprefix(PREFIX), f"`{setting.name}` ({recipe}, line {setting.line})"
    if name not in options:
        near = did_you_mean(name, list(options)).replace("`", f"`{PREFIX}", 1)
        raise InvalidArgument(
            f"{recipe}, line {setting.line}: unknown key `{setting.name}`.{near} {_has(acquisition, options)}"
        )
    if isinstance(setting.value, (list, dict)):
        raise InvalidArgument(
            f"Cannot use {place}: it takes one value, found {json.dumps(setting.value, default=str)}."
        )
    if isinstance(setting.value, bool):
        if bool not in options[name].kinds:
            raise InvalidArgument(f"Cannot use {place}: it is not a yes-or-no setting; put text in quotes.")
        return setting.value
    return read_value(options[name], str(setting.value), place)


def _has(acquisition: str, options: dict[str, Option]) -> str:
    return f"The acquisition {acquisition} has {', '.join(options) if options else 'no settings'}."


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _written(kind: Any) -> list[str]:
    """Return what a value of the type `kind` looks like, in words."""
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    return [_READERS[kind][0]] if kind in _READERS else []


def _read(kind: Any, text: str) -> list[Any]:
    """Return the value of the type `kind` that `text` stands for, as a list of one; an empty list for none."""
    if get_origin(kind) is Literal:
        return [value for value in get_args(kind) if str(value) == text]
    return _READERS[kind][1](text) if kind in _READERS else []


def _whole(text: str) -> list[int]:
    return [int(text)] if re.fullmatch(r"[-+]?[0-9]{1,300}", text) else []


def _number(text: str) -> list[float]:
    """Read a whole number as one, as JSON does: a run's fingerprint holds what was written."""
    try:
        return [*_whole(text)] or [float(text)]
    except ValueError:
        return []


_READERS: dict[Any, tuple[str, Callable[[str], list[Any]]]] = {
    bool: ("true | false", lambda text: [_WORDS[text.lower()]] if text.lower() in _WORDS else []),
    int: ("int", _whole),
    float: ("float", _number),
    str: ("str", lambda text: [text]),
    NoneType: ("none", lambda text: [None] if text.lower() in ("none", "null") else []),
}
