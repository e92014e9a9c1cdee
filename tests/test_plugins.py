"""Plug-ins: found by entry points, imported when asked for, refused by the name of the package that brings them."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset

from hf_noise_al import LabelFile
from hf_noise_al.acquisition import ACQUISITIONS
from hf_noise_al.annotators import ANNOTATORS
from hf_noise_al.commands.main import main
from hf_noise_al.commands.settings_help import describe_settings
from hf_noise_al.exchange.label_formats import LABEL_FORMATS
from hf_noise_al.experiments.learning_curve import LearningCurve
from hf_noise_al.plugins import Registry
from hf_noise_al.refusals import Refusal
from hf_noise_al.tasks import TASKS

SOURCES = {
    "__init__.py": "",
    "acquisition.py": '''\
from dataclasses import dataclass, field

from hf_noise_al.acquisition import Acquisition, Query
from hf_noise_al.selection.checks import check_size
from hf_noise_al.selection.choosing import top_k


@dataclass(frozen=True)
class Latest(Acquisition):
    """Choose the rows that come last."""

    offset: float = field(default=0.5, metadata={"help": "Added to every score."})

    def select(self, candidates, query_size, generator):
        check_size(query_size, candidates.size)
        import torch

        scores = torch.arange(candidates.size, dtype=torch.float64) + self.offset
        return Query(top_k(scores, query_size), scores)
''',
    "task.py": """\
from dataclasses import replace

from hf_noise_al.tasks.text.sentences import TEXT_CLASSIFICATION

SHOUTED = replace(TEXT_CLASSIFICATION, name="shouted_text", hub_name="text-classification")
""",
    "annotator.py": '''\
from hf_noise_al import Annotator


class Parity(Annotator):
    """Answer with whether a row is odd."""

    def __init__(self, odd):
        self.odd = odd

    def annotate(self, rows):
        return [self.odd if row % 2 else 1 - self.odd for row in rows]
''',
    "lines.py": """\
from hf_noise_al.exchange.label_lines import LabelLine


def read(path):
    lines = enumerate(path.read_text().splitlines(), start=1)
    fields = [(number, text, *text.split("=")) for number, text in lines]
    return [LabelLine(path, number, text, {"row": int(row), "label": label}) for number, text, row, label in fields]
""",
    "verb.py": """\
def main(words):
    print("hello", *words)
""",
}
ENTRY_POINTS = {
    "hf_noise_al.acquisitions": {"latest": "brought.acquisition:Latest"},
    "hf_noise_al.tasks": {"shouted_text": "brought.task:SHOUTED"},
    "hf_noise_al.annotators": {"parity": "brought.annotator:Parity"},
    "hf_noise_al.exchange": {"pairs": "brought.lines:read"},
    "hf_noise_al.verbs": {"hello": "brought.verb:main"},
}


def tables(points: dict[str, dict[str, str]]) -> str:
    """Return entry points as a pyproject.toml has them."""
    return "\n".join(
        f'[project.entry-points."{group}"]\n' + "\n".join(f'{name} = "{value}"' for name, value in names.items())
        for group, names in points.items()
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip installed a package of plug-ins into."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    (source / "brought").mkdir()
    for name, text in SOURCES.items():
        (source / "brought" / name).write_text(text)
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "al-plugins"\nversion = "1.2"\n'
        f'{tables(ENTRY_POINTS)}\n[tool.setuptools]\npackages = ["brought"]\n'
    )
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--disable-pip-version-check", "--target", target, source], check=True, capture_output=True)
    return target


@pytest.fixture
def bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes a package with these entry points of acquisitions, as if pip had installed it."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(package: str, text: str = "", **points: str) -> None:
        folder = tmp_path / package
        (folder / f"{package}-0.3.dist-info").mkdir(parents=True)
        (folder / f"{package}_code.py").write_text(text)
        (folder / f"{package}-0.3.dist-info" / "METADATA").write_text(f"Name: {package}\nVersion: 0.3\n")
        lines = "\n".join(f"{name} = {value}" for name, value in points.items())
        (folder / f"{package}-0.3.dist-info" / "entry_points.txt").write_text(f"[hf_noise_al.acquisitions]\n{lines}\n")
        sys.path.append(str(folder))

    return write


def test_a_run_with_the_acquisition_the_task_and_the_annotator_of_another_package(
    installed: Path,
    tmp_path: Path,
    tiny_bert_folder: Path,
    make_texts: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    classes = ClassLabel(names=["even", "odd"])
    rows = make_texts(20).remove_columns("label")
    (tmp_path / "data").mkdir()
    for split, labels in (("train", [None] * 20), ("validation", [row % 2 for row in range(20)])):
        rows.add_column("label", labels).cast_column("label", classes).to_parquet(
            str(tmp_path / "data" / f"{split}.parquet")
        )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"task: shouted_text\nacquisition: latest\nannotator: parity\nannotator_kwargs: {{odd: 1}}\n"
        f"dataset_name: {tmp_path}/data\nmodel_name_or_path: {tiny_bert_folder}\noutput_dir: {tmp_path}/out\n"
        "num_rounds: 2\ninitial_size: 4\nquery_size: 3\nmax_steps: 1\nuse_cpu: true\nreport_to: none\n"
        'save_strategy: "no"\ndisable_tqdm: true\n'
    )
    assert main(["run", str(recipe), "--acquisition.offset", "0.25"]) == 0, capsys.readouterr().err
    assert LearningCurve.load(tmp_path / "out").num_labeled == (4, 7)
    asked = [json.loads(line) for line in (tmp_path / "out" / "queries" / "round-01.jsonl").read_text().splitlines()]
    assert all(line["score"] % 1 == 0.25 for line in asked)
    told = [json.loads(line) for line in (tmp_path / "out" / "labels.jsonl").read_text().splitlines()]
    given = {line["row"]: line["label"] for line in told if "row" in line}
    assert len(given) == 7 and all(label in (row % 2, classes.int2str(row % 2)) for row, label in given.items())

    capsys.readouterr()
    assert main(["hello", "you"]) == 0 and main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("hello you\n") and "  hf-noise-al hello\n" in printed
    assert main(["helo"]) == 2
    assert "Did you mean `hello`?" in capsys.readouterr().err
    shown = " ".join(describe_settings("run").split())
    assert "With `--acquisition latest`: --acquisition.offset float Added to every score. [0.5]" in shown
    assert f"What is learned: {', '.join(TASKS)}." in shown and "shouted_text" in TASKS and "parity" in ANNOTATORS


def test_a_label_file_is_read_by_the_format_of_its_ending(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    (tmp_path / "mine.PAIRS").write_text("3=cat\n1=dog\n")
    assert LabelFile(tmp_path / "mine.PAIRS").annotate([1, 3]) == ["dog", "cat"]
    (tmp_path / "mine.txt").write_text('{"row": 1, "label": "dog"}\n')
    assert LabelFile(tmp_path / "mine.txt").annotate([1]) == ["dog"], "no format has this ending: JSON lines"
    (tmp_path / "mine.pairs").write_text("3=cat\n")
    with pytest.raises(ValueError, match=r"mine\.pairs has no label for 1 of the 2 rows asked for, the first is row 1"):
        LabelFile(tmp_path / "mine.pairs").annotate([1, 3])


def test_a_label_format_that_returns_no_lines_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LABEL_FORMATS, "odd", lambda path: [{"row": 1, "label": "dog"}])
    (tmp_path / "mine.odd").touch()
    with pytest.raises(Refusal, match="the label format `odd` returned {'row': 1, 'label': 'dog'}, and not a `LabelLi"):
        LabelFile(tmp_path / "mine.odd").annotate([1])


def test_a_package_is_imported_when_its_name_is_looked_up_and_not_before(bring: Callable[..., None]) -> None:
    bring("lazy", "from hf_noise_al import RandomSampling", lazy="lazy_code:RandomSampling")
    assert "lazy" in ACQUISITIONS and "lazy" in list(ACQUISITIONS) and len(ACQUISITIONS) == len(list(ACQUISITIONS))
    assert "lazy_code" not in sys.modules
    assert ACQUISITIONS["lazy"] is ACQUISITIONS["random"]
    assert "lazy_code" in sys.modules


@pytest.mark.parametrize(
    ("text", "value", "message"),
    [
        ("import no_such_library", "X", "ModuleNotFoundError: No module named 'no_such_library'. Repair or uninstall"),
        ("1 / 0", "X", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(7)", "X", "SystemExit: 7"),
        ("", "X", "AttributeError: module .* has no attribute 'X'"),
        ("X = 5", "X", "it must be a subclass of `hf_noise_al.Acquisition` that is a frozen dataclass .*, found 5"),
        ("class X: pass", "X", "it must be a subclass of `hf_noise_al.Acquisition`"),
        ("from hf_noise_al import Acquisition as X", "X", "it must be a subclass of `hf_noise_al.Acquisition`"),
        ("from hf_noise_al import RandomSampling\nclass X(RandomSampling): pass", "X.__call__", "it must be a subcl"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_refused_with_its_package(
    bring: Callable[..., None], request: pytest.FixtureRequest, text: str, value: str, message: str
) -> None:
    package = f"bad{abs(hash(request.node.name))}"  # a module is imported once
    bring(package, text, bad=f"{package}_code:{value}")
    place = rf"the acquisition `bad` of the package {package} 0\.3 \({package}_code:{value}\)"
    with pytest.raises(Refusal, match=f"{place}: {message}"):
        ACQUISITIONS["bad"]
    assert "With `--acquisition bad`: Cannot" in describe_settings("run"), "the help says so and goes on"


def test_a_class_that_is_no_dataclass_is_refused(bring: Callable[..., None]) -> None:
    text = "from hf_noise_al import Acquisition\nclass X(Acquisition):\n    def select(self, *_): ..."
    bring(
        "plain", f"{text}\nfrom hf_noise_al import BALD\nclass Y(BALD): ...", plain="plain_code:X", own="plain_code:Y"
    )
    assert ACQUISITIONS["own"](num_samples=3), "it inherits what a dataclass is"
    with pytest.raises(Refusal, match="must be a subclass of `hf_noise_al.Acquisition` that is a frozen dataclass"):
        ACQUISITIONS["plain"]


def test_a_name_of_ours_is_refused_with_the_package_that_brings_it_too(bring: Callable[..., None]) -> None:
    bring("greedy", "", random="greedy_code:X")
    with pytest.raises(Refusal, match=r"package greedy 0\.3 brings the acquisition `random`, which is a name of hf_no"):
        ACQUISITIONS["random"]
    assert ACQUISITIONS["entropy"]


@pytest.mark.parametrize("name", ["../up", "Per Class", "1st", ".hidden"])
def test_a_name_that_no_folder_should_have_is_refused(bring: Callable[..., None], name: str) -> None:
    bring("odd", "from hf_noise_al import RandomSampling as X", **{name: "odd_code:X"})
    with pytest.raises(Refusal, match="brings the acquisition `.*`. A name begins with a letter and has letters"):
        ACQUISITIONS[name]


def test_a_name_that_two_packages_bring_is_refused_with_both(bring: Callable[..., None]) -> None:
    bring("one", "", shared="one_code:X")
    bring("two", "", shared="two_code:X")
    with pytest.raises(Refusal, match=r"The packages one 0\.3 and two 0\.3 each bring the acquisition `shared`\. Un"):
        ACQUISITIONS["shared"]


def test_a_registry_is_a_dictionary_for_who_puts_something_there() -> None:
    registry: Registry[int] = Registry("hf_noise_al.nothing", "number", {"one": 1}, "a number", lambda *_: True)
    registry["two"] = 2
    assert dict(registry) == {"one": 1, "two": 2} and registry.get("three") is None
    assert registry.keys() - {"one"} == {"two"} and repr(registry) == "<one, two>"
    del registry["two"]
    assert list(registry.items()) == [("one", 1)]
    with pytest.raises(KeyError):
        registry["two"]


def test_this_environment_brings_nothing() -> None:
    """Else the other tests would not be about the library alone."""
    assert not any(entry_points(group=group) for group in ENTRY_POINTS)
