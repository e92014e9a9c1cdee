"""What README.md, CONTRIBUTING.md and recipes/README.md show is run, or checked to be runnable as it stands."""

import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from transformers import MODEL_MAPPING
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hf_noise_al.acquisition import ACQUISITIONS
from hf_noise_al.annotators import ANNOTATORS
from hf_noise_al.commands.main import BROUGHT, VERBS, main
from hf_noise_al.exchange.label_formats import LABEL_FORMATS
from hf_noise_al.experiments.learning_curve import LearningCurve
from hf_noise_al.settings.parsing import parse
from hf_noise_al.settings.recipe import find_recipe
from hf_noise_al.tasks import TASKS

if sys.version_info >= (3, 11):
    import tomllib

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "recipes/README.md")
TOLERANCE = 0.1  # of a printed fraction: the last digits of a training differ from machine to machine
LANGUAGES = {"bash", "python", "text", "bibtex", "toml", "yaml"}


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    text = (ROOT / page).read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [Block(page, text[: match.start()].count("\n") + 1, *match.groups()) for match in found]


ALL = [block for page in PAGES for block in blocks(page)]
PYTHON = [
    (block, ALL[number + 1] if number + 1 < len(ALL) and ALL[number + 1].language == "text" else None)
    for number, block in enumerate(ALL)
    if block.language == "python"
]
LINES = [
    pytest.param(line, id=f"{block.page}: {line}")
    for block in ALL
    if block.language == "bash"
    for line in block.text.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


def file_name(block: Block) -> str:
    """Return the file that a block says it is, in a comment on its first line."""
    said = re.match(r"# (\w+\.py)\n", block.text)
    return said[1] if said else ""


def name(block: Block) -> str:
    return f"{block.page}:{block.line}"


def same(shown: str, printed: str) -> bool:
    """Return whether two lines are equal, but for the last digits of fractions."""
    fraction = r"\d+\.\d+"
    if re.sub(fraction, "#", shown) != re.sub(fraction, "#", printed):
        return False
    pairs = zip(re.findall(fraction, shown), re.findall(fraction, printed), strict=True)
    return all(abs(float(a) - float(b)) <= TOLERANCE for a, b in pairs)


def test_every_block_says_its_language() -> None:
    assert ALL
    for block in ALL:
        assert block.language in LANGUAGES, f"{name(block)} is ```{block.language}"


@pytest.fixture
def own_registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a block register its models and tasks for itself alone."""
    for mapping in (CONFIG_MAPPING, MODEL_MAPPING):
        monkeypatch.setattr(mapping, "_extra_content", dict(mapping._extra_content))
    known = set(TASKS)
    yield
    for name in set(TASKS) - known:
        del TASKS[name]


# In this process: a new one takes ten seconds to import its libraries. Here, too, warnings of this package are errors.
@pytest.mark.slow
@pytest.mark.parametrize(("block", "output"), PYTHON, ids=[name(block) for block, _ in PYTHON])
def test_python_runs_and_prints_what_is_shown(
    block: Block,
    output: Block | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own_registries: None,
) -> None:
    for other in ALL:
        if other.page == block.page and file_name(other):
            (tmp_path / file_name(other)).write_text(other.text)  # a test imports what it tests
    script = tmp_path / (file_name(block) or "block.py")
    script.write_text(block.text)
    monkeypatch.chdir(tmp_path)
    if script.name.startswith("test_"):
        assert pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(script)]) == 0
        return
    runpy.run_path(str(script), run_name="__main__")
    if output is not None:
        shown = output.text.splitlines()
        printed = capsys.readouterr().out.splitlines()[-len(shown) :]  # after what Trainer itself says
        assert len(printed) == len(shown)
        assert all(map(same, shown, printed)), "\n".join(printed)


def test_entry_points_lead_to_what_their_page_shows() -> None:
    tables = [block for block in ALL if block.language == "toml"]
    assert len(tables) == 5
    for block in tables:
        header, point = block.text.splitlines()
        group = re.fullmatch(r'\[project\.entry-points\."(hf_noise_al\.\w+)"\]', header)
        assert group and group[1] in {one.group for one in (ACQUISITIONS, TASKS, ANNOTATORS, LABEL_FORMATS, BROUGHT)}
        leads = re.fullmatch(r'\w+ = "(\w+):(\w+)"', point)
        assert leads, point
        (shown,) = [other for other in ALL if other.page == block.page and file_name(other) == f"{leads[1]}.py"]
        assert re.search(rf"^(class |def )?{leads[2]}\b", shown.text, flags=re.MULTILINE), name(block)


@pytest.mark.parametrize("line", LINES)
def test_commands_are_right(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [word for word in shlex.split(line, comments=True) if not re.fullmatch(r"[A-Z_]+=.*", word)]
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert set(words[1:]) <= set(targets)
    elif words[:2] == ["pip", "install"]:
        check_pip(words[2:])
    elif words[0] == "pytest":
        assert all((ROOT / word.split("::")[0]).exists() for word in words[1:] if word.startswith("tests"))
    elif words[:2] == ["accelerate", "launch"]:
        assert "hf_noise_al" in words
        check_own(words[words.index("hf_noise_al") + 1 :], tmp_path, monkeypatch)
    elif words[:3] == ["python", "-m", "hf_noise_al"]:
        check_own(words[3:], tmp_path, monkeypatch)
    elif words[0] == "python":
        check_benchmark(words[1], words[2:], tmp_path, monkeypatch)
    else:
        assert words[0] == "hf-noise-al", f"nobody checks this command: {line}"
        check_own(words[1:], tmp_path, monkeypatch)


def check_pip(words: list[str]) -> None:
    """Only this project is installed, with extras that it has and files that are there."""
    for option, value in pairwise(words):
        if option == "-c":
            assert (ROOT / value).is_file()
    what = words[-1]
    match = re.fullmatch(r"\.(?:\[([\w,]+)\])?", what)
    assert match, f"pip installs {what}"
    if sys.version_info >= (3, 11) and match[1]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert set(match[1].split(",")) <= set(project["optional-dependencies"])


def check_own(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's settings are read as a run would read them; what is quick is run."""
    verb, rest = words[0], words[1:]
    assert verb in VERBS
    if verb in ("run", "query") and "--help" not in rest:
        monkeypatch.chdir(ROOT)
        parse(find_recipe(rest[0]), [*rest[1:], "--output_dir", str(tmp_path)])
        return
    monkeypatch.chdir(tmp_path)
    if verb == "compare":
        for number, folder in enumerate(word for word in rest if not word.startswith("-") and "." not in word):
            save_curve(Path(folder), number)
    assert main(words) == 0


def check_benchmark(program: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is there; what is not one of its options is a setting of the recipe."""
    assert Path(program).parent == Path("recipes/benchmarks") and (ROOT / program).is_file()
    if Path(program).name == "acquisition.py" and "--selection" not in words:
        monkeypatch.chdir(ROOT)
        monkeypatch.syspath_prepend(str((ROOT / program).parent))
        options, flags = runpy.run_path(str(ROOT / program))["_parser"]().parse_known_args(words)
        parse(find_recipe(options.recipe), [*flags, "--output_dir", str(tmp_path)])


def save_curve(folder: Path, number: int) -> None:
    points = tuple(
        {"round": r, "num_labeled": 10 * r + 10, "query_size": 10, "metrics": {"eval_accuracy": 0.5 + r / 10}}
        for r in range(3)
    )
    folder.mkdir(parents=True)
    acquisition = "random" if number == 0 else f"noise_stability_{number}"
    curve = LearningCurve("task", "data", "model", acquisition, 0, "eval_accuracy", True, points)
    curve.save(folder / "learning_curve.json")


def test_links_to_files_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
            if not target.startswith("http"):
                assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_pages_name_no_path_outside_the_project() -> None:
    for page in (*PAGES, "CHANGELOG.md"):
        assert "../shared" not in (ROOT / page).read_text()
