"""The benchmark of acquisitions at a tiny size: its names, the shape of what it writes, what it refuses. No timings."""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict

from hf_noise_al import NoiseStability, k_center_greedy

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "recipes" / "benchmarks"
NAMES = """
forward finite_difference_30 gradient_sketch_30 gradient_sketch_128 gradient_sketch_512
gradient_sketch_512_one_by_one naive_30 badge bald_20 baal_bald_20 small_text_core_set small_text_badge
scikit_activeml_core_set scikit_activeml_badge
""".split()
MODULES = ("acquisition", "measuring", "peers", "quality", "scaling", "variants")

Run = Callable[..., int]


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The modules of the folder, imported as they are where one of them is run as a program."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield SimpleNamespace(**{name: import_module(name) for name in MODULES})
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def flags(tmp_path: Path, tiny_bert_folder: Path) -> list[str]:
    """A recipe of GLUE on a few local pairs, with a model of a few kilobytes that has no dropout."""
    words = ["a good film", "a bad book about a cat", "not very fine", "the cat and the dog and the poor dog"]
    rows = {"sentence1": words * 6, "sentence2": words[::-1] * 6, "label": [0, 1, 1, 0] * 6}
    parts = {name: Dataset.from_dict(rows) for name in ("train", "validation")}
    DatasetDict(parts).save_to_disk(tmp_path / "data")
    values = {"model_name_or_path": tiny_bert_folder, "dataset_name": tmp_path / "data", "use_cpu": "true"}
    values |= {"query_size": 4, "per_device_eval_batch_size": 5}
    return [str(word) for name, value in values.items() for word in (f"--{name}", value)]


@pytest.fixture
def run(programs: SimpleNamespace, flags: list[str]) -> Run:
    def run(*words: str, candidates: int = 12, repeats: int = 1) -> int:
        recipe = str(ROOT / "recipes" / "glue" / "mrpc.yaml")
        numbers = ["--candidates", str(candidates), "--repeats", str(repeats)]
        return int(programs.acquisition.main([recipe, *flags, *numbers, *words]))

    return run


def rows_of(path: Path) -> list[dict[str, Any]]:
    written = json.loads(path.read_text())
    assert set(written) == {"rows"}
    return list(written["rows"])


def test_every_variant_has_a_row_with_a_cost_or_a_reason(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--skip_memory", "--json", str(tmp_path / "costs.json")) == 0
    printed = capsys.readouterr().out
    rows = {row["name"]: row for row in rows_of(tmp_path / "costs.json")}
    assert list(rows) == NAMES
    for name, row in rows.items():
        assert set(row) - {"reason"} == {"name", "cost", "seconds", "peak_bytes"}
        assert row["peak_bytes"] is None
        if row.get("reason"):
            assert row["cost"] is None and row["seconds"] is None
            assert f"| {name} | not available: {row['reason']} |" in printed
        else:
            assert row["cost"] > 0 and row["seconds"] > 0
            assert f"| {name} | {row['cost']:.2f} | {row['seconds']:.2f} |" in printed
    assert rows["forward"]["cost"] == 1
    assert not any(rows[name].get("reason") for name in NAMES[: NAMES.index("bald_20")])
    assert "BertForSequenceClassification has no active dropout" in rows["bald_20"]["reason"]
    for said in (f"torch {version('torch')}", "threads of each: ", " cores", "12 candidates, queries of 4", "float32"):
        assert said in printed


def test_a_library_that_is_not_there_is_named_with_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {"baal_bald_20": "structlog", "small_text_badge": "small_text", "scikit_activeml_core_set": "skactiveml"}
    for module in (*missing.values(), "skactiveml.pool", "small_text.integrations"):
        monkeypatch.setitem(sys.modules, module, None)
    assert run("--skip_memory", "--json", str(tmp_path / "costs.json"), "--variants", *missing) == 0
    for row in rows_of(tmp_path / "costs.json"):
        assert missing[row["name"]] in row["reason"]
        assert row["reason"].endswith('pip install -c constraints.txt -e ".[bench]"')


def test_a_variant_whose_settings_are_refused_says_so_and_others_run(
    programs: SimpleNamespace, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = programs.variants.noise_stability("no such estimator")
    broken = programs.variants.peer(lambda bench: lambda: 1 / 0)
    monkeypatch.setitem(programs.variants.VARIANTS, "refused", refused)
    monkeypatch.setitem(programs.variants.VARIANTS, "baal_broken", broken)
    names = ("refused", "baal_broken", "badge")
    assert run("--skip_memory", "--json", str(tmp_path / "costs.json"), "--variants", *names) == 0
    first, second, third = rows_of(tmp_path / "costs.json")
    assert "estimator" in first["reason"]
    assert second["reason"] == "ZeroDivisionError: division by zero"
    assert third["cost"] > 0


def test_a_fault_of_our_own_is_not_hidden(programs: SimpleNamespace, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(programs.variants.VARIANTS, "badge", lambda bench: lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("--skip_memory", "--variants", "badge")


@pytest.mark.parametrize(
    ("words", "sizes", "message"),
    [
        (["--variants", "badge", "no_such"], {}, "Unknown variant no_such. There are: forward, finite_difference_30,"),
        ([], {"candidates": 25}, "`--candidates` is 25, and "),
        ([], {"candidates": 0}, "`--candidates` is 0. Set it to at least 1."),
        ([], {"repeats": 0}, "`--repeats` is 0. Set it to at least 1."),
        (["--query_size", "13"], {}, "Cannot query 13 of 12 candidates. Lower `--query_size`, or raise `--candidates`"),
        (["--memory_of", "badge"], {}, "`--memory_of` writes to a file. Name it with `--json`."),
        (["--no_such_flag", "1"], {}, "Unknown flag `--no_such_flag`."),
    ],
)
def test_what_cannot_be_is_refused_with_a_message(
    run: Run, capsys: pytest.CaptureFixture[str], words: list[str], sizes: dict[str, int], message: str
) -> None:
    assert run(*words, **sizes) == 2
    said = capsys.readouterr()
    assert message in said.err and not said.out


def test_a_unit_before_each_variant_medians_over_repeats(
    programs: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that the runs themselves move: units of 1, 1, 4 and of 2, 2, 2 seconds; one slow repeat."""
    clock, log = [0.0], []

    def takes(name: str, *seconds: float) -> Callable[[Any], Callable[[], object]]:
        left = list(seconds)

        def run() -> None:
            log.append(name)
            clock[0] += left.pop(0)

        return lambda bench: run

    units = [1, 1, 4, 2, 2, 2, 1, 1, 1]
    warm_up = [0.0]
    fakes = {
        "forward": takes("forward", *units),
        "one": takes("one", *warm_up, 10, 30, 20),
        "two": takes("two", *warm_up, 3, 3, 3),
    }
    monkeypatch.setattr(programs.measuring, "VARIANTS", fakes)
    monkeypatch.setattr(programs.measuring.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(programs.measuring, "_wait", lambda bench: None)
    bench = SimpleNamespace(
        few=lambda: bench, is_main_process=False, precision=lambda: torch.autocast("cpu", enabled=False)
    )
    rows = programs.measuring.measure(bench, ["forward", "one", "two"], repeats=3)
    assert log == ["one", "two"] + ["forward", "forward", "one", "forward", "two"] * 3
    found = {row.name: (row.cost, row.seconds) for row in rows}
    assert found == {"forward": (1, 1), "one": (15, 20), "two": (3, 3)}


def test_naive_finds_deviations_of_the_size_that_ours_have_and_leaves_the_model(
    programs: SimpleNamespace, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = ROOT / "recipes" / "glue" / "mrpc.yaml"
    bench = programs.variants.prepare_bench(recipe, flags, 20, "float32", str(tmp_path / "run"))
    before = {name: value.clone() for name, value in bench.model.state_dict().items()}
    seen = []

    def select(rows: torch.Tensor, k: int) -> torch.Tensor:
        seen.append(rows)
        return k_center_greedy(rows, k)

    monkeypatch.setattr(programs.variants, "k_center_greedy", select)
    torch.manual_seed(0)
    found = programs.variants.naive(10)(bench)()
    assert found.shape == (4,) and found.unique().numel() == 4 and int(found.max()) < 20
    assert all(torch.equal(value, before[name]) for name, value in bench.model.state_dict().items())
    ours = NoiseStability(estimator="finite_difference", num_perturbations=10).deviations(
        bench.candidates(), torch.Generator().manual_seed(0)
    )
    assert seen[0].shape == ours.shape == (20, 20)
    assert 0.5 < float(seen[0].norm() / ours.norm()) < 2


def test_every_process_takes_the_same_candidates(programs: SimpleNamespace, flags: list[str], tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "glue" / "mrpc.yaml"
    first, second = (
        programs.variants.prepare_bench(recipe, flags, 20, "float32", str(tmp_path / name)) for name in "ab"
    )
    assert first.rows == second.rows == sorted(set(first.rows)) and len(first.rows) == 20
    assert first.candidates().size == len(first.observer().dataset) == 20 and not first.model.training
    assert len(first.few().rows) == 4 and first.few().query_size == 2


def test_peak_memory_of_one_variant_holds_the_model(
    programs: SimpleNamespace, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("forward", "badge"):
        assert run("--memory_of", name, "--json", str(tmp_path / "peak.json")) == 0
        peak = json.loads((tmp_path / "peak.json").read_text())
        if sys.platform == "linux":
            assert peak >= 20_000, "the model alone has some 8,000 numbers"
    assert not capsys.readouterr().out


def test_selection_gets_the_other_arguments(
    programs: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    got: list[list[str]] = []
    selection = ModuleType("selection")
    monkeypatch.setattr(selection, "main", lambda words: got.append(words), raising=False)
    monkeypatch.setitem(sys.modules, "selection", selection)
    assert programs.acquisition.main(["--selection", "--rows", "1000"]) == 0
    assert got == [["--rows", "1000"]]
    monkeypatch.setitem(sys.modules, "selection", None)
    assert programs.acquisition.main(["--selection"]) == 2
    assert "`--selection` is not available" in capsys.readouterr().err


def test_scaling_tells_sizes_and_processes_apart(
    programs: SimpleNamespace,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = []

    def fake(recipe: Path, flags: Any, options: Any, names: list[str], size: int, processes: int | None) -> Any:
        asked.append((names, size, processes))
        return "a machine", [{"name": name, "cost": 1.0, "seconds": 2.0, "peak_bytes": None} for name in names]

    monkeypatch.setattr(programs.scaling, "_run", fake)
    words = ("--scaling", "--sizes", "8", "16", "--processes", "1", "2", "--json", str(tmp_path / "costs.json"))
    assert run(*words) == 0
    names = ["forward", "gradient_sketch_512"]
    assert asked == [(names, 8, None), (names, 16, None), (names, 12, 1), (names, 12, 2)]
    places = [(row["name"], row["candidates"], row["processes"]) for row in rows_of(tmp_path / "costs.json")]
    assert places == [(name, size, count) for size, count in ((8, 1), (16, 1), (12, 1), (12, 2)) for name in names]
    assert "a machine\n\n| variant | candidates | processes |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "noise\nacquisition.py: `--candidates` is 99.\nRoot Cause (first observed failure)\n",
            "`--candidates` is 99.",
        ),
        ("Traceback\nRuntimeError: out of memory\n", "RuntimeError: out of memory"),
        ("", "no message"),
    ],
)
def test_scaling_says_which_run_failed_and_why(
    programs: SimpleNamespace,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    said: str,
    reason: str,
) -> None:
    failed = SimpleNamespace(returncode=2, stderr=said, stdout="")
    monkeypatch.setattr(programs.scaling.subprocess, "run", lambda *args, **kwargs: failed)
    assert run("--scaling", "--sizes", "99") == 2
    assert f"Failed with 99 candidates on 1 processes: {reason}" in capsys.readouterr().err


def test_scaling_keeps_what_was_measured_before_a_run_failed(
    programs: SimpleNamespace,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fake(recipe: Path, flags: Any, options: Any, names: list[str], size: int, processes: int | None) -> Any:
        if size == 16:
            raise programs.scaling.InvalidArgument("Failed with 16 candidates")
        return "a machine", [{"name": "forward", "cost": 1.0, "seconds": 2.0, "peak_bytes": None}]

    monkeypatch.setattr(programs.scaling, "_run", fake)
    answer = tmp_path / "costs.json"
    assert run("--scaling", "--sizes", "8", "16", "32", "--json", str(answer)) == 2
    assert [row["candidates"] for row in rows_of(answer)] == [8]
    said = capsys.readouterr()
    assert "| forward | 8 | 1 | 1.00 | 2.00 |" in said.out and "Failed with 16 candidates" in said.err


def child(main: Callable[[list[str]], int], words: list[str], environment: dict[str, str], log: Path) -> None:
    """Run a program in a child of this process: what it prints goes to files beside `log`, its code is the child's."""
    os.environ.update(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    with log.with_suffix(".out").open("w") as sys.stdout, log.with_suffix(".err").open("w") as sys.stderr:
        code = main(words)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    sys.exit(code)


def in_children(
    main: Callable[[list[str]], int], folder: Path, command: list[str], env: dict[str, str] | None = None, **_: object
) -> subprocess.CompletedProcess[str]:
    """Do as `subprocess.run` with a command of the benchmark, in children that have its libraries imported already."""
    program = next(number for number, word in enumerate(command) if word.endswith("acquisition.py"))
    launch, words = command[1:program], command[program + 1 :]
    count = int(launch[launch.index("--num_processes") + 1]) if launch else 1
    environment = {"OMP_NUM_THREADS": "1", **(os.environ if env is None else env)}
    children, logs = [], [folder / f"rank-{rank}" for rank in range(count)]
    for rank, log in enumerate(logs):
        if launch:
            environment |= {name: str(rank) for name in ("RANK", "LOCAL_RANK")}
            environment |= {name: str(count) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
            port = launch[launch.index("--main_process_port") + 1]
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        fork = multiprocessing.get_context("fork")
        children.append(fork.Process(target=child, args=(main, words, environment.copy(), log)))
        children[-1].start()
    for each in children:
        each.join(300)
        each.kill()
        each.join()
    printed, said = ("".join(log.with_suffix(end).read_text() for log in logs) for end in (".out", ".err"))
    code = next((each.exitcode for each in children if each.exitcode), 0)
    return subprocess.CompletedProcess(command, code, printed, said)


@pytest.mark.parametrize("launched", [False, pytest.param(True, marks=pytest.mark.long)], ids=["forked", "launched"])
def test_runs_as_a_program_with_memory_and_on_two_processes(
    launched: bool,
    programs: SimpleNamespace,
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    if not launched:
        start = partial(in_children, programs.acquisition.main, tmp_path)
        for program in (programs.acquisition, programs.scaling):
            monkeypatch.setattr(program, "subprocess", SimpleNamespace(run=start))
    answer = tmp_path / "costs.json"
    assert run("--json", str(answer), "--variants", "badge") == 0
    assert [row["name"] for row in rows_of(answer)] == ["badge"]
    if sys.platform == "linux":
        assert rows_of(answer)[0]["peak_bytes"] > 20_000
    words = ("--scaling", "--sizes", "--processes", "2", "--variants", "forward", "badge")
    assert run(*words, "--json", str(answer)) == 0
    rows = rows_of(answer)
    assert [(row["name"], row["candidates"], row["processes"]) for row in rows] == [
        ("forward", 12, 2),
        ("badge", 12, 2),
    ]
    assert all(row["seconds"] > 0 for row in rows)
    assert "processes: 2, threads of each: 1" in capsys.readouterr().out


def test_quality_runs_each_method_once_and_compares_with_random(
    programs: SimpleNamespace, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, folder = str(ROOT / "recipes" / "glue" / "mrpc.yaml"), tmp_path / "quality"
    sizes = "--num_rounds 2 --initial_size 4 --candidate_size 8 --max_steps 2 --disable_tqdm true".split()
    methods = ["random", "sketch_k_means_plus_plus"]
    words = [recipe, *flags, *sizes, "--output_dir", str(folder), "--seeds", "0", "1", "--methods", *methods]
    assert programs.quality.main(words) == 0
    assert str(folder / "sketch_k_means_plus_plus-seed-1") in capsys.readouterr().out
    found = json.loads((folder / "comparison.json").read_text())
    assert [(entry["acquisition"], entry["seeds"], entry["budgets"]) for entry in found] == [
        (method, [0, 1], [4, 8]) for method in methods
    ]
    assert found[0]["aubc_difference"] is None and found[1]["aubc_difference"]["half_width"] is not None

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json") if path.name != "comparison.json"}
    assert programs.quality.main(words) == 0
    assert str(folder / "sketch_k_means_plus_plus-seed-1") not in capsys.readouterr().out, "finished before"
    assert before == {path: path.stat().st_mtime_ns for path in before}

    assert programs.quality.main([*words, "--weight_decay", "0.5"]) == 2
    assert "belongs to another run: weight_decay was 0.01, is 0.5" in capsys.readouterr().err
    assert programs.quality.main([*words, "--num_rounds", "1"]) == 2
    assert "holds a run of 2 rounds, and 1 are asked for" in capsys.readouterr().err
    assert programs.quality.main([*words, "--num_rounds", "1", "--seeds", "2"]) == 2
    assert "has 2 rounds, and 1 are asked for: they cannot be compared" in capsys.readouterr().err
    assert not (folder / "sketch_k_means_plus_plus-seed-2").exists()
    assert programs.quality.main([*words, "--acquisition_kwargs={}"]) == 2
    assert "is set by `--methods` and `--seeds` here" in capsys.readouterr().err
    assert json.loads((folder / "comparison.json").read_text()) == found


def test_quality_says_which_setting_is_wrong(
    programs: SimpleNamespace, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(ROOT / "recipes" / "glue" / "mrpc.yaml")
    assert programs.quality.main([recipe, *flags, "--output_dir", str(tmp_path / "q"), "--num_round", "2"]) == 2
    assert "num_rounds" in capsys.readouterr().err


def test_quality_measures_what_the_task_can_use_and_refuses_the_rest_at_once(
    programs: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []
    monkeypatch.setattr(programs.quality, "prepare", lambda *run: run)
    monkeypatch.setattr(programs.quality, "train", lambda run: trained.append(Path(run[2].output_dir).name) or "")
    recipe = str(ROOT / "recipes" / "glue" / "stsb.yaml")
    words = [recipe, "--seeds", "0", "--output_dir", str(tmp_path)]
    assert programs.quality.main([*words, "--methods", "random", "margin"]) == 2
    assert "The acquisition margin cannot work on text_regression" in capsys.readouterr().err and not trained
    programs.quality.main(words)
    assert trained == [f"{name}-seed-0" for name in programs.quality.METHODS if name not in ("margin", "badge")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scaling", "--processes", "0"], r"`--processes` is [0]. Set it to at least 1."),
        (["--scaling", "--sizes", "10", "-1"], "`--sizes` is [10, -1]. Set it to at least 1."),
        (["--json", "nowhere/at/all/x.json"], "There is no folder nowhere/at/all to write `--json` to."),
    ],
)
def test_wrong_input_is_refused_before_anything_is_measured(
    run: Run, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    said = capsys.readouterr()
    assert message in said.err and not said.out
