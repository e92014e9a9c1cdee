"""The command line, end to end on models of a few kilobytes."""

import contextlib
import importlib
import io
import json
import logging
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch.distributed as dist
from datasets import Dataset
from tiny_run import read_state
from tqdm import tqdm

from hf_noise_al import ActiveTrainer
from hf_noise_al.commands import console
from hf_noise_al.commands import main as cli
from hf_noise_al.experiments.learning_curve import LearningCurve
from hf_noise_al.files.typed_text import UnreadableFile
from hf_noise_al.noise.gradient_sketch.layer_taps import UnsupportedModuleError
from hf_noise_al.refusals import MissingFile, Refusal, retold
from hf_noise_al.settings.recipe import InvalidArgument

ROUND_FILES = {"README.md", "active_state.json", "config.json", "learning_curve.json", "learning_curve.png"}


MakeTexts = Callable[..., Dataset]


def write_recipe(folder: Path, model: Path, make_texts: MakeTexts) -> Path:
    """Write a recipe for two rounds on texts of two classes; its output_dir is `out` beside it."""
    data = folder / "data"
    data.mkdir()
    make_texts(40).to_parquet(str(data / "train.parquet"))
    make_texts(12, seed=1).to_parquet(str(data / "validation.parquet"))
    path = folder / "tiny.yaml"
    path.write_text(
        f"""\
# A tiny run.
task: text_classification
dataset_name: {data}
model_name_or_path: {model}
output_dir: {folder / "out"}
num_rounds: 2
initial_size: 4
query_size: 3
candidate_size: 10
max_steps: 2
acquisition_kwargs: {{num_perturbations: 2}}
use_cpu: true
save_strategy: "no"
disable_tqdm: true
"""
    )
    return path


@pytest.fixture
def recipe(tmp_path: Path, tiny_bert_folder: Path, make_texts: MakeTexts) -> Path:
    return write_recipe(tmp_path, tiny_bert_folder, make_texts)


class Finished(NamedTuple):
    """A run that several tests look at and leave as it is."""

    recipe: Path
    out: Path
    printed: str
    points_saved: list[int]
    """Of the learning curve, each time that it was saved."""

    def copy(self, to: Path) -> list[str]:
        """Copy the run to the folder `to`, and return the command that is about the copy."""
        shutil.copytree(self.out, to)
        return ["run", str(self.recipe), "--output_dir", str(to)]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_bert_folder: Path, make_texts: MakeTexts
) -> Iterator[Finished]:
    """The run of the recipe, once for all tests."""
    recipe = write_recipe(tmp_path_factory.mktemp("finished"), tiny_bert_folder, make_texts)
    saved, save, printed = [], LearningCurve.save, io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(printed):
        patched.setattr(LearningCurve, "save", lambda self, path: saved.append(len(self.points)) or save(self, path))
        assert cli.main(["run", str(recipe)]) == 0
    out = recipe.parent / "out"
    before = contents(out)
    yield Finished(recipe, out, printed.getvalue(), saved)
    assert contents(out) == before, "a test changed the run that others look at"


@pytest.fixture(scope="module")
def finished_repeat(
    tmp_path_factory: pytest.TempPathFactory, tiny_bert_folder: Path, make_texts: MakeTexts
) -> Iterator[Finished]:
    """The recipe as the only one of its repeats, once for all tests."""
    recipe = write_recipe(tmp_path_factory.mktemp("repeat"), tiny_bert_folder, make_texts)
    assert cli.main(["run", str(recipe), "--seeds", "0"]) == 0
    out = recipe.parent / "out"
    before = contents(out)
    yield Finished(recipe, out, "", [])
    assert contents(out) == before, "a test changed the run that others look at"


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_run_leaves_everything_and_prints_the_rounds(finished: Finished) -> None:
    out = finished.out
    assert {path.name for path in out.iterdir()} >= ROUND_FILES | {"tokenizer.json", "model.safetensors", "queries"}
    assert "eval_accuracy" in finished.printed and str(out) in finished.printed
    curve = LearningCurve.load(out)
    assert (curve.num_labeled, curve.metric, curve.acquisition) == ((4, 7), "eval_accuracy", "noise_stability")
    assert all({"row", "text", "score", "label"} <= set(line) for line in lines(out / "queries" / "round-01.jsonl"))
    assert "learning" in (out / "README.md").read_text().lower()


class Terminal(io.StringIO):
    """Shows bars, as a terminal does."""

    def isatty(self) -> bool:
        return True


def after_what_was_overwritten(text: str, told: str) -> list[str]:
    """Return the lines with `told`, each without what was on its line before the cursor went back."""
    return [line.split("\r")[-1].removeprefix("\x1b[A") for line in text.split("\n") if told in line]


@pytest.mark.parametrize("name", ["hf_noise_al.some", "transformers.some"])
def test_log_lines_do_not_tear_a_bar(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    theirs, handler = logging.getLogger("transformers"), logging.StreamHandler()
    before = theirs.handlers
    monkeypatch.setattr(theirs, "handlers", [handler])
    monkeypatch.setattr(theirs, "level", logging.WARNING)
    with (
        console.log_lines_on_stderr(),
        console.lines_above_bars(),
        tqdm(total=2, file=terminal, desc="training") as bar,
    ):
        bar.update()
        logging.getLogger(name).error("told")
        assert terminal.getvalue().rstrip().split("\n")[-1].count("training") >= 1, "the bar is shown again"
    assert theirs.handlers == [handler] and theirs.handlers is not before
    (line,) = after_what_was_overwritten(terminal.getvalue(), "told")
    assert line == ("ERROR hf_noise_al.some: told" if name.startswith("hf") else "told")


def test_a_run_with_bars_keeps_its_log_lines_whole(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert cli.main(["run", str(recipe), "--disable_tqdm", "false"]) == 0
    assert "it/s]" in terminal.getvalue()
    told = after_what_was_overwritten(terminal.getvalue(), "INFO hf_noise_al")
    assert len(told) > 3
    assert all(line.startswith("INFO hf_noise_al") for line in told)


def test_the_curve_is_there_after_every_round(finished: Finished) -> None:
    assert finished.points_saved == [1, 2, 2]


def test_a_folder_that_holds_a_run_is_not_overwritten_unawares(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = finished.copy(out)
    state = (out / "active_state.json").read_bytes()
    assert cli.main(command) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert (out / "active_state.json").read_bytes() == state
    assert cli.main([*command, "--start_afresh", "true", "--num_rounds", "1"]) == 0
    assert LearningCurve.load(out).num_labeled == (4,)
    assert [path.name for path in sorted((out / "queries").iterdir())] == ["round-00.jsonl"]


def test_resuming_what_never_started_starts(recipe: Path) -> None:
    assert cli.main(["run", str(recipe), "--resume_from_checkpoint", "true", "--num_rounds", "1"]) == 0
    assert LearningCurve.load(recipe.parent / "out").num_labeled == (4,)


def test_resuming_with_other_settings_is_refused(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", str(finished.recipe), "--resume_from_checkpoint", "true", "--seed", "7"]) == 2
    assert "seed" in capsys.readouterr().err


def test_query_asks_a_trained_model_once(
    recipe: Path, tiny_bert_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["query", str(recipe), "--model_name_or_path", str(tiny_bert_folder), "--query_size", "5"]
    assert cli.main(command) == 0
    file = recipe.parent / "out" / "queries" / "round-00.jsonl"
    assert str(file) in capsys.readouterr().out
    asked = lines(file)
    assert len({line["row"] for line in asked}) == 5
    scores = [line["score"] for line in asked]
    assert scores[0] == max(scores)
    assert all(line["label"] is None and line["text"] for line in asked)
    assert not (recipe.parent / "out" / "model.safetensors").exists()
    assert cli.main(command) == 0
    assert lines(file) == asked


def test_query_with_a_head_for_other_classes_is_refused(
    recipe: Path, make_texts: MakeTexts, capsys: pytest.CaptureFixture[str]
) -> None:
    make_texts(40, num_labels=3).to_parquet(str(recipe.parent / "data" / "train.parquet"))
    make_texts(12, num_labels=3).to_parquet(str(recipe.parent / "data" / "validation.parquet"))
    assert cli.main(["query", str(recipe)]) == 2
    assert "has no trained weights for this task" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--seeds", "1", "2"], ["--baselines", "random"]])
def test_query_asks_once(recipe: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    assert cli.main(["query", str(recipe), *flags]) == 2
    assert f"`query` asks once and does not use `{flags[0][2:]}`" in capsys.readouterr().err


def test_query_does_not_overwrite_the_queries_of_a_run(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    asked = (finished.out / "queries" / "round-00.jsonl").read_bytes()
    assert cli.main(["query", str(finished.recipe)]) == 2
    assert "holds a run, whose queries would be overwritten" in capsys.readouterr().err
    assert (finished.out / "queries" / "round-00.jsonl").read_bytes() == asked


def test_repeats_run_every_acquisition_with_every_seed_and_compare_them(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", str(recipe), "--seeds", "0", "1", "--baselines", "random"]
    assert cli.main(command) == 0
    out = recipe.parent / "out"
    runs = {"noise_stability-seed-0", "noise_stability-seed-1", "random-seed-0", "random-seed-1"}
    assert {path.name for path in out.iterdir()} == runs | {"comparison.json", "learning_curve.png"}
    assert {item["acquisition"] for item in json.loads((out / "comparison.json").read_text())} == {
        "noise_stability",
        "random",
    }
    assert "AUBC" in capsys.readouterr().out

    monkeypatch.undo()  # this picture is drawn
    assert cli.main(["compare", str(out), "--plot", str(out / "plot.png")]) == 0
    assert "noise_stability" in capsys.readouterr().out and (out / "plot.png").stat().st_size > 1000
    assert cli.main(["compare", *(str(out / run) for run in sorted(runs)), "--json"]) == 0
    assert {item["acquisition"] for item in json.loads(capsys.readouterr().out)} == {"noise_stability", "random"}

    times = {run: (out / run / "learning_curve.json").stat().st_mtime_ns for run in runs}
    assert cli.main([*command, "--resume_from_checkpoint", "true"]) == 0
    assert capsys.readouterr().out.count("finished before") == 4
    assert times == {run: (out / run / "learning_curve.json").stat().st_mtime_ns for run in runs}

    assert cli.main([*command, "--resume_from_checkpoint", "true", "--learning_rate", "0.5"]) == 2, "not its results"
    printed = capsys.readouterr()
    assert "belongs to another run: learning_rate was " in printed.err and "is 0.5" in printed.err
    assert "finished before" not in printed.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_rounds", "1"], "holds a run of 2 rounds, and 1 are asked for. Pass `--num_rounds 2`"),
        (["--model_name_or_path", "another/model"], "is 'another/model'. Use the same settings, or pass another"),
        (["--dataset_name", "another/set"], "is 'another/set'. Use the same settings"),
        (["--metric", "f1"], "holds a run of other settings: `metric` was None, is ['f1']"),
        (["--max_seq_length", "5", "--max_train_samples", "9"], "`max_train_samples` was None, is 9; `max_seq_length`"),
    ],
)
def test_finished_repeats_of_something_else_are_no_repeats(
    finished_repeat: Finished, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    command = ["run", str(finished_repeat.recipe), "--seeds", "0", "--resume_from_checkpoint", "true"]
    assert cli.main([*command, *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_finished_run_of_something_else_is_not_resumed(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", str(finished.recipe), "--resume_from_checkpoint", "true", "--metric", "f1"]) == 2
    assert "`metric` was None, is ['f1']" in capsys.readouterr().err
    assert (finished.out / "README.md").exists()


def test_a_damaged_curve_of_a_repeat_is_written_anew(finished_repeat: Finished, tmp_path: Path) -> None:
    command = [*finished_repeat.copy(tmp_path / "out"), "--seeds", "0"]
    curve = tmp_path / "out" / "noise_stability-seed-0" / "learning_curve.json"
    written = curve.read_text()
    curve.write_text(written[:50])
    assert cli.main([*command, "--resume_from_checkpoint", "true"]) == 0
    assert curve.read_text() == written


def test_the_curve_of_a_run_before_does_not_stand_for_one_that_just_began(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    point = {"round": 0, "num_labeled": 4, "metrics": {"eval_accuracy": 0.5}}
    kept = tmp_path / "previous-1"
    kept.mkdir()
    LearningCurve("t", "d", "m", "random", 0, "eval_accuracy", True, (point,)).save(kept / "learning_curve.json")
    assert cli.main(["compare", str(tmp_path)]) == 2
    assert "No learning curve at" in capsys.readouterr().err
    assert cli.main(["compare", str(kept)]) == 0


@pytest.mark.parametrize(
    ("file", "message", "computes"),
    [
        ("curve.xyz", "name a file that ends in one of .png, .svg, .pdf", False),
        ("curve", "name a file that ends in one of .png, .svg, .pdf", False),
        ("taken/curve.png", "Cannot write", True),
    ],
)
def test_a_picture_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, message: str, computes: bool
) -> None:
    point = {"round": 0, "num_labeled": 4, "metrics": {"eval_accuracy": 0.5}}
    LearningCurve("t", "d", "m", "random", 0, "eval_accuracy", True, (point,)).save(tmp_path / "learning_curve.json")
    (tmp_path / "taken").write_text("a file where a folder should be")
    assert cli.main(["compare", str(tmp_path), "--plot", str(tmp_path / file)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and str(tmp_path / file) in printed.err and "Traceback" not in printed.err
    assert ("AUBC" in printed.out) is computes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rum"], "Unknown command `rum`. Did you mean `run`?"),
        (["run"], "Name a recipe first"),
        (["run", "--seed", "1"], "Name a recipe first"),
        (["run", "no/such.yaml"], "Found no recipe no/such.yaml"),
        (["run", "RECIPE", "--quary_size", "3"], "Did you mean `--query_size`?"),
        (["run", "RECIPE", "--task", "text_clasification"], "Did you mean `text_classification`?"),
        (["run", "RECIPE", "--text_column", "txt"], "Did you mean `text`?"),
        (["run", "RECIPE", "--metric_for_curve", "acc"], "Unknown `metric_for_curve` acc"),
        (
            ["run", "RECIPE", "--eval_strategy", "epoch", "--metric_for_best_model", "acc"],
            "`metric_for_best_model` acc",
        ),
        (["run", "RECIPE", "--metric", "owner/metric"], "The metric 'owner/metric' is not one of this library"),
        (
            ["run", "RECIPE", "--metric", "owner/metric", "--trust_remote_code", "true"],
            "Cannot load the metric owner/m",
        ),
        (["run", "RECIPE", "--split_seed", "-1"], "`split_seed` is -1. Set it between 0 and 4294967295"),
        (["run", "RECIPE", "--learning_rate", "nan"], "`learning_rate` must be a finite number of at least 0, got nan"),
        (["run", "RECIPE", "--model_name_or_path", "no/model"], "Cannot load the tokenizer of no/model"),
        (["run", "RECIPE", "--initial_size", "400"], "the pool has 40 rows"),
        (["run", "RECIPE", "--bf16_full_eval", "true"], "bf16_full_eval"),
        (["compare", "no/run"], "No learning curve at"),
    ],
)
def test_wrong_input_is_one_clear_message_and_exit_code_2(
    recipe: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert cli.main([str(recipe) if word == "RECIPE" else word for word in words]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (recipe.parent / "out" / "learning_curve.json").exists()


def test_a_folder_of_a_repeat_that_cannot_be_written_is_refused_before_the_first_is_trained(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hf_noise_al.commands.run.train", lambda job: pytest.fail("trained"))
    (recipe.parent / "out").mkdir()
    (recipe.parent / "out" / "random-seed-1").write_text("")
    assert cli.main(["run", str(recipe), "--acquisition", "random", "--seeds", "0", "1"]) == 2
    error = capsys.readouterr().err
    assert f"Cannot write to `output_dir` '{recipe.parent / 'out' / 'random-seed-1'}'" in error


@pytest.mark.parametrize("where", ["refusal", "log", "table"])
def test_names_in_data_reach_no_terminal_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    nasty = "\x1b]0;pwned\x07\rname"

    def show(words: list[str]) -> None:
        if where == "refusal":
            raise InvalidArgument(f"Cannot use {nasty}.")
        if where == "log":
            logging.getLogger("hf_noise_al.tasks").warning(f"Found {nasty}\nWARNING forged: line.")
        else:
            console.say(nasty)

    monkeypatch.setattr("hf_noise_al.commands.recipes.main", show)
    assert cli.main(["recipes"]) == (2 if where == "refusal" else 0)
    printed = "".join(capsys.readouterr())
    assert r"\x1b]0;pwned\x07 name" in printed and not {"\x1b", "\x07", "\r"} & set(printed)
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("fail", "kind"),
    [
        (lambda *_, **__: json.loads("{"), ValueError),
        (lambda *_, **__: int("many"), ValueError),  # of no file: it is raised in C
        (lambda *_, **__: importlib.import_module("no_such_library"), ImportError),
        (lambda *_, **__: Path("no/such/file").read_text(), FileNotFoundError),
    ],
)
def test_an_error_from_under_us_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, fail: Callable[..., object], kind: type[Exception]
) -> None:
    monkeypatch.setattr("hf_noise_al.commands.recipes.list_recipes", fail)
    with pytest.raises(kind) as raised:
        cli.main(["recipes"])
    assert not isinstance(raised.value, Refusal)


@pytest.mark.parametrize("kind", [Refusal, MissingFile, UnsupportedModuleError, UnreadableFile])
def test_a_refusal_is_one_line_whoever_raises_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: type[Refusal]
) -> None:
    def refuse() -> None:
        raise retold(kind("before"), "Cannot do it.")

    monkeypatch.setattr("hf_noise_al.commands.recipes.list_recipes", refuse)
    assert cli.main(["recipes"]) == 2
    assert capsys.readouterr().err == "hf-noise-al: Cannot do it.\n"
    assert type(retold(kind("before"), "")) is kind and type(retold(OSError("before"), "")) is Refusal


def test_a_run_that_was_interrupted_goes_on_to_the_same_end(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = []
    training_step = ActiveTrainer.training_step

    def interrupted_step(self: ActiveTrainer, *args: object, **kwargs: object) -> object:
        steps.append(self.state.global_step)
        if len(steps) == 4:  # in the second round, which has steps 3 and 4
            os.kill(os.getpid(), signal.SIGINT)
        return training_step(self, *args, **kwargs)

    command = ["run", str(recipe), "--num_rounds", "3"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
    try:
        with monkeypatch.context() as patched:
            patched.setattr(ActiveTrainer, "training_step", interrupted_step)
            assert cli.main(command) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert f"hf-noise-al run {recipe} --num_rounds 3 --resume_from_checkpoint true" in capsys.readouterr().err
    assert LearningCurve.load(tmp_path / "out").num_labeled == (4,)

    assert cli.main([*command, "--resume_from_checkpoint", "true"]) == 0
    assert cli.main([*command, "--output_dir", str(tmp_path / "straight")]) == 0
    resumed, straight = LearningCurve.load(tmp_path / "out"), LearningCurve.load(tmp_path / "straight")
    assert [point["metrics"] for point in resumed.points] == [point["metrics"] for point in straight.points]
    for number in range(3):
        name = f"queries/round-{number:02d}.jsonl"
        assert lines(tmp_path / "out" / name) == lines(tmp_path / "straight" / name)


def test_help_is_printed_for_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert cli.main([]) == 2
    for verb in ("run", "query"):
        assert cli.main([verb, "--help"]) == 0
        assert "Active learning:" in capsys.readouterr().out
    for verb in ("compare", "recipes"):
        with pytest.raises(SystemExit, match="0"):
            cli.main([verb, "--help"])


@pytest.mark.parametrize("words", [["--help"], ["recipes"], ["run", "--help"], ["compare", "--help"]])
def test_a_reader_that_leaves_early_is_no_error(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as output, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", output)
        with contextlib.suppress(SystemExit):
            assert cli.main(words) == 0
        output.write("more, which Python flushes when it ends")
        output.flush()


def test_a_refusal_keeps_its_code_where_nobody_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as errors, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", errors)
        assert cli.main(["rum"]) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_output_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", full)
        assert (cli.main(["recipes"]), cli.main(["--help"])) == (2, 0), "said once, then given up"
    assert "Cannot print to where the output goes: No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["recipes"]])
def test_a_process_whose_reader_leaves_ends_in_silence(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = subprocess.Popen([sys.executable, "-m", "hf_noise_al", *words], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert command.communicate() == (None, b"")
    assert command.returncode == 0


def test_what_needs_no_model_waits_for_no_library() -> None:
    script = """
import contextlib, sys
import hf_noise_al
from hf_noise_al.commands.main import main
assert [main(["--help"]), main(["recipes"]), main(["rum"])] == [0, 0, 2]
with contextlib.suppress(SystemExit):
    main(["compare", "--help"])
assert not {"torch", "transformers", "datasets", "numpy", "matplotlib"} & sys.modules.keys()
assert hf_noise_al.processes.__name__ == "hf_noise_al.processes", "folders are attributes too"
assert {"ActiveTrainer", "processes"} <= {*dir(hf_noise_al)}
assert not hasattr(hf_noise_al, "ActiveTrianer")
assert hf_noise_al.Query.__module__ == "hf_noise_al.acquisition.base" and "torch" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_ends_without_a_connection_to_other_processes() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    assert cli.main(["recipes"]) == 0
    assert not dist.is_initialized()


def test_recipes_lists_each_with_its_first_line(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hf_noise_al.settings.recipe.recipe_folder", lambda: recipe.parent)
    assert cli.main(["recipes"]) == 0
    assert capsys.readouterr().out == "tiny  A tiny run.\n"


def test_the_module_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["hf_noise_al", "rum"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("hf_noise_al", run_name="__main__")
    assert stopped.value.code == 2
    assert "Did you mean `run`?" in capsys.readouterr().err


def test_query_needs_no_labels_and_counts_rows_as_the_file_does(recipe: Path, make_texts: MakeTexts) -> None:
    texts = make_texts(30)["text"]
    file = recipe.parent / "unlabeled.csv"
    Dataset.from_dict({"text": texts}).to_csv(str(file))
    assert cli.main(["query", str(recipe), "--dataset_name", str(file), "--query_size", "5"]) == 0
    asked = lines(recipe.parent / "out" / "queries" / "round-00.jsonl")
    assert len(asked) == 5
    assert [texts[int(str(line["row"]))] for line in asked] == [line["text"] for line in asked]


def test_query_asks_for_unlabeled_rows_only(recipe: Path, make_texts: MakeTexts) -> None:
    rows = make_texts(30)
    labels = [label if row % 3 else None for row, label in enumerate(rows["label"])]
    file = recipe.parent / "partly.jsonl"
    Dataset.from_dict({"text": rows["text"], "label": labels}).to_json(str(file))
    command = ["query", str(recipe), "--dataset_name", str(file), "--query_size", "10", "--candidate_size", "10"]
    assert cli.main(command) == 0
    asked = lines(recipe.parent / "out" / "queries" / "round-00.jsonl")
    assert sorted(int(str(line["row"])) for line in asked) == list(range(0, 30, 3))


def test_query_knows_which_column_is_the_label(recipe: Path, make_texts: MakeTexts) -> None:
    rows = make_texts(30)
    answers = [f"class {label}" if row % 3 else "NA" for row, label in enumerate(rows["label"])]
    file = recipe.parent / "partly.csv"
    cells = zip(rows["text"], answers, strict=True)
    file.write_text("text;answer\n" + "".join(f"{text};{answer}\n" for text, answer in cells), encoding="utf-16")
    command = ["query", str(recipe), "--dataset_name", str(file), "--label_column", "answer", "--query_size", "10"]
    assert cli.main([*command, "--candidate_size", "10"]) == 0
    asked = lines(recipe.parent / "out" / "queries" / "round-00.jsonl")
    assert sorted(int(str(line["row"])) for line in asked) == list(range(0, 30, 3)), "those that say NA"


def test_query_leaves_out_what_the_model_was_trained_on(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = read_state(finished.out)["annotations"]
    command = ["query", str(finished.recipe), "--model_name_or_path", str(finished.out)]
    command += ["--output_dir", str(tmp_path / "next")]
    assert cli.main([*command, "--query_size", "33", "--candidate_size", "40"]) == 0
    asked = {line["row"] for line in lines(tmp_path / "next" / "queries" / "round-00.jsonl")}
    assert asked == set(range(40)) - {entry["row"] for entry in trained}
    assert "33 of 33 rows" in capsys.readouterr().out


def test_starting_afresh_loses_no_typed_label_and_a_refused_start_touches_nothing(
    finished: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [*finished.copy(out), "--start_afresh", "true"]
    typed = '{"row": 0, "label": 1}\n'
    (out / "queries" / "round-00.jsonl").write_text(typed)
    before = contents(out)
    assert cli.main([*command, "--dataset_name", "gone.csv"]) == 2
    assert contents(out) == before
    assert cli.main([*command, "--num_rounds", "1"]) == 0
    assert (out / "previous-1" / "queries" / "round-00.jsonl").read_text() == typed
    names = ("active_state.json", "labels.jsonl", "learning_curve.json", "learning_curve.png", "settings.json")
    assert all((out / "previous-1" / name).read_bytes() == before[out / name] for name in names)


def test_starting_afresh_with_the_answers_in_its_folder_finds_them(
    recipe: Path, make_texts: MakeTexts, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, data = make_texts(40), str(recipe.parent / "data" / "train.parquet")
    Dataset.from_dict({"text": rows["text"], "label": [0, 1, *[None] * 38]}).to_parquet(data)
    queries = recipe.parent / "out" / "queries"
    command = ["run", str(recipe), "--label_file", str(queries), "--class_names", "0", "1", "--num_rounds", "2"]
    assert cli.main(command) == 2
    answers = [
        {**line, "label": str(rows["label"][int(str(line["row"]))])} for line in lines(queries / "round-01.jsonl")
    ]
    (queries / "round-01.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    assert cli.main([*command, "--start_afresh", "true"]) == 0
    assert LearningCurve.load(recipe.parent / "out").num_labeled == (2, 5)
    for folder in (queries, recipe.parent / "out" / "previous-1" / "queries"):
        assert lines(folder / "round-01.jsonl") == answers
    assert f"are kept in {recipe.parent / 'out' / 'previous-1'}" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["query"], ["run", "--seeds", "0", "--num_rounds", "1"]], ids=lambda words: words[0])
def test_a_query_and_repeats_that_start_afresh_keep_what_was_typed(recipe: Path, words: list[str]) -> None:
    verb, *flags = words
    folder = recipe.parent / "out" / ("noise_stability-seed-0" if verb == "run" else "")
    assert cli.main([verb, str(recipe), *flags]) == 0
    typed = '{"row": 0, "label": "class 1"}\n'
    (folder / "queries" / "round-00.jsonl").write_text(typed)
    assert cli.main([verb, str(recipe), *flags, "--start_afresh", "true"]) == 0
    assert (folder / "previous-1" / "queries" / "round-00.jsonl").read_text() == typed
    assert len(lines(folder / "queries" / "round-00.jsonl")) > 1


def test_people_fill_in_the_query_files_until_the_rounds_are_done(
    recipe: Path, make_texts: MakeTexts, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make_texts(40)
    Dataset.from_dict({"text": rows["text"], "label": [0, 1, *[None] * 38]}).to_parquet(
        str(recipe.parent / "data" / "train.parquet")
    )
    queries = recipe.parent / "out" / "queries"
    command = ["run", str(recipe), "--label_file", str(queries), "--class_names", "0", "1", "--num_rounds", "3"]
    assert cli.main(command) == 2
    for number in (1, 2):
        file = queries / f"round-{number:02d}.jsonl"
        assert f"Fill in the labels in {file}" in capsys.readouterr().err
        answers = [{**line, "label": rows["label"][int(str(line["row"]))]} for line in lines(file)]
        file.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
        assert cli.main([*command, "--resume_from_checkpoint", "true"]) == (2 if number == 1 else 0)
    assert LearningCurve.load(recipe.parent / "out").num_labeled == (2, 5, 8)
