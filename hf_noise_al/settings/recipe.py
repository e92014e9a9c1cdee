"""Recipes: YAML files whose keys are fields of the argument dataclasses; found by path or by name, read with lines."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ..files.shown_text import one_line
from ..files.typed_text import read_typed_text
from ..refusals import Refusal

LAUNCH_FOLDER = "accelerate"
"""The folder beside the recipes with configurations of `accelerate launch`, which are no recipes."""


MAX_DEPTH, MAX_VALUES, MAX_DIGITS = 20, 100_000, 300
"""How deeply a recipe may nest its values, how many it may have, and digits a number may have."""
_TAG = "tag:yaml.org,2002:"
_NUMBERS = frozenset({f"{_TAG}int", f"{_TAG}float"})
_NAMES = frozenset({f"{_TAG}str", f"{_TAG}merge"})
_KEYS = frozenset({*_NUMBERS, f"{_TAG}bool", f"{_TAG}null"})
"""What may be a key inside a value beside names, as in ``id2label: {0: no, 1: yes}``: JSON makes names of them."""


class InvalidArgument(Refusal):
    """A recipe or a flag that cannot be used; the message says what was asked, what was found and what to do."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, for which ``1e-3`` is a number, as in YAML 1.2, and not a text."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return what `node` stands for; where Python cannot make it, say in which line."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            problem = f"{_found(node)} is no value: {error}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass(frozen=True)
class Setting:
    """One key of a recipe with the line that it stands on (from 1)."""

    name: str
    value: Any
    line: int


def read_recipe(path: Path) -> list[Setting]:
    """Return the settings of the recipe at `path` in their order; an error names the file and the line."""
    try:
        text = read_typed_text(path)
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
    try:
        _refuse_depth(text, path)
        root = yaml.compose(text, Loader=_Loader)
        if root is not None:
            _refuse_unusual(root, path)
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        line, problem = _line_and_problem(error, text)
        raise InvalidArgument(f"Cannot read the recipe {path}{line}: not valid YAML ({problem}).") from error
    if not isinstance(root, yaml.MappingNode) or not isinstance(values, dict):
        raise InvalidArgument(f"The recipe {path} holds no settings. Write one `key: value` a line.")
    lines = {key.value: key.start_mark.line + 1 for key, _ in root.value}
    return [Setting(str(key), value, lines.get(str(key), 1)) for key, value in values.items()]


def _line_and_problem(error: yaml.YAMLError, text: str) -> tuple[str, str]:
    if isinstance(error, yaml.reader.ReaderError):
        number = text.count("\n", 0, error.position) + 1
        return f", line {number}", f"the character U+{error.character:04X} may not stand in it"
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark else "", getattr(error, "problem", None) or str(error)


def _refuse_depth(text: str, path: Path) -> None:
    """Refuse what is nested too deeply to be read at all."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _too_much(path, event.start_mark.line + 1 if event.start_mark else 1)


def _refuse_unusual(root: yaml.Node, path: Path) -> None:
    """Refuse what no setting is: endless or nested values, also through aliases, huge numbers, keys without a name."""
    seen, waiting = 0, [(root, 1)]
    while waiting:
        node, depth = waiting.pop()
        seen += 1
        if seen > MAX_VALUES or depth > MAX_DEPTH:
            raise _too_much(path, node.start_mark.line + 1)
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            _refuse_keys(node, path, _NAMES if node is root else _NAMES | _KEYS)
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        elif node.tag in _NUMBERS and len(node.value) > MAX_DIGITS:
            raise InvalidArgument(
                f"{path}, line {node.start_mark.line + 1}: found a number of {len(node.value)} digits, and at most "
                f"{MAX_DIGITS} are read. Put it in quotes if it is a text."
            )
        waiting += [(child, depth + 1) for child in children]


def _refuse_keys(node: yaml.MappingNode, path: Path, kinds: frozenset[str]) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag not in kinds:
            found = _found(key)
            raise InvalidArgument(
                f"{path}, line {line}: the key {found} is not the name of a setting. Put it in quotes."
            )
        if key.value in lines:
            raise InvalidArgument(f"{path}, line {line}: `{key.value}` was already set in line {lines[key.value]}.")
        lines[key.value] = line


def _too_much(path: Path, line: int) -> InvalidArgument:
    return InvalidArgument(
        f"{path}, line {line}: the values are more than {MAX_DEPTH} deep or {MAX_VALUES} in number, aliases "
        "written out. Settings are single values, short lists and flat mappings."
    )


def _found(node: yaml.Node) -> str:
    return f"`{node.value[:40]}`" if isinstance(node, yaml.ScalarNode) else "a list or a mapping"


def recipe_folder() -> Path:
    """Return the folder of the recipes that come with the library: inside the installed package, or beside it."""
    installed = Path(str(resources.files("hf_noise_al"))) / "recipes"
    return installed if installed.is_dir() else installed.parent.parent / "recipes"


def list_recipes(folder: Path | None = None) -> dict[str, str]:
    """Return the name of every recipe in `folder` (the shipped ones) with the first line of its header."""
    folder = folder or recipe_folder()
    return {
        path.relative_to(folder).with_suffix("").as_posix(): _first_comment(path)
        for path in sorted(folder.rglob("*.yaml"))
        if path.parent != folder / LAUNCH_FOLDER
    }


def find_recipe(name: str) -> Path:
    """Return the recipe that `name` means: a path, or the name of a shipped recipe such as ``glue/mrpc``."""
    path = Path(name)
    if path.is_file():
        return path
    for candidate in (recipe_folder() / name, recipe_folder() / f"{name}.yaml"):
        if candidate.is_file():
            return candidate
    known = list(list_recipes())
    wanted = name.removeprefix("recipes/").removesuffix(".yaml")
    if wanted in known:
        return recipe_folder() / f"{wanted}.yaml"
    raise InvalidArgument(
        f"Found no recipe {name}.{did_you_mean(wanted, known)} Pass the path of a YAML file, "
        "or a name that `hf-noise-al recipes` lists."
    )


def did_you_mean(name: str, known: list[str] | tuple[str, ...]) -> str:
    """Return `` Did you mean ...?`` with the entry of `known` nearest to `name`, or nothing where none is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean `{one_line(near[0])}`?" if near else ""


def _first_comment(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and line.strip("# "):
            return line.strip("# ")
    return ""
