"""The house rules that can be read off the sources: who imports whom, what the root holds, what is public."""

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from hf_noise_al.tasks import TASKS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hf_noise_al"

# Folders, and modules at the top, in the order in which they may import: only from lines above their own. The libraries
# are all that they may import from outside; where none is named, that is the standard library alone.
LAYERS: list[dict[str, str]] = [
    {"refusals": ""},
    {"files": "", "processes": "torch", "augmentation": "torch", "plugins": ""},
    {"pool": "datasets numpy pyarrow torch", "observables": "torch", "selection": "torch"},
    {"noise": "torch", "exchange": "datasets"},
    {
        "acquisition": "torch",
        "annotators": "",
        "observing": "accelerate datasets numpy pyarrow torch transformers",
    },
    {"measuring": "datasets transformers", "testing": "numpy pytest torch", "training_args": "transformers"},
    {"callbacks": "transformers", "experiments": "matplotlib numpy scipy", "settings": "transformers yaml"},
    {
        "loading": "PIL datasets numpy pandas pyarrow sklearn torch transformers",
        "upstream": "accelerate huggingface_hub peft safetensors torch transformers",
    },
    {
        "run_folder": "datasets filelock huggingface_hub torch transformers",
        "tasks": "PIL datasets evaluate huggingface_hub numpy pyarrow scipy sklearn torch transformers",
    },
    {"rounds": "accelerate datasets numpy pyarrow torch transformers"},
    {"trainer": "torch transformers"},
    {"": "", "commands": "tqdm transformers"},
    {"__main__": ""},
]
LAYER_OF = {folder: number for number, layer in enumerate(LAYERS) for folder in layer}
LIBRARIES = {folder: set(names.split()) for layer in LAYERS for folder, names in layer.items()}
ROOT_ENTRIES = {
    ".ci",
    ".github",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "constraints.txt",
    "hf_noise_al",
    "notebooks",
    "pyproject.toml",
    "recipes",
    "tests",
}
TESTED_WITH = {
    **dict.fromkeys(("rounds.answers", "run_folder.stored_run"), "people_answer"),
    **dict.fromkeys(("rounds.checks", "rounds.looking", "rounds.training", "rounds.pool_trainer"), "trainer"),
    "rounds.resuming": "resume",
    **dict.fromkeys(("run_folder.state_file", "run_folder.state_checks", "run_folder.pending_query"), "state"),
    "files.run_names": "golden_runs",
    "exchange.label_formats": "plugins",
    **dict.fromkeys(("upstream.wrapping", "upstream.saving"), "upstream"),
    "processes.generators": "augmentation",
    **dict.fromkeys(("commands.compare", "commands.console", "commands.query", "refusals"), "main"),
    **dict.fromkeys(("commands.prepare", "commands.existing_runs", "commands.run_curve"), "run"),
    "settings.parsing": "arguments",
    "testing": "acquisition",
}
"""Modules that are tested in the file of another."""
TESTS = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """`hf_noise_al/tasks/metrics.py` -> `tasks.metrics`; the package itself is the empty string."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


@cache
def imported(path: Path) -> tuple[str, ...]:
    """Return the absolute name of everything that a file imports, also inside functions and for types alone."""
    return tuple(names_of_imports(path))


def names_of_imports(path: Path) -> Iterator[str]:
    package = ["hf_noise_al", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield inner if inner.removeprefix("hf_noise_al.") in MODULES else source


def own(path: Path) -> set[str]:
    """Return the modules of the package that a file imports."""
    names = {name.removeprefix("hf_noise_al").lstrip(".") for name in imported(path) if is_own(name)}
    return names - {module_name(path)}


def is_own(name: str) -> bool:
    return name.split(".")[0] == "hf_noise_al"


def top(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("module", list(MODULES))
def test_imports_only_from_its_own_folder_and_from_layers_above_it_in_the_table(module: str) -> None:
    folder = top(module)
    assert folder in LAYER_OF, f"{module} has no layer: give its folder one here, or find it a better home"
    needs = {top(name) for name in own(MODULES[module])} - {folder}
    wrong = {name for name in needs if LAYER_OF[name] >= LAYER_OF[folder]}
    assert not wrong, f"{module} (layer {LAYER_OF[folder]}) imports {sorted(wrong)}"


@pytest.mark.parametrize("module", list(MODULES))
def test_imports_only_the_outside_libraries_of_its_folder(module: str) -> None:
    outside = {top(name) for name in imported(MODULES[module]) if not is_own(name)} - set(sys.stdlib_module_names)
    wrong = outside - LIBRARIES[top(module)]
    assert not wrong, f"{module} imports {sorted(wrong)}"


def test_every_layer_and_library_of_the_table_is_there() -> None:
    assert set(LAYER_OF) == {top(module) for module in MODULES}
    for folder, libraries in LIBRARIES.items():
        used = {top(name) for module, path in MODULES.items() if top(module) == folder for name in imported(path)}
        assert libraries <= used, f"{folder} does not import {sorted(libraries - used)}"


def test_trainer_and_tasks_meet_only_in_commands() -> None:
    for module, path in MODULES.items():
        if top(module) in {"tasks", "loading", "settings", "experiments"}:
            assert not {"trainer", "rounds", "commands"} & {top(name) for name in own(path)}, module


def test_contributing_shows_the_layers_and_the_sentences_of_every_folder() -> None:
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
    for number, layer in enumerate(LAYERS):
        for folder in filter(None, layer):
            is_folder = (PACKAGE / folder).is_dir()
            shown = f"| {number} | `{folder}{'/' if is_folder else '.py'}` |"
            assert shown in text, f"CONTRIBUTING.md does not show {shown!r}"
            if is_folder:
                said = " ".join(folder_sentences(folder).split())
                assert said in text, f"CONTRIBUTING.md does not say of {folder}: {said}"


def folder_sentences(folder: str) -> str:
    """Return what a folder says of itself at the head of its `__init__.py`."""
    docstring = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text()))
    assert docstring, f"{folder} does not say what it is for"
    return " ".join(docstring.split("\n\n")[:2])


def test_imports_make_no_circle() -> None:
    # a package's __init__ stands apart from its files: they import from each other, it imports from them
    graph = {module: own(path) - {top(module)} for module, path in MODULES.items() if module}
    while graph:
        free = {module for module, needs in graph.items() if not needs & graph.keys()}
        assert free, f"these import each other in a circle: {sorted(graph)}"
        graph = {module: needs for module, needs in graph.items() if module not in free}


def test_the_root_package_imports_a_public_name_when_it_is_asked_for_and_nothing_before() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    conditions = {ast.unparse(node.test): node for node in tree.body if isinstance(node, ast.If)}
    for_types = [node for node in conditions["TYPE_CHECKING"].body if isinstance(node, ast.ImportFrom)]
    said = {alias.name: node.module for node in for_types for alias in node.names}
    package = importlib.import_module("hf_noise_al")
    assert said == package._MODULE_OF, "what a type checker believes is not what is imported"
    assert set(package.__all__) == set(said)
    imports = (node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    assert {top(str(getattr(node, "module", ""))) for node in imports} <= set(sys.stdlib_module_names)


def test_every_public_name_can_be_imported_and_is_documented() -> None:
    package = importlib.import_module("hf_noise_al")
    assert len(set(package.__all__)) == len(package.__all__)
    for name in package.__all__:
        assert hasattr(package, name), name
        value = getattr(package, name)
        if issubclass(type(value), type) or inspect.isfunction(value):  # a type alias has no docstring of its own
            assert inspect.getdoc(value), f"{name} has no docstring"


def test_public_names_are_sorted() -> None:
    names = list(importlib.import_module("hf_noise_al").__all__)
    # as ruff sorts them: CONSTANTS, then Classes, then functions
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[:1].isupper(), name))


def test_the_root_holds_only_what_it_may() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = [git, "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    assert {top_level.split("/")[0] for top_level in listed} <= ROOT_ENTRIES


def test_the_fast_tests_have_a_round_of_every_task() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (names,) = re.findall(r"^FAST_RECIPES := (.*)$", makefile, flags=re.MULTILINE)
    recipes = [yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text()) for name in names.split()]
    assert "tests/tasks/test_tabular.py::test_classes_are_learned" in makefile, "no recipe has classes of a table"
    assert {recipe["task"] for recipe in recipes} | {"tabular_classification"} == set(TASKS)


@pytest.mark.parametrize("path", SOURCES, ids=[path.relative_to(ROOT).as_posix() for path in SOURCES])
def test_sources_keep_the_small_rules(path: Path) -> None:
    text = path.read_text()
    for word in ("TODO", "FIXME", "XXX", "pickle.", "trust_remote_code=True", "../shared"):
        assert word not in text, f"{word} in {path.name}"
    if module_name(path) != "commands.console":
        calls = (node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
        assert not any(isinstance(name, ast.Name) and name.id == "print" for name in calls), "prints"


@pytest.mark.parametrize("path", SOURCES, ids=[path.relative_to(ROOT).as_posix() for path in SOURCES])
def test_what_the_user_is_told_is_a_refusal(path: Path) -> None:
    """An error of a builtin class is shown with its traceback, as one from under us is."""
    builtin = {"ValueError", "FileNotFoundError", "OSError", "ImportError"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in builtin, f"line {node.lineno}: raise `Refusal` of hf_noise_al.refusals"
        if isinstance(node, ast.ClassDef) and path.name != "refusals.py":
            bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
            assert not bases & builtin, f"line {node.lineno}: make {node.name} a `Refusal`"


def test_every_module_has_a_test_file_of_its_name() -> None:
    files = [module for module, path in MODULES.items() if module != "__main__" and path.name != "__init__.py"]
    tested = {name.removeprefix("test_").removesuffix(".py") for name in TESTS}
    named = {module: {*module.split("."), TESTED_WITH.get(module, "")} for module in files}
    missing = [module for module, names in named.items() if not names & tested]
    # the tasks are tested together, and so are the acquisitions; the trainer's parts are, through the trainer
    assert not missing, f"no test file for {', '.join(missing)}"
