"""Recipes: YAML files whose keys are fields of the argument dataclasses; found by path or by name, read with lines."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from .shown_text import one_line

LAUNCH_FOLDER = "accelerate"
"""The folder beside the recipes with configurations of `accelerate launch`, which are no recipes."""


class InvalidArgument(ValueError):
    """A recipe or a flag that cannot be used; the message says what was asked, what was found and what to do."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, for which ``1e-3`` is a number, as in YAML 1.2, and not a text."""


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
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"Cannot read the recipe {path}: {error}.") from error
    try:
        root = yaml.compose(text, Loader=_Loader)
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise InvalidArgument(f"Cannot read the recipe {place}: not valid YAML ({problem}).") from error
    if not isinstance(root, yaml.MappingNode) or not isinstance(values, dict):
        raise InvalidArgument(f"The recipe {path} holds no settings. Write one `key: value` a line.")
    lines: dict[str, int] = {}
    for key, _ in root.value:
        line = key.start_mark.line + 1
        if key.value in lines:
            raise InvalidArgument(f"{path}, line {line}: `{key.value}` was already set in line {lines[key.value]}.")
        lines[key.value] = line
    return [Setting(str(key), value, lines.get(str(key), 1)) for key, value in values.items()]


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
