"""The verb `recipes`: what there is to run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..settings.recipe import InvalidArgument, find_recipe, list_recipes
from .console import read_options, say


def main(words: Sequence[str]) -> None:
    """Print the name of every recipe that comes with the library, and the first line of its header."""
    parser = argparse.ArgumentParser("hf-noise-al recipes", description="List the recipes that come with the library.")
    read_options(parser, words)
    recipes = list_recipes()
    if not recipes:
        raise InvalidArgument("Found no recipes beside the library. Pass the path of a YAML file to `run`.")
    width = max(map(len, recipes))
    for name, line in recipes.items():
        say(f"{name:<{width}}  {line}")


def recipe_and_flags(verb: str, words: Sequence[str]) -> tuple[Path, list[str]]:
    """Return the recipe that `words` begins with, by path or by name, and the flags behind it."""
    if not words or words[0].startswith("-"):
        raise InvalidArgument(f"Name a recipe first: `hf-noise-al {verb} RECIPE [--name value ...]`.")
    return find_recipe(words[0]), list(words[1:])
