"""A user who stops a run is told a command that works."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from hf_noise_al.commands import main as cli
from hf_noise_al.commands.interruption import RunInterrupted, telling_what_is_saved
from hf_noise_al.experiments.learning_curve import LearningCurve
from hf_noise_al.run_folder.earlier_run import is_kept
from hf_noise_al.settings.parsing import parse

RESUMED = ["--resume_from_checkpoint", "true"]


@pytest.fixture
def recipe(tmp_path: Path, tiny_bert_folder: Path, make_texts: Callable[..., Dataset]) -> Path:
    """A recipe for one round of one step, whose output_dir is `out` beside it."""
    DatasetDict(train=make_texts(20), validation=make_texts(4, seed=1)).save_to_disk(tmp_path / "data")
    path = tmp_path / "tiny.yaml"
    path.write_text(
        f"{{dataset_name: {tmp_path}/data, model_name_or_path: {tiny_bert_folder}, output_dir: {tmp_path}/out, "
        "acquisition: random, num_rounds: 1, initial_size: 4, max_steps: 1, use_cpu: true, save_strategy: 'no', "
        "disable_tqdm: true}"
    )
    return path


def interrupted(words: Sequence[str], place: str, patch: pytest.MonkeyPatch, errors: pytest.CaptureFixture[str]) -> str:
    """Run the command, stop it at `place`, and return what it says then."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    errors.readouterr()
    with patch.context() as patched:
        patched.setattr(place, stop)
        assert cli.main(words) == 130
    return errors.readouterr().err


def suggested(told: str) -> list[str]:
    """Return the arguments of the command on the last line of `told`."""
    program, *words = shlex.split(told.splitlines()[-1])
    assert program == "hf-noise-al"
    return words


IN_TRAINING = "hf_noise_al.ActiveTrainer.training_step"
LISTING = "hf_noise_al.commands.recipes.list_recipes"
IN_LOADING = "hf_noise_al.commands.prepare.load_data"


@pytest.mark.parametrize(
    ("flags", "seeds"),
    [
        (["--resume_from_checkpoint=false"], {42}),
        (["--start_afresh", "true", "--seed", "3"], {3}),
        (["--seeds", "0", "1"], {0, 1}),
    ],
)
def test_the_command_that_is_told_goes_on_with_the_run(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str], seeds: set[int]
) -> None:
    if "--start_afresh" in flags:
        assert cli.main(["run", str(recipe)]) == 0, "a run that is to be replaced"
    told = interrupted(["run", str(recipe), *flags], IN_TRAINING, monkeypatch, capsys)
    assert "rounds and labels so far are saved. To go on:" in told
    assert cli.main(suggested(told)) == 0
    curves = [file for file in recipe.parent.rglob("learning_curve.json") if not is_kept(file.parent)]
    assert {LearningCurve.load(file).seed for file in curves} == seeds


@pytest.mark.parametrize("flags", [[], ["--start_afresh", "true", "--seed", "3"], ["--resume_from_checkpoint", "true"]])
def test_before_anything_is_saved_the_same_command_is_told(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    words = ["run", str(recipe), *flags]
    if "--start_afresh" in flags:  # the run that is to be replaced has another seed: it cannot be resumed
        assert cli.main(["run", str(recipe)]) == 0
    told = interrupted(words, IN_LOADING, monkeypatch, capsys)
    assert told.splitlines()[-2] == "Interrupted. To start again:"
    assert suggested(told) == words
    assert cli.main(words) == 0


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        (["--seed", "3"], ["--seed", "3"]),
        (["--resume_from_checkpoint", "false", "--seed", "3"], ["--seed", "3"]),
        (["--resume-from-checkpoint=no", "--seeds", "1", "2"], ["--seeds", "1", "2"]),
        (["--start_afresh", "--seed=3"], ["--seed=3"]),
        (["--start_afresh=true", "--output_dir", "a b"], ["--output_dir", "a b"]),
    ],
)
def test_flags_that_would_contradict_are_left_out(recipe: Path, flags: list[str], kept: list[str]) -> None:
    told = RunInterrupted(resumable=True, afresh=False).how_to_go_on(["run", str(recipe), *flags])
    assert suggested(told) == ["run", str(recipe), *kept, *RESUMED]
    assert parse(recipe, suggested(told)[2:])[2].resumes


def test_a_recipe_that_starts_afresh_is_overruled(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("num_rounds", "start_afresh: true, num_rounds"))
    (training,) = [parse(recipe)[2]]
    out = recipe.parent / "out"
    with pytest.raises(RunInterrupted) as stopped, telling_what_is_saved([training]):
        out.mkdir()
        (out / "active_state.json").write_text("{}")
        raise KeyboardInterrupt
    words = suggested(stopped.value.how_to_go_on(["run", str(recipe)]))
    resumed = parse(recipe, words[2:])[2]
    assert resumed.resumes and not resumed.start_afresh


@pytest.mark.parametrize(
    ("words", "place"), [(["query", "RECIPE"], "hf_noise_al.commands.prepare.load_pool"), (["recipes"], "")]
)
def test_other_commands_only_stop(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], place: str
) -> None:
    words = [str(recipe) if word == "RECIPE" else word for word in words]
    assert interrupted(words, place or LISTING, monkeypatch, capsys) == "Interrupted.\n"
