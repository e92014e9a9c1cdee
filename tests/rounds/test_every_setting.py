"""Every switch and every choice among the settings, those of the installed transformers too: it works or is refused."""

import dataclasses
import enum
import os
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import accuracy, collate, make_arguments, make_model, make_pool
from transformers import EvalPrediction

from hf_noise_al import ActiveTrainer, ActiveTrainingArguments

FIELDS = {field.name: field for field in dataclasses.fields(ActiveTrainingArguments)}
HINTS = typing.get_type_hints(ActiveTrainingArguments)

NOT_TRIED_HERE = {
    "push_to_hub": "makes a repository on the Hub when the trainer is made: there is no network",
    "fsdp": "shards over GPUs or the like, and accelerate refuses it where there are none: see test_sharding",
}
"""Switches that no machine of the tests can try -> why."""

TAKES_LONG = {
    "torch_compile": "compiles for half a minute",
    "dataloader_persistent_workers": "its workers take ten seconds to stop",
}

SAVES = {"save_strategy": "steps", "save_steps": 1}
MEASURES = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "accuracy"}
BESIDE: dict[tuple[str, object], dict[str, Any]] = {
    ("load_best_model_at_end", True): {**SAVES, **MEASURES},
    ("save_strategy", "best"): MEASURES,
    ("save_only_model", True): SAVES,
    ("save_on_each_node", True): SAVES,
    ("greater_is_better", False): MEASURES,
    ("eval_on_start", True): MEASURES,
    ("dataloader_persistent_workers", True): {"dataloader_num_workers": 1},
    ("dataloader_drop_last", True): {"per_device_eval_batch_size": 2},
    ("lr_scheduler_type", "reduce_lr_on_plateau"): MEASURES,
    ("lr_scheduler_type", "cosine_with_min_lr"): {"lr_scheduler_kwargs": {"min_lr": 1e-3}},
    ("lr_scheduler_type", "warmup_stable_decay"): {"lr_scheduler_kwargs": {"num_decay_steps": 1}},
}
"""Settings without which another one does nothing, or is refused: it is tried beside them as well."""

RUNS_THE_MODEL = (
    "acquisition checkpointing columns compile cpu dataloader determinism 16 32 label liger neftune".split()
)
"""Parts of the names of settings that change how batches come to a model or run through it: queries are by noise."""


def values_of(field: "dataclasses.Field[Any]") -> list[Any]:
    """Return what a switch or a choice can be beside its default; nothing for numbers and free texts."""
    hint = HINTS[field.name]
    kinds = [*(typing.get_args(hint) or (hint,))]
    kinds += [inner for kind in kinds if typing.get_origin(kind) is list for inner in typing.get_args(kind)]
    found: list[Any] = [value for kind in kinds if kind is bool for value in (True, False)]
    found += [each.value for kind in kinds if isinstance(kind, enum.EnumMeta) for each in kind]
    found += field.metadata.get("choices") or ()
    default = getattr(field.default, "value", field.default)
    return [value for value in dict.fromkeys(found) if value != default or type(value) is not type(default)]


CASES = [
    pytest.param(name, value, beside, marks=pytest.mark.long if name in TAKES_LONG else (), id=f"{name}={value}{more}")
    for name, field in FIELDS.items()
    if name not in NOT_TRIED_HERE
    for value in values_of(field)
    for beside, more in (({}, ""), (BESIDE.get((name, value)), "-beside-others"))
    if beside is not None
]


class Counting(ActiveTrainer):
    """Counts the batches that were trained on."""

    batches = 0

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        self.batches += 1
        return super().training_step(*arguments, **options)


@pytest.fixture(autouse=True)
def own_switches() -> Iterator[None]:
    """Put back what settings such as `full_determinism` change for the whole process."""
    before = dict(os.environ)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def measure(prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
    """Measure as `accuracy` does, also the tensors of one batch, which `batch_eval_metrics` gives."""
    arrays = [each.numpy() if isinstance(each, torch.Tensor) else each for each in tuple(prediction)[:2]]
    return accuracy(EvalPrediction(*arrays))


def half_labeled() -> Any:
    pool = make_pool(12)
    labels = [label if row < 8 else None for row, label in enumerate(pool["label"])]
    return pool.remove_columns("label").add_column("label", labels)


POOL, EVALUATION = half_labeled(), make_pool(4, seed=1)


def run_a_round(folder: Path, settings: dict[str, Any]) -> ActiveTrainer | None:
    """Train a round and query; return None where that was refused before a batch was trained on."""
    by_noise = any(part in name for name in settings for part in RUNS_THE_MODEL)
    quick = {"num_rounds": 2, "max_steps": 1, "query_size": 2}
    quick |= {"acquisition_kwargs": {"num_perturbations": 1}} if by_noise else {"acquisition": "entropy"}
    trainer = None
    try:
        trainer = Counting(
            model=make_model(),
            args=make_arguments(folder, **{"acquisition_kwargs": None, **quick, **settings}),
            train_dataset=POOL,
            eval_dataset=EVALUATION,
            data_collator=collate,
            compute_metrics=measure,
        )
        trainer.fine_tune()
        trainer.query()
    except (ValueError, ImportError) as error:
        if trainer is not None and trainer.batches:
            raise AssertionError(f"refused after {trainer.batches} batches: {error}") from error
        assert str(error)
        return None
    return trainer


@pytest.mark.parametrize(("name", "value", "beside"), CASES)
def test_a_setting_works_or_is_refused_before_training(
    tmp_path: Path, name: str, value: object, beside: dict[str, Any]
) -> None:
    trainer = run_a_round(tmp_path, {**beside, name: value})
    if trainer is not None:
        assert trainer.batches == 1
        assert 0 <= trainer.history[0].metrics["eval_accuracy"] <= 1
        assert len(trainer.query().indices) == 2


def test_the_tables_name_settings_that_there_are() -> None:
    for name in (*NOT_TRIED_HERE, *TAKES_LONG):
        assert name in FIELDS, name
    assert all(any(part in name for name in FIELDS) for part in RUNS_THE_MODEL)
    assert {name for name, _ in BESIDE} <= FIELDS.keys()
    for name, value in BESIDE:
        assert value in values_of(FIELDS[name]), (name, value)


def test_switches_and_choices_are_found_by_their_types() -> None:
    assert values_of(FIELDS["warm_start"]) == [True]
    assert values_of(FIELDS["gradient_checkpointing"])[0] is True
    assert values_of(FIELDS["eval_strategy"]) == ["steps", "epoch"]
    assert "tpu_metrics_debug" in values_of(FIELDS["debug"])
    assert values_of(FIELDS["initial_selection"]) == ["stratified", "balanced"]
    assert values_of(FIELDS["learning_rate"]) == values_of(FIELDS["label_column"]) == []
    assert len(CASES) > 100


def test_what_fails_late_is_told_from_what_is_refused(tmp_path: Path) -> None:
    assert run_a_round(tmp_path / "refused", {"num_rounds": 0}) is None

    class Late(Counting):
        def query(self, *arguments: Any) -> Any:
            raise ValueError("late")

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(globals(), "Counting", Late)
        with pytest.raises(AssertionError, match="refused after 1 batches: late"):
            run_a_round(tmp_path / "late", {})
