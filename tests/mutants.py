"""Mutation testing: changes one place of a source at a time and asks whether a test notices.

    python tests/mutants.py --sample 200 --seed 16
    python tests/mutants.py --module hf_noise_al/pool.py --sample 30 --output pool.jsonl

The mutants are those of cosmic-ray (`pip install cosmic-ray`). Of all possible ones a sample is drawn, from each file
in proportion to how many it has; the same seed draws the same ones as long as the sources stay. Each mutant is run
against the tests that `TESTS` names for its file. It is *killed* when a test fails or when the tests do not end in
time, and it *survives* when they pass: then either no behaviour changed or no test states the behaviour that did.

A fresh interpreter would need ten seconds for its imports, so this process imports the large libraries once and forks
a child for each mutant. The child takes the mutated text in place of the file as it imports the package; nothing is
written into the sources. Tests that launch processes of their own would run the sources as they are, so that none of
them belongs into the table.

Results are JSON lines, one for each mutant: area, module, line, operator and occurrence (which of the places where
the operator applies), the line before and after, the outcome (killed, timeout, survived), the first test that failed,
and seconds
of the processor.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import gc
import importlib
import importlib.util
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from itertools import zip_longest
from pathlib import Path
from types import CodeType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

TESTS: dict[str, dict[str, str]] = {
    "selection": {
        "hf_noise_al/selection.py": "test_selection test_shard test_k_center",
        "hf_noise_al/k_center.py": "test_k_center test_shard test_selection",
        "hf_noise_al/distances.py": "test_distances test_k_center test_selection",
    },
    "pool": {
        "hf_noise_al/pool.py": "test_pool test_set_aside test_journal test_state test_initial_set test_annotators "
        "test_labeled_split test_earlier_run",
        "hf_noise_al/label_values.py": "test_label_values test_label_reader test_label_lines test_annotators "
        "test_labeled_split",
        "hf_noise_al/label_reader.py": "test_label_reader test_label_values test_labeled_split test_label_lines "
        "test_annotators test_entities test_token_classification",
        "hf_noise_al/labeled_split.py": "test_labeled_split test_evaluation_sets test_csv_files test_query_file "
        "test_label_reader test_unlabeled_folder test_classes_of_a_checkpoint test_token_classification",
        "hf_noise_al/journal.py": "test_journal test_state test_earlier_run",
        "hf_noise_al/state.py": "test_state test_journal test_earlier_run test_differences test_people_answer",
        "hf_noise_al/places.py": "test_places test_labeled_split test_label_values",
        "hf_noise_al/set_aside.py": "test_set_aside test_pool test_state test_annotators test_earlier_run",
        "hf_noise_al/initial_set.py": "test_initial_set test_pool",
    },
    "noise": {
        "hf_noise_al/perturbation.py": "test_perturbation test_sharding test_noise_stability",
        "hf_noise_al/projection.py": "test_projection test_noise_stability",
        "hf_noise_al/acquisition/finite_differences.py": "test_noise_stability test_memory",
        "hf_noise_al/acquisition/noise_stability.py": "test_noise_stability test_memory test_one_by_one",
        "hf_noise_al/gradient_sketch.py": "test_gradient_sketch test_one_by_one",
        "hf_noise_al/layer_gradients.py": "test_layer_gradients test_rank_one_noise test_small_networks "
        "test_gradient_sketch",
        "hf_noise_al/layer_taps.py": "test_layer_taps test_gradient_sketch test_one_by_one",
        "hf_noise_al/weight_use.py": "test_weight_use test_gradient_sketch",
        "hf_noise_al/rank_one_noise.py": "test_rank_one_noise test_layer_gradients test_gradient_sketch",
    },
}
"""By area: a source file, or a folder with all that is in it, and the test files that should kill its mutants.

The closest files, which come first, and others that use the module more than in passing; a mutant that survives is run
against all of them, so that each costs. Of two entries that hold a file the longer counts.
"""

LIBRARIES = (
    "torch transformers transformers.trainer transformers.models.bert.modeling_bert datasets evaluate accelerate "
    "sklearn.metrics scipy.stats matplotlib.pyplot pandas peft hypothesis hypothesis.strategies pytest"
).split()
"""What is imported once; those that are not installed are left out."""
MEMORY = 8 * 2**30
"""Bytes that a child may take, so that an endless loop ends in a MemoryError."""


@dataclass(frozen=True)
class Mutant:
    """One changed place of one file."""

    area: str
    module: str
    """Path of the file in the repository."""
    line: int
    operator: str
    occurrence: int
    before: str
    after: str
    text: str
    """The whole file, mutated."""


@dataclass(frozen=True)
class Result:
    """How the tests ended."""

    outcome: str
    """"killed", "timeout" or "survived"."""
    killed_by: str
    """The first test that failed, or the file that could not be collected."""
    seconds: float


# ---- which mutants there are -------------------------------------------------------------------------------------


def sources(table: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return for each source file of the table its area and the paths of its tests."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    entries = [(entry, area, tests) for area, files in table.items() for entry, tests in files.items()]
    for entry, area, tests in sorted(entries, key=lambda one: len(one[0])):
        path = ROOT / entry
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        names = tuple(f"tests/{name}.py" for name in tests.split())
        lost = [str(file) for file in [*files, *(ROOT / name for name in names)] if not file.is_file()]
        if lost or not files:
            raise SystemExit(f"The table of tests/mutants.py names {entry}, but there is no {', '.join(lost) or path}.")
        found.update({file.relative_to(ROOT).as_posix(): (area, names) for file in files})
    return dict(sorted(found.items()))


@functools.cache
def operators() -> dict[str, Any]:
    """Return the mutation operators of cosmic-ray that need no arguments, by name."""
    try:
        plugins = importlib.import_module("cosmic_ray.plugins")
    except ImportError:
        raise SystemExit("The mutants are made by cosmic-ray, which is not installed: pip install cosmic-ray") from None
    classes = {name: plugins.get_operator(name) for name in plugins.operator_names()}
    return {name.split("/")[-1]: made() for name, made in sorted(classes.items()) if not made.arguments()}


def places(text: str) -> list[tuple[str, int]]:
    """Return the operator and the occurrence of every possible mutant of a file, its annotations left out."""
    asts = importlib.import_module("cosmic_ray.ast")
    nodes = list(asts.ast_nodes(asts.get_ast(text)))
    spans = list(annotation_spans(text))
    found = []
    for name, operator in operators().items():
        starts = (start for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, start in enumerate(starts):
            if not any(first <= start < last for first, last in spans):
                found.append((name, occurrence))
    return found


def annotation_spans(text: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield where annotations start and end: no code looks at them, so a change there changes nothing."""
    for node in ast.walk(ast.parse(text)):
        for found in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(found, ast.expr) and found.end_lineno is not None and found.end_col_offset is not None:
                yield (found.lineno, found.col_offset), (found.end_lineno, found.end_col_offset)


def mutate(area: str, module: str, text: str, operator: str, occurrence: int) -> Mutant | None:
    """Return a mutant; None where it is no Python, or the same program as before."""
    mutating = importlib.import_module("cosmic_ray.mutating")
    mutated = mutating.mutate_code(text, operators()[operator], occurrence)
    try:
        if mutated is None or ast.dump(ast.parse(mutated)) == ast.dump(ast.parse(text)):
            return None
    except SyntaxError:
        return None
    pairs = enumerate(zip_longest(text.splitlines(), mutated.splitlines(), fillvalue=""), 1)
    line, (before, after) = next((line, pair) for line, pair in pairs if pair[0] != pair[1])
    return Mutant(area, module, line, operator, occurrence, before.strip(), after.strip(), mutated)


def shares(counts: Mapping[str, int], total: int) -> dict[str, int]:
    """Return how many of `total` fall to each name in proportion to `counts`; what rounding leaves, the largest get."""
    exact = {name: total * count / sum(counts.values()) for name, count in counts.items()}
    whole = {name: int(share) for name, share in exact.items()}
    by_rest = sorted(exact, key=lambda name: (whole[name] - exact[name], name))
    for name in by_rest[: total - sum(whole.values())]:
        whole[name] += 1
    return whole


def draw(modules: Mapping[str, str], sample: int, seed: int) -> list[Mutant]:
    """Return the sample of the mutants of `modules`, given as path and area.

    A file draws by its name, not by its folder: the sample goes with it when it moves.
    """
    texts = {module: (ROOT / module).read_text(encoding="utf-8") for module in modules}
    possible = {module: places(text) for module, text in texts.items()}
    total = sum(map(len, possible.values()))
    print(f"{total} possible mutants in {len(texts)} files")
    drawn = []
    for module, count in shares({name: len(found) for name, found in possible.items()}, min(sample, total)).items():
        order = possible[module]
        random.Random(f"{seed} {Path(module).name}").shuffle(order)
        made = (mutate(modules[module], module, texts[module], *place) for place in order)
        drawn += [mutant for _, mutant in zip(range(count), filter(None, made), strict=False)]
    return drawn


# ---- how they are run --------------------------------------------------------------------------------------------


class MutatedSource(MetaPathFinder):
    """Finds one module, with another text than that of its file."""

    def __init__(self, module: str, text: str) -> None:
        self.path, self.text = ROOT / module, text
        name = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self.name, self.is_package = name, module.endswith("/__init__.py")

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        """Return where the module comes from; None for every other one."""
        if fullname != self.name:
            return None
        folders = [str(self.path.parent)] if self.is_package else None
        loader = MutatedLoader(fullname, str(self.path), self.text)
        return importlib.util.spec_from_file_location(
            fullname, self.path, loader=loader, submodule_search_locations=folders
        )


class MutatedLoader(SourceFileLoader):
    """Compiles a text that stands for the file."""

    def __init__(self, fullname: str, path: str, text: str) -> None:
        super().__init__(fullname, path)
        self.text = text

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of the text; no cached one is read or written."""
        return compile(self.text, self.path, "exec", dont_inherit=True)


class FirstFailure:
    """A plugin of pytest that keeps the name of the first test that failed."""

    def __init__(self) -> None:
        self.name = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Look at a test."""
        self._look(report)

    def pytest_collectreport(self, report: Any) -> None:
        """Look at a file."""
        self._look(report)

    def _look(self, report: Any) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid


def prepare(scratch: Path) -> None:
    """Import the libraries as the tests would, but once."""
    os.environ.update(
        HF_HOME=str(scratch / "hf-home"),
        HF_HUB_OFFLINE="1",
        HF_DATASETS_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
        MPLBACKEND="Agg",
        OMP_NUM_THREADS="1",
        PYTHONPATH=str(ROOT),
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
    )
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    for name in LIBRARIES:
        if importlib.util.find_spec(name.split(".")[0]) is not None:
            importlib.import_module(name)
    assert not any(name.split(".")[0] == "hf_noise_al" for name in sys.modules), "a child could not mutate it any more"
    gc.freeze()  # no child need go through what is here already


def run_tests(tests: Sequence[str], scratch: Path, module: str = "", text: str = "") -> None:
    """Run the tests in this process, a child of its own, and leave what came of it in `scratch`."""
    output = os.open(scratch / "output.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    tempfile.tempdir = str(scratch)
    for library, name in (("datasets", "HF_DATASETS_CACHE"), ("evaluate", "HF_EVALUATE_CACHE")):
        if library in sys.modules:  # one child must not read what another one, of another mutant, computed
            setattr(sys.modules[library].config, name, scratch / name)
    if module:
        sys.meta_path.insert(0, MutatedSource(module, text))
    failure = FirstFailure()
    options = "-x -q -p no:xdist -p no:cacheprovider -m".split() + ["not slow and not long"]
    code = int(importlib.import_module("pytest").main([*options, *tests], plugins=[failure]))
    package = sys.modules.get("hf_noise_al")
    home = None if package is None else package.__file__
    (scratch / "result.json").write_text(json.dumps({"code": code, "failed": failure.name, "home": home}))


class Child:
    """A process that runs the tests of one mutant, or of none."""

    def __init__(self, tests: Sequence[str], seconds: int, mutant: Mutant | None = None) -> None:
        self.scratch, self.started = Path(tempfile.mkdtemp(prefix="mutant-")), time.monotonic()
        self.latest = self.started + 20 * seconds  # a child that waits for ever takes no time of the processor
        self.output = ""
        """What pytest printed, once the process has ended."""
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            return
        try:
            os.setpgid(0, 0)
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            run_tests(tests, self.scratch, *((mutant.module, mutant.text) if mutant else ()))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)

    def kill(self) -> None:
        """End the process, and whatever the tests may have started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def result(self) -> Result | None:
        """Return how it ended; None while it runs."""
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        late = not pid and time.monotonic() > self.latest
        if not pid and not late:
            return None
        self.kill()
        if late:
            _, status, usage = os.wait4(self.pid, 0)
        seconds = round(usage.ru_utime + usage.ru_stime, 1)
        said = self.scratch / "result.json"
        content = json.loads(said.read_text()) if said.is_file() else None
        self.output = (self.scratch / "output.txt").read_text(errors="replace")
        shutil.rmtree(self.scratch, ignore_errors=True)
        if late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)):
            return Result("timeout", "", seconds)
        if content is None:
            return Result("killed", "the process ended", seconds)
        if content["home"] and not Path(content["home"]).is_relative_to(ROOT):
            raise SystemExit(f"The tests ran against {content['home']}, not against {ROOT}.")
        if content["code"] in (4, 5):
            raise SystemExit(f"pytest ran no tests: {self.output}")
        return Result("killed" if content["code"] else "survived", content["failed"], seconds)


def run_all(
    jobs: Iterable[tuple[Sequence[str], Mutant | None]], processes: int, seconds: int
) -> Iterator[tuple[Sequence[str], Mutant | None, Result, str]]:
    """Yield each job with its result and what pytest printed, as they end; `processes` run at a time."""
    waiting = list(jobs)[::-1]
    running: list[tuple[Sequence[str], Mutant | None, Child]] = []
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                tests, mutant = waiting.pop()
                running.append((tests, mutant, Child(tests, seconds, mutant)))
            time.sleep(0.05)
            for job in list(running):
                tests, mutant, child = job
                result = child.result()
                if result is not None:
                    running.remove(job)
                    yield tests, mutant, result, child.output
    finally:
        for _, _, child in running:
            child.kill()


# ---- the program -------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the mutants, see that the tests pass without any, run them, and say what share was killed."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--sample", type=int, default=200, help="how many mutants to draw (default: 200)")
    parser.add_argument("--seed", type=int, default=16, help="which ones (default: 16)")
    parser.add_argument("--module", action="append", help="only this source file; may be given several times")
    parser.add_argument("--output", type=Path, help="write the results here, not to the terminal")
    parser.add_argument("--processes", type=int, default=2, help="how many children at a time (default: 2)")
    parser.add_argument("--seconds", type=int, default=60, help="of the processor for one child (default: 60)")
    parser.add_argument("--unchecked", action="store_true", help="do not run the tests without a mutant first")
    options = parser.parse_args(arguments)
    known = sources(TESTS)
    for path in options.module or ():
        if path not in known:
            raise SystemExit(f"The table of tests/mutants.py has no tests for {path}. It knows: {', '.join(known)}")
    chosen = {path: area for path, (area, _) in known.items() if path in (options.module or known)}
    mutants = draw(chosen, options.sample, options.seed)
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        prepare(Path(scratch))
        if not options.unchecked:
            check_without_mutants({m.module: known[m.module][1] for m in mutants}, options.processes, options.seconds)
        report(run_all([(known[m.module][1], m) for m in mutants], options.processes, options.seconds), options.output)


def check_without_mutants(tests: Mapping[str, Sequence[str]], processes: int, seconds: int) -> None:
    """Stop where a test file does not pass as the sources are, or the files of a module take nearly `seconds`."""
    took: dict[str, float] = {}
    files = sorted({file for files in tests.values() for file in files})
    for (file,), _, result, output in run_all([([file], None) for file in files], processes, seconds):
        if result.outcome != "survived":
            raise SystemExit(f"{file} does not pass as the sources are: {result}\n{output[-3000:]}")
        took[file] = result.seconds
    for module, names in tests.items():
        total = sum(took[name] for name in names)
        print(f"{total:5.1f} s without a mutant: the tests of {module}", flush=True)
        if total > 0.8 * seconds:
            raise SystemExit(f"The tests of {module} take too long to tell an endless loop: raise --seconds.")


def report(results: Iterator[tuple[Sequence[str], Mutant | None, Result, str]], output: Path | None) -> None:
    """Write the results as they come, then the share that was killed of each area, and the survivors."""
    killed: Counter[str] = Counter()
    drawn: Counter[str] = Counter()
    survivors = []
    stream = output.open("w", encoding="utf-8") if output else sys.stdout
    for _, mutant, result, _ in results:
        assert mutant is not None
        entry = {**asdict(mutant), **asdict(result)}
        del entry["text"]
        print(json.dumps(entry), file=stream, flush=True)
        for name in (mutant.area, "all"):
            drawn[name] += 1
            killed[name] += result.outcome != "survived"
        if result.outcome == "survived":
            survivors.append(mutant)
    for name, count in drawn.items():
        print(f"{name}: {killed[name]} of {count} killed ({killed[name] / count:.1%})")
    for mutant in sorted(survivors, key=lambda one: (one.module, one.line)):
        print(f"survived: {mutant.module}:{mutant.line} {mutant.operator}: {mutant.before}  ->  {mutant.after}")
    if output:
        stream.close()


if __name__ == "__main__":
    main()
