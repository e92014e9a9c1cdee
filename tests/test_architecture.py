"""The house rules that can be read off the sources: who imports whom, what the root holds, what is public."""

import ast
import importlib
import inspect
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hf_noise_al"

# A module imports only from lower layers or its own, never in a circle.
LAYERS = {
    "_optional": 0,
    "augmentation": 1,
    "csv_form": 1,
    "distances": 1,
    "checksums": 1,
    "differences": 1,
    "dropout": 1,
    "file_lines": 1,
    "files": 1,
    "gradient_sketch": 1,
    "layer_taps": 1,
    "history": 1,
    "initial_set": 1,
    "intervals": 1,
    "journal": 1,
    "k_center": 1,
    "label_lines": 1,
    "label_reader": 1,
    "label_values": 1,
    "layer_gradients": 1,
    "memory": 1,
    "lost_processes": 1,
    "observables": 1,
    "parts": 1,
    "perturbation": 1,
    "pixel_observables": 1,
    "pool": 1,
    "projection": 1,
    "rank_one_noise": 1,
    "selection": 1,
    "shard": 1,
    "sharding": 1,
    "set_aside": 1,
    "shown_text": 1,
    "state": 1,
    "typed_text": 1,
    "uncertainty": 1,
    "weight_use": 1,
    "word_observables": 1,
    "acquisition": 2,
    "annotators": 2,
    "earlier_run": 2,
    "labeled_split": 2,
    "query_file": 2,
    "places": 2,
    "arguments": 3,
    "callbacks": 3,
    "fingerprint": 3,
    "number_checks": 3,
    "recipe": 3,
    "training_args": 3,
    "batches": 4,
    "cross_validation": 4,
    "evaluation_sets": 4,
    "model_card": 4,
    "observation": 4,
    "round_files": 4,
    "run_lock": 4,
    "scores": 4,
    "trainer": 4,
    "trial_run": 4,
    "unsupported": 4,
    "upstream": 4,
    "weight_files": 4,
    "column_types": 5,
    "csv_files": 5,
    "json_files": 5,
    "learning_curve": 5,
    "loading": 5,
    "plotting": 5,
    "tasks": 5,
    "unlabeled_folder": 5,
    "cli": 6,
    "interruption": 6,
    "run": 6,
    "run_settings": 6,
    "settings_help": 6,
    "__main__": 7,
}
# Outside libraries by layer, or by module where one of a layer may use less or needs more.
LIBRARIES: dict[int | str, set[str] | None] = {
    0: set(),
    1: {"torch"},
    "history": set(),
    "intervals": set(),
    "memory": set(),
    "shown_text": set(),
    "pool": set(),
    "state": set(),
    "checksums": set(),
    "csv_form": set(),
    "differences": set(),
    "file_lines": set(),
    "files": set(),
    "journal": set(),
    "label_lines": set(),
    "label_reader": set(),
    "label_values": set(),
    "set_aside": set(),
    "typed_text": set(),
    2: {"torch", "datasets"},
    "annotators": set(),
    "places": {"datasets"},
    "labeled_split": {"datasets", "numpy", "pyarrow"},
    3: {"torch", "transformers"},
    "recipe": {"yaml"},
    4: {
        "accelerate",
        "datasets",
        "filelock",
        "huggingface_hub",
        "numpy",
        "peft",
        "pyarrow",
        "safetensors",
        "torch",
        "transformers",
    },
    5: None,
    6: {"transformers"},
    "cli": {"tqdm"},
    7: set(),
}
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
TESTS = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """`hf_noise_al/tasks/metrics.py` -> `tasks.metrics`; the package itself is the empty string."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


class WithoutTypes(ast.NodeTransformer):
    """Takes away what only a type checker imports."""

    def visit_If(self, node: ast.If) -> ast.If | None:
        self.generic_visit(node)
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


def imported(path: Path, at_run_time: bool = False) -> Iterator[str]:
    """Yield the absolute name of everything that a file imports, also inside functions."""
    package = ["hf_noise_al", *path.relative_to(PACKAGE).parts[:-1]]
    tree = ast.parse(path.read_text())
    for node in ast.walk(WithoutTypes().visit(tree) if at_run_time else tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield inner if inner.removeprefix("hf_noise_al.") in MODULES else source


def own(path: Path, at_run_time: bool = False) -> set[str]:
    """Return the modules of the package that a file imports."""
    names = {name.removeprefix("hf_noise_al").lstrip(".") for name in imported(path, at_run_time) if is_own(name)}
    return names - {module_name(path)}


def is_own(name: str) -> bool:
    return name.split(".")[0] == "hf_noise_al"


def top(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_imports_only_from_its_own_layer_and_those_below(module: str) -> None:
    assert top(module) in LAYERS, f"{module} has no layer: give it one here, or a better home"
    wrong = {name for name in own(MODULES[module]) if not name or LAYERS[top(name)] > LAYERS[top(module)]}
    assert not wrong, f"{module} (layer {LAYERS[top(module)]}) imports {sorted(wrong)}"


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_imports_only_the_outside_libraries_of_its_layer(module: str) -> None:
    layer = LAYERS[top(module)]
    allowed = LIBRARIES.get(top(module), LIBRARIES[layer])
    outside = {top(name) for name in imported(MODULES[module]) if not is_own(name)} - set(sys.stdlib_module_names)
    assert allowed is None or outside <= allowed, f"{module} (layer {layer}) imports {sorted(outside - allowed)}"


def test_trainer_and_tasks_meet_only_in_the_cli() -> None:
    forbidden = {"trainer", "cli", "__main__"}
    for module, path in MODULES.items():
        if top(module) in {"tasks", "loading", "learning_curve", "plotting"}:
            assert not forbidden & {top(name) for name in own(path)}, module


def test_imports_make_no_circle() -> None:
    # a package's __init__ stands apart from its files: they import from each other, it imports from them
    graph = {module: own(path, at_run_time=True) - {top(module)} for module, path in MODULES.items() if module}
    while graph:
        free = {module for module, needs in graph.items() if not needs & graph.keys()}
        assert free, f"these import each other in a circle: {sorted(graph)}"
        graph = {module: needs for module, needs in graph.items() if module not in free}


def test_the_root_package_is_the_public_names_and_nothing_else() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    docstring, *statements = tree.body
    assert isinstance(docstring, ast.Expr)
    for statement in statements:
        is_import = isinstance(statement, ast.Import | ast.ImportFrom)
        is_list = isinstance(statement, ast.Assign | ast.AnnAssign)
        assert is_import or is_list, f"line {statement.lineno} of hf_noise_al/__init__.py"


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


@pytest.mark.parametrize("path", SOURCES, ids=[path.relative_to(ROOT).as_posix() for path in SOURCES])
def test_sources_keep_the_small_rules(path: Path) -> None:
    text = path.read_text()
    for word in ("TODO", "FIXME", "XXX", "pickle.", "trust_remote_code=True", "../shared"):
        assert word not in text, f"{word} in {path.name}"
    if module_name(path) != "cli":
        calls = (node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
        assert not any(isinstance(name, ast.Name) and name.id == "print" for name in calls), "prints outside the CLI"


def test_every_module_has_a_test_file_of_its_name() -> None:
    files = [module for module, path in MODULES.items() if module != "__main__" and path.name != "__init__.py"]
    tested = {name.removeprefix("test_").removesuffix(".py") for name in TESTS}
    missing = [m for m in files if not {m.split(".")[-1].lstrip("_"), top(m)} & tested]
    # the tasks are tested together, and so are the acquisitions; the trainer's parts are, through the trainer
    assert not missing, f"no test file for {', '.join(missing)}"
