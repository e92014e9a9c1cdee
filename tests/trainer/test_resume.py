"""A run that is killed at any moment and resumed ends as one that never was; what does not belong to it is refused."""

import gc
import json
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_run import Oracle, assert_same_outcome, make_model, make_pool, make_trainer, outcome, read_state
from torch import nn
from transformers import TrainerCallback

from hf_noise_al import ActiveTrainer, ActiveTrainerCallback
from hf_noise_al import trainer as trainer_module
from hf_noise_al.noise.gradient_sketch.sketch import GradientSketch
from hf_noise_al.observables.base import features, probabilities
from hf_noise_al.observing import observer
from hf_noise_al.run_folder import round_files
from hf_noise_al.run_folder.state import ActiveState

SETTINGS: dict[str, Any] = {
    **{"num_rounds": 2, "num_train_epochs": 2, "save_strategy": "steps", "save_steps": 2},
    **{"acquisition": "entropy", "acquisition_kwargs": None},  # the cheapest whose picks follow from the weights
}
NOISE: dict[str, Any] = {"acquisition": "noise_stability", "acquisition_kwargs": {"num_perturbations": 3}}


def start(folder: Path, fresh: bool = False, **settings: Any) -> ActiveTrainer:
    """Return a trainer; with a `model_init` if `fresh`, and then its queries are by noise."""
    return make_trainer(folder, fresh=fresh, **{**SETTINGS, **(NOISE if fresh else {}), **settings})


def go_on(trainer: ActiveTrainer, folder: Path) -> None:
    trainer.train(resume_from_checkpoint=(folder / "active_state.json").exists())


def in_child(work: Callable[[], Any], result: Path | None = None) -> int:
    """Start `work` in a child of this warmed-up process; return the child's process number."""
    child = os.fork()
    if child:
        return child
    try:  # never return into pytest
        torch.set_num_threads(1)
        gc.freeze()
        found = work()
        if result is not None:
            torch.save(found, result.with_suffix(".part"))
            result.with_suffix(".part").rename(result)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def wait_for(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_to_the_end(folder: Path, **settings: Any) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        trainer = start(folder, **settings)
        go_on(trainer, folder)
        return outcome(trainer)

    return work


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(path, weights_only=False)
    return loaded


@pytest.fixture(scope="module", params=[False, True], ids=["model", "model_init"])
def uninterrupted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    started = time.monotonic()
    assert wait_for(in_child(run_to_the_end(folder / "run", fresh=request.param), folder / "result")) == 0
    seconds = time.monotonic() - started
    first = run_to_the_end(folder / "first round", fresh=request.param, num_rounds=1)
    assert wait_for(in_child(first)) == 0
    return {
        "fresh": request.param,
        "seconds": seconds,
        "queries": read_queries(folder / "run"),
        "first round": folder / "first round",
        **load(folder / "result"),
    }


def read_queries(folder: Path) -> list[str]:
    return [(folder / "queries" / f"round-{number:02d}.jsonl").read_text() for number in range(2)]


# ---- killed at one moment after the other ----------------------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, when: Callable[..., bool]) -> None:
    """Make the process die when ``owner.name`` is called and `when` says so."""
    original = getattr(owner, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        if when(*args, **kwargs):
            die()
        return original(*args, **kwargs)

    setattr(owner, name, watched)


class DieAt(TrainerCallback):
    def __init__(self, trainer: ActiveTrainer, event: str, step: int) -> None:
        self.trainer, self.event, self.step = trainer, event, step

    def _check(self, event: str, state: Any) -> None:
        if event == self.event and state.global_step == self.step and len(self.trainer.history) == 1:
            die()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._check("on_step_end", state)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._check("on_save", state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._check("on_train_end", state)


def second(trainer: ActiveTrainer) -> bool:
    return len(trainer.history) == 1


MOMENTS: dict[str, Callable[[ActiveTrainer], None]] = {
    "before anything is on the disk": lambda t: before(ActiveState, "save", lambda state, *_: True),
    "while the initial labels are told": lambda t: before(trainer_module, "tell", lambda *_, **__: True),
    "while training": lambda t: t.add_callback(DieAt(t, "on_step_end", 5)),
    "after a checkpoint": lambda t: t.add_callback(DieAt(t, "on_save", 4)),
    "while a checkpoint is written": lambda t: before(
        t, "_save_rng_state", lambda *_: second(t) and t.state.global_step == 4
    ),
    "at the end of training": lambda t: t.add_callback(DieAt(t, "on_train_end", 8)),
    "while the model is saved": lambda t: before(
        round_files, "save_weights", lambda model, folder, write: second(t) and folder.name == ".model.incomplete"
    ),
    "while the model gets its name": lambda t: before(round_files, "sync_folder", lambda folder: second(t)),
    "between model and evaluation": lambda t: before(t._training, "evaluate", lambda: second(t)),
    "between evaluation and state": lambda t: before(
        ActiveState, "save", lambda state, *_: len(state.history) == 2 and state.pending is None
    ),
    "between state and log": lambda t: before(t, "_log_at", lambda labels, values: values.get("active/round") == 1),
    "while observing": lambda t: before(observer.Observer, "_pass", lambda *_: second(t)),
    "while sketching": lambda t: before(GradientSketch, "__call__", lambda sketch, model, inputs: second(t)),
    "between observing and state": lambda t: before(
        ActiveState, "save", lambda state, *_: len(state.history) == 1 and state.pending is not None
    ),
    "between query and annotate": lambda t: before(t.annotator, "annotate", lambda rows: second(t)),
    "between annotate and state": lambda t: before(
        ActiveState, "save", lambda state, *_: len(state.history) == 1 and state.pool.num_labeled == 14
    ),
}


WITH_MODEL_INIT = ("while training", "between model and evaluation", "while sketching", "between query and annotate")


@pytest.mark.parametrize(
    ("uninterrupted", "moment"),
    [
        *((False, moment) for moment in MOMENTS if moment != "while sketching"),
        *((True, moment) for moment in WITH_MODEL_INIT),
    ],
    indirect=["uninterrupted"],
    ids=lambda value: {False: "model", True: "model_init"}.get(value, value),
)
def test_a_run_killed_at_a_moment_ends_as_an_uninterrupted_one(
    tmp_path: Path, uninterrupted: dict[str, Any], moment: str
) -> None:
    folder, fresh = tmp_path / "run", uninterrupted["fresh"]
    if moment not in list(MOMENTS)[:2]:
        shutil.copytree(uninterrupted["first round"], folder)

    def work() -> None:
        trainer = start(folder, fresh)
        MOMENTS[moment](trainer)
        go_on(trainer, folder)

    assert wait_for(in_child(work)) == -signal.SIGKILL, "the moment never came"
    assert wait_for(in_child(run_to_the_end(folder, fresh=fresh), tmp_path / "result")) == 0
    assert_same_outcome(load(tmp_path / "result"), uninterrupted)
    assert read_queries(folder) == uninterrupted["queries"]


def test_a_run_killed_at_ten_random_moments_ends_as_an_uninterrupted_one(
    tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    generator = random.Random(7)
    fresh, kills, runs, result = uninterrupted["fresh"], 0, 0, tmp_path / "result"
    while kills < 10 or not result.exists():
        folder = tmp_path / f"run-{runs}"
        result.unlink(missing_ok=True)
        child = in_child(run_to_the_end(folder, fresh=fresh), result)
        if kills < 10:
            time.sleep(generator.uniform(0.02, 0.4) * uninterrupted["seconds"])
            os.kill(child, signal.SIGKILL)
        code = wait_for(child)
        kills += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL)
        if result.exists():
            assert_same_outcome(load(result), uninterrupted)
            runs += 1
    assert kills == 10


@pytest.mark.parametrize("fresh", [pytest.param(False, marks=pytest.mark.slow), True])
def test_warm_start_and_best_model_survive_a_kill(tmp_path: Path, fresh: bool) -> None:
    settings: dict[str, Any] = {
        "fresh": fresh,
        "warm_start": True,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "save_total_limit": 1,
        "learning_rate": 0.1,
    }
    assert wait_for(in_child(run_to_the_end(tmp_path / "whole", **settings), tmp_path / "expected")) == 0
    expected = load(tmp_path / "expected")
    for moment in ("while training", "at the end of training"):
        folder = tmp_path / moment

        def work(folder: Path = folder, moment: str = moment) -> None:
            trainer = start(folder, **settings)
            MOMENTS[moment](trainer)
            trainer.train()

        assert wait_for(in_child(work)) == -signal.SIGKILL
        assert wait_for(in_child(run_to_the_end(folder, **settings), folder / "result")) == 0
        assert_same_outcome(load(folder / "result"), expected)


def test_a_half_removed_checkpoint_is_passed_over(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    folder, fresh = shutil.copytree(uninterrupted["first round"], tmp_path / "run"), uninterrupted["fresh"]

    def work() -> None:
        trainer = start(folder, fresh)
        trainer.add_callback(DieAt(trainer, "on_save", 6))
        go_on(trainer, folder)

    assert wait_for(in_child(work)) == -signal.SIGKILL
    checkpoints = folder / "_rounds" / "01"
    (checkpoints / "checkpoint-6" / "optimizer.pt").unlink()
    (checkpoints / "checkpoint-4" / "rng_state.pth").write_bytes(b"PK half a file")
    next((checkpoints / "checkpoint-2").glob("*.safetensors")).unlink()
    assert wait_for(in_child(run_to_the_end(folder, fresh=fresh), tmp_path / "result")) == 0
    assert_same_outcome(load(tmp_path / "result"), uninterrupted)


BEST: dict[str, Any] = {
    **{"num_rounds": 1, "num_train_epochs": 4, "eval_strategy": "steps", "eval_steps": 2, "learning_rate": 0.3},
    **{"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"},
}


def stop_at_the_last_checkpoint(folder: Path) -> Path:
    """Start a run whose best model is an early one, stop it when all is trained; return the best checkpoint."""

    class Stop(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 8:
                raise KeyboardInterrupt

    trainer = start(folder, **BEST, trainer={"callbacks": [Stop()]})
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-4")
    return Path(trainer.state.best_model_checkpoint)


@pytest.fixture(scope="module")
def best_of_whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    whole = start(tmp_path_factory.mktemp("whole"), **BEST)
    whole.train()
    return outcome(whole)


def test_the_best_model_is_loaded_also_where_the_folder_was_moved(
    tmp_path: Path, best_of_whole: dict[str, Any]
) -> None:
    stop_at_the_last_checkpoint(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    resumed = start(tmp_path / "there", **BEST)
    resumed.train(resume_from_checkpoint=True)
    assert_same_outcome(outcome(resumed), best_of_whole)


def test_a_damaged_best_model_is_not_loaded(tmp_path: Path, best_of_whole: dict[str, Any]) -> None:
    weights = stop_at_the_last_checkpoint(tmp_path) / "model.safetensors"
    weights.write_bytes(flipped(weights.read_bytes(), -1))
    resumed = start(tmp_path, **BEST)
    resumed.train(resume_from_checkpoint=True)
    assert_same_outcome(outcome(resumed), best_of_whole)


def model_with_adapters_and_batch_norm() -> nn.Module:
    model = make_model()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model.classifier = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 2))
        return get_peft_model(model, LoraConfig(r=2, target_modules=["query"]))


def test_means_of_batches_under_adapters_survive_a_stop(tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                raise KeyboardInterrupt

    def make(name: str, **trainer: Any) -> ActiveTrainer:
        model = model_with_adapters_and_batch_norm()
        return start(tmp_path / name, num_rounds=1, trainer={"model": model, **trainer})

    whole, stopped, resumed = make("whole"), make("parts", callbacks=[Stop()]), make("parts")
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed.train(resume_from_checkpoint=True)
    assert resumed._run.weights.resumed_round == 0
    assert_same_outcome(outcome(resumed), outcome(whole))


# ---- one after the other in one process ------------------------------------------------------------------------------


def test_a_finished_run_may_be_resumed_for_more_rounds(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole")
    whole.train()
    start(tmp_path / "parts", num_rounds=1).train()
    resumed = start(tmp_path / "parts")
    resumed.train(resume_from_checkpoint=True)
    assert_same_outcome(outcome(resumed), outcome(whole))
    again = start(tmp_path / "parts")
    output = again.train(resume_from_checkpoint=str(tmp_path / "parts"))
    assert_same_outcome(outcome(again), outcome(whole))
    assert output.global_step == 8, "the output of the last round that was trained"


def test_goes_on_in_the_same_process_after_an_interrupt(tmp_path: Path) -> None:
    class Interrupt(TrainerCallback):
        armed = True

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.armed and state.global_step == 5:
                self.armed = False
                raise KeyboardInterrupt

    whole = start(tmp_path / "whole", warm_start=True)
    whole.train()
    trainer = start(tmp_path / "parts", warm_start=True, trainer={"callbacks": [Interrupt()]})
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.model_init is None
    trainer.train(resume_from_checkpoint=True)
    assert_same_outcome(outcome(trainer), outcome(whole))


def test_labels_told_after_a_kill_are_learned(tmp_path: Path) -> None:
    """What a killed training left belongs to fewer labels: it must not pass for the training on all of them."""
    unlabeled = make_pool().remove_columns(["label"])
    killed = start(tmp_path, pool=unlabeled)
    killed.annotate([0, 1, 2, 3], [0, 1, 0, 1])

    class Interrupt(ActiveTrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    killed.add_callback(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        killed.fine_tune()
    trainer = start(tmp_path, pool=unlabeled)
    trainer.resume()
    trainer.annotate([10, 11, 12, 13], [0, 1, 0, 1])
    assert trainer.fine_tune().global_step == 4, "two epochs of two batches"
    reference = start(tmp_path / "reference", pool=unlabeled)
    reference.annotate([0, 1, 2, 3], [0, 1, 0, 1])
    reference.annotate([10, 11, 12, 13], [0, 1, 0, 1])
    reference.fine_tune()
    assert_same_outcome(outcome(trainer), outcome(reference))


def test_ask_today_and_tell_tomorrow(tmp_path: Path) -> None:
    unlabeled = make_pool().remove_columns(["label"])
    asked = start(tmp_path, pool=unlabeled).query(5)
    trainer = start(tmp_path, pool=unlabeled)
    trainer.resume()
    again = trainer.query(5)
    assert torch.equal(again.indices, asked.indices)
    assert torch.equal(again.scores, asked.scores)
    trainer.annotate(asked.indices[:2], [0, 1])
    trainer = start(tmp_path, pool=unlabeled)
    trainer.resume(str(tmp_path))
    assert trainer.pool.num_labeled == 2
    trainer.annotate(asked.indices[2:], [0, 1, 0])
    trainer.fine_tune()
    assert [a.score for a in trainer.pool.annotations] == asked.scores.tolist()


def test_an_earlier_run_in_the_folder_is_kept_when_another_starts(tmp_path: Path) -> None:
    unlabeled = make_pool().remove_columns(["label"])
    for label in (0, 1, 0):
        start(tmp_path, pool=unlabeled).annotate([3], [label])
    for number, label in ((1, 0), (2, 1)):
        (line,) = (tmp_path / f"previous-{number}" / "labels.jsonl").read_text().splitlines()
        assert json.loads(line)["label"] == label
        (line,) = (tmp_path / f"previous-{number}" / "queries" / "round-00.jsonl").read_text().splitlines()
        assert json.loads(line)["label"] == label
    assert read_state(tmp_path)["annotations"][0]["label"] == 0


def test_labels_of_an_interrupted_first_round_are_kept_when_training_starts_afresh(tmp_path: Path) -> None:
    pool = make_pool()

    class Interrupt(TrainerCallback):
        armed = True

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.armed:
                self.armed = False
                raise KeyboardInterrupt

    trainer = start(
        tmp_path,
        pool=pool.remove_columns(["label"]),
        trainer={"annotator": Oracle(pool["label"][:]), "callbacks": [Interrupt()]},
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.train()
    assert len((tmp_path / "previous-1" / "labels.jsonl").read_text().splitlines()) == 8


def test_an_answer_that_is_packed_otherwise_today_is_no_damage(tmp_path: Path) -> None:
    """Masks are kept as PNG, which another release of its library writes with other bytes."""
    unlabeled = make_pool().remove_columns(["label"])
    start(tmp_path, pool=unlabeled, trainer={"read_answer": lambda row, answer: "packed"}).annotate([3], ["a mask"])
    trainer = start(tmp_path, pool=unlabeled, trainer={"read_answer": lambda row, answer: "packed anew"})
    trainer.resume()
    assert trainer.pool.label(3) == "packed"


def test_the_state_file_is_plain_and_versioned(tmp_path: Path) -> None:
    trainer = start(tmp_path)
    trainer.train()
    state = read_state(tmp_path)
    assert (state["version"], state["phase"], state["round"], state["size"]) == (2, "query", 2, 60)
    assert state["fingerprint"]["data.rows"] == 60
    assert state["fingerprint"]["seed"] == 42
    assert [record["num_labeled"] for record in state["history"]] == [8, 14]
    assert len(state["annotations"]) == 14
    assert not list(tmp_path.glob(".active*")), "no temporary file is left"


STORED = Path(__file__).parents[1] / "stored_runs"


@pytest.mark.parametrize("release", [path.parent.name for path in sorted(STORED.glob("*/expected.json"))])
def test_a_run_of_an_earlier_release_goes_on_as_it_would_have(tmp_path: Path, release: str) -> None:
    expected = json.loads((STORED / release / "expected.json").read_text())
    folder = shutil.copytree(STORED / release / "run", tmp_path / "run")
    trainer = make_trainer(folder)
    trainer.resume()
    assert trainer.pool.num_labeled - trainer.history[-1].num_labeled == 4, "of the last query, two rows are open"
    trainer.train(resume_from_checkpoint=True)
    for note, (row, label, number, score) in zip(trainer.pool.annotations, expected["annotations"], strict=True):
        assert (note.row, note.label, note.round, note.score) == (row, label, number, score)
    for record, (number, labels, size, metrics) in zip(trainer.history, expected["history"], strict=True):
        assert (record.round, record.num_labeled, record.query_size) == (number, labels, size)
        assert record.metrics == pytest.approx(metrics, rel=1e-4)
    assert read_state(folder)["version"] == 2


def test_two_processes_that_resume_one_folder_lose_no_label(tmp_path: Path) -> None:
    unlabeled = make_pool().remove_columns(["label"])
    start(tmp_path, pool=unlabeled).annotate([0, 1], [0, 1])
    first, second = start(tmp_path, pool=unlabeled), start(tmp_path, pool=unlabeled)
    first.resume()
    second.resume()
    first.annotate([2, 3], [0, 1])
    with pytest.raises(ValueError, match="was changed by another process since this one read it: nothing was written"):
        second.annotate([4, 5], [0, 1])
    assert second.pool.labeled_rows == [0, 1]
    second.resume()
    second.annotate([4, 5], [0, 1])
    assert [entry["row"] for entry in read_state(tmp_path)["annotations"]] == [0, 1, 2, 3, 4, 5]


def test_a_process_left_over_from_a_killed_launch_is_named_and_keeps_others_out(tmp_path: Path) -> None:
    class Hang(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            (tmp_path / "hangs").touch()
            time.sleep(60)

    child = in_child(lambda: start(tmp_path / "run", trainer={"callbacks": [Hang()]}).train())
    while not (tmp_path / "hangs").exists():
        time.sleep(0.01)
    with pytest.raises(ValueError, match=f"Process {child} on .* works in .*run, and two would undo each other's"):
        start(tmp_path / "run").train(resume_from_checkpoint=True)
    os.kill(child, signal.SIGKILL)
    wait_for(child)
    start(tmp_path / "run").train(resume_from_checkpoint=True)


def test_labels_that_were_told_may_be_told_again(tmp_path: Path) -> None:
    trainer = start(tmp_path, pool=make_pool().remove_columns(["label"]))
    for _ in range(2):
        trainer.annotate([0, 1], [0, 1])
    with pytest.raises(ValueError, match="row 0 twice: it already has the label 0"):
        trainer.annotate([0, 1], [0, 0])
    assert len(read_state(tmp_path)["annotations"]) == 2


def test_labels_in_a_state_that_nobody_can_have_told_are_refused(finished: Path, tmp_path: Path) -> None:
    """As a state of the first version may have them, which has no checksum."""
    folder = shutil.copytree(finished, tmp_path / "copy")
    state = read_state(folder)
    state["annotations"][2]["label"] = 7
    del state["labels"], state["checksum"]
    (folder / "active_state.json").write_text(json.dumps({**state, "version": 1}))
    with pytest.raises(ValueError, match="is damaged .*the label 7 is outside the model's 2 classes"):
        make_trainer(folder, num_rounds=1).train(resume_from_checkpoint=True)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    make_trainer(folder, num_rounds=1).train()
    return folder


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"seed": 1}, "seed was 42, is 1"),
        ({"learning_rate": 0.5}, "learning_rate was 0.01, is 0.5"),
        ({"query_size": 5}, "query_size was 6, is 5"),
        ({"warm_start": True}, "warm_start was False, is True"),
        ({"pool": make_pool(59)}, "data.rows was 60, is 59"),
        ({"pool": make_pool(seed=5)}, "data.inputs was '.*', is '.*'; data.labels was '.*', is '.*'"),
        ({"acquisition_kwargs": {"num_perturbations": 4}}, "acquisition.num_perturbations was '3', is '4'\\."),
        (
            {"acquisition": "random", "acquisition_kwargs": None},
            "was 'NoiseStability', is 'RandomSampling'",
        ),
        ({"trainer": {"observable": features}}, "observable was None, is 'features'"),
        ({"trainer": {"model": make_model(type_vocab_size=3)}}, "model.parameters was"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_run_is_refused_with_what_differs(finished: Path, settings: dict[str, Any], difference: str) -> None:
    with pytest.raises(ValueError, match=f"belongs to another run: .*{difference}"):
        make_trainer(finished, num_rounds=1, **settings).train(resume_from_checkpoint=True)


def test_another_evaluation_set_is_refused(finished: Path) -> None:
    for rows in (make_pool(19, seed=1), {"a": make_pool(20, seed=1)}):
        with pytest.raises(ValueError, match="belongs to another run: evaluation"):
            make_trainer(finished, num_rounds=1, trainer={"eval_dataset": rows}).train(resume_from_checkpoint=True)


def test_settings_that_do_not_matter_may_change(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "copy")
    make_trainer(folder, num_rounds=1, logging_steps=3, save_steps=7, run_name="other").train(
        resume_from_checkpoint=True
    )


def test_functions_among_the_settings_are_the_same_in_another_process(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"acquisition": "core_set", "acquisition_kwargs": None, "num_rounds": 1}
    make_trainer(tmp_path, trainer={"observable": probabilities}, **settings).train()
    state = read_state(tmp_path)["fingerprint"]
    assert state["acquisition"] == {"class": "CoreSet", "observable": "features"}
    assert state["observable"] == "probabilities"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "is damaged"),
        (lambda text: "", "is damaged"),
        (lambda text: "[]", "is damaged"),
        (lambda text: text.replace('"round":', '"line":'), "is damaged"),
        (lambda text: text.replace('"seed": 42', '"seed": 43'), "checksum"),
        (lambda text: text.replace('"version": 2', '"version": 99'), "format version 99, this release reads 1 to 2"),
    ],
    ids=["half", "empty", "list", "key", "number", "version"],
)
def test_a_damaged_state_is_refused(finished: Path, tmp_path: Path, damage: Callable[[str], str], message: str) -> None:
    folder = shutil.copytree(finished, tmp_path / "copy")
    path = folder / "active_state.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=f"Cannot resume: .*{message}"):
        make_trainer(folder, num_rounds=1).train(resume_from_checkpoint=True)


def damages(path: Path, every: bool = True) -> Iterator[None]:
    """Damage the file at `path` in one way after the other: six, or gone, half and another number."""
    whole = path.read_bytes()
    path.unlink()
    yield
    others = (b"", *(flipped(whole, at) for at in (0, len(whole) // 3)))
    for content in (whole[: len(whole) // 2], flipped(whole, -1), *(others if every else ())):
        path.write_bytes(content)
        yield
    path.write_bytes(whole)


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("fresh", "every"),
    [
        pytest.param(False, False, id="model"),
        pytest.param(False, True, id="model-in every way", marks=pytest.mark.long),
        pytest.param(True, True, id="model_init-in every way", marks=pytest.mark.long),
    ],
)
def test_damaged_weights_are_refused_or_trained_again(tmp_path: Path, fresh: bool, every: bool) -> None:
    settings: dict[str, Any] = {"fresh": fresh, "num_train_epochs": 1, "save_strategy": "no"}
    whole = start(tmp_path / "whole", **settings)
    whole.train()
    start(tmp_path / "parts", **{**settings, "num_rounds": 1}).train()
    kinds = {"initial": 0, "00": 0}
    for path in sorted((tmp_path / "parts" / "_rounds").rglob("*.*")):
        kind = path.relative_to(tmp_path / "parts" / "_rounds").parts[0]
        for number, _ in enumerate(damages(path, every)):
            copy = shutil.copytree(tmp_path / "parts", tmp_path / f"{kind}-{path.name}-{number}")
            kinds[kind] += 1
            trainer = start(copy, **settings)
            if kind == "initial" and not (path.name == "checksums.json" and number == 0):
                with pytest.raises(ValueError, match=r"Cannot resume: .*_rounds/initial.* (is damaged|are gone)"):
                    trainer.train(resume_from_checkpoint=True)
            else:
                trainer.train(resume_from_checkpoint=True)
                assert_same_outcome(outcome(trainer), outcome(whole))
            shutil.rmtree(copy)
    ways = 6 if every else 3
    assert kinds["00"] == 4 * ways, "weights, output, checksums and the count of labels"
    assert kinds["initial"] == (0 if fresh else 2 * ways)


@pytest.mark.long
def test_damaged_checkpoints_are_passed_over(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    fresh = uninterrupted["fresh"]
    stopped = shutil.copytree(uninterrupted["first round"], tmp_path / "stopped")

    def work() -> None:
        trainer = start(stopped, fresh)
        MOMENTS["while training"](trainer)
        go_on(trainer, stopped)

    assert wait_for(in_child(work)) == -signal.SIGKILL
    files = [path.relative_to(stopped) for path in (stopped / "_rounds" / "01").rglob("*") if path.is_file()]
    assert len(files) == 19, "nine of each checkpoint, and the count of labels"
    folder = tmp_path / "run"
    for path in files:
        shutil.copytree(stopped, folder)
        for _ in damages(folder / path):
            copy = shutil.copytree(folder, tmp_path / "copy")
            trainer = start(copy, fresh)
            trainer.train(resume_from_checkpoint=True)
            assert_same_outcome(outcome(trainer), uninterrupted)
            shutil.rmtree(copy)
        shutil.rmtree(folder)


def test_damaged_weights_that_nothing_is_left_to_make_from_are_refused(tmp_path: Path) -> None:
    start(tmp_path, warm_start=True).train()
    next((tmp_path / "_rounds" / "01" / "model").glob("*.safetensors")).unlink()
    with pytest.raises(ValueError, match=r"weights.safetensors is damaged \(it is not what was written\). Restore"):
        start(tmp_path, warm_start=True, num_rounds=3).train(resume_from_checkpoint=True)
    shutil.rmtree(tmp_path / "_rounds" / "01")
    with pytest.raises(ValueError, match="the weights in .*01/model are gone. Restore the folder"):
        start(tmp_path, warm_start=True, num_rounds=3).train(resume_from_checkpoint=True)


def test_a_training_on_fewer_labels_is_not_taken_for_the_one_on_all(tmp_path: Path) -> None:
    """Killed, resumed for more labels, and killed again before the training on all of them began."""
    unlabeled = make_pool().remove_columns(["label"])

    class Interrupt(ActiveTrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    killed = start(tmp_path, pool=unlabeled, trainer={"callbacks": [Interrupt()]})
    killed.annotate([0, 1, 2, 3], [0, 1, 0, 1])
    with pytest.raises(KeyboardInterrupt):
        killed.fine_tune()
    second = start(tmp_path, pool=unlabeled)
    second.resume()
    second.annotate([10, 11, 12, 13], [0, 1, 0, 1])
    third = start(tmp_path, pool=unlabeled)
    third.resume()
    assert third.fine_tune().global_step == 4, "two epochs of two batches"


def test_only_what_a_resume_needs_is_left(tmp_path: Path) -> None:
    start(tmp_path / "usual").train()
    left = sorted(path.relative_to(tmp_path / "usual" / "_rounds").as_posix() for path in every(tmp_path / "usual"))
    files = ["checksums.json", "train_output.json", "weights.safetensors"]
    kept = [f"01/model/{name}" for name in files]
    assert left == ["01/labels.json", *kept, "initial/checksums.json", "initial/weights.safetensors"]
    start(tmp_path / "all", keep_round_files=True).train()
    assert {path.parent.name for path in every(tmp_path / "all")} >= {"checkpoint-2", "checkpoint-4", "model"}
    assert len(list((tmp_path / "all" / "_rounds").glob("*/model"))) == 2


def every(folder: Path) -> list[Path]:
    return [path for path in (folder / "_rounds").rglob("*") if path.is_file()]


def test_a_missing_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no .*active_state.json. Start without `resume_from_checkpoint`"):
        make_trainer(tmp_path).train(resume_from_checkpoint=True)


def test_another_folder_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set `output_dir` to it"):
        make_trainer(tmp_path).train(resume_from_checkpoint=str(finished))


def test_refusing_leaves_the_trainer_and_the_folder_as_they_were(finished: Path) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    trainer = make_trainer(finished, num_rounds=1, seed=1)
    with pytest.raises(ValueError, match="belongs to another run"):
        trainer.train(resume_from_checkpoint=True)
    assert trainer.pool.num_labeled == 0
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before
