"""Augmentation: what is trained on changes as asked, nothing else does, and a run can be repeated and resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_images import image_trainer, make_images, prepare_images
from tiny_run import assert_same_outcome, outcome
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import TrainerCallback

import hf_noise_al.rounds.training
from hf_noise_al.augmentation import ImageAugmentation, crop_at_random, flip_at_random
from hf_noise_al.processes.generators import named_generator
from hf_noise_al.settings.arguments import DataArguments
from hf_noise_al.settings.recipe import InvalidArgument
from hf_noise_al.tasks import TASKS
from hf_noise_al.tasks.images.image_classification import image_augmentation
from hf_noise_al.testing import generator

BOTH = ImageAugmentation(flip=True, crop_padding=2)
SETTINGS: dict[str, Any] = {"num_rounds": 2, "num_train_epochs": 2, "acquisition_kwargs": {"num_projections": 16}}


def pictures(count: int = 64) -> Tensor:
    """Images whose pixels are all different: (count, 2, 5, 6)."""
    return torch.arange(1.0, count * 60 + 1).view(count, 2, 5, 6)


# ---- one batch -----------------------------------------------------------------------------------------------------


def test_flip_mirrors_about_half_of_the_images_from_left_to_right() -> None:
    images = pictures()
    flipped = flip_at_random(images, generator())
    mirrored = [torch.equal(after, before.flip(2)) for before, after in zip(images, flipped, strict=True)]
    untouched = [torch.equal(after, before) for before, after in zip(images, flipped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, untouched, strict=True))
    assert 20 < sum(mirrored) < 44


def test_crop_cuts_every_window_of_the_padded_image() -> None:
    images, seen = pictures(200), set()
    for before, after in zip(images, crop_at_random(images, 1, generator()), strict=True):
        padded = F.pad(before, (1, 1, 1, 1))
        places = [(y, x) for y in range(3) for x in range(3) if torch.equal(padded[:, y : y + 5, x : x + 6], after)]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == 9


def test_images_are_changed_in_a_copy_and_other_inputs_are_handed_on() -> None:
    images = pictures(8)
    inputs = {"pixel_values": images.clone(), "labels": torch.arange(8)}
    changed = BOTH(inputs, generator())
    assert torch.equal(inputs["pixel_values"], images) and changed["labels"] is inputs["labels"]
    assert changed["pixel_values"].shape == images.shape and not torch.equal(changed["pixel_values"], images)


def test_equal_generators_give_equal_changes_and_the_global_random_state_stays() -> None:
    before = torch.get_rng_state()
    first, second, other = (BOTH({"pixel_values": pictures()}, generator(seed))["pixel_values"] for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_batch_of_every_step_round_and_seed_has_its_own_generator() -> None:
    keys = [(0, "0/0/0"), (1, "0/0/0"), (0, "1/0/0"), (0, "0/1/0"), (0, "0/0/1"), (1, "1/0/0")]
    drawn = [torch.randint(2**40, (1,), generator=named_generator(*key)).item() for key in keys]
    assert len(set(drawn)) == len(keys)
    assert drawn[0] == torch.randint(2**40, (1,), generator=named_generator(*keys[0])).item()


# ---- in a run ------------------------------------------------------------------------------------------------------


def seen_by(model: nn.Module) -> dict[bool, list[Tensor]]:
    """Record the images that reach `model`, by whether it trains."""
    seen: dict[bool, list[Tensor]] = {True: [], False: []}

    def remember(module: nn.Module, args: Any, kwargs: Any) -> None:
        seen[module.training].extend(kwargs["pixel_values"].detach().clone())

    model.register_forward_pre_hook(remember, with_kwargs=True)
    return seen


@pytest.mark.parametrize("estimator", ["gradient_sketch", "finite_difference"])
def test_only_training_sees_changed_images(tmp_path: Path, estimator: str) -> None:
    trainer = image_trainer(tmp_path, BOTH, num_rounds=2, acquisition_kwargs={"estimator": estimator})
    plain = {
        image.numpy().tobytes()
        for part in (trainer.data.inputs, trainer.eval_dataset)
        for image in torch.tensor(part["pixel_values"][:])
    }
    seen = seen_by(trainer.model)
    trainer.train()
    found = {image.numpy().tobytes() for image in seen[False]}
    assert found <= plain
    assert 12 + 32 <= len(found) <= 12 + 32 + 2, "measured on, looked at in a query, and tried before the first round"
    changed = [image for image in seen[True] if image.numpy().tobytes() not in plain]
    assert len(changed) > len(seen[True]) / 2


def test_a_run_is_the_same_with_the_same_seed_and_another_with_another_or_without(tmp_path: Path) -> None:
    def run(name: str, augmentation: Any = BOTH, **settings: Any) -> dict[str, Any]:
        trainer = image_trainer(tmp_path / name, augmentation, **SETTINGS, **settings)
        trainer.train()
        return outcome(trainer)

    first = run("first")
    assert_same_outcome(run("again"), first)
    name = next(iter(first["weights"]))
    assert not torch.equal(run("plain", None)["weights"][name], first["weights"][name])


class Stop(TrainerCallback):
    """Interrupt the second round after three steps."""

    trainings = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainings += 1

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainings == 2 and state.global_step == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path: Path, workers: int) -> None:
    settings = {
        **SETTINGS,
        "save_strategy": "steps",
        "save_steps": 2,
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 2,
        "dataloader_num_workers": workers,
    }
    whole = image_trainer(tmp_path / "whole", BOTH, **settings)
    whole.train()
    stopped = image_trainer(tmp_path / "stopped", BOTH, **settings)
    stopped.add_callback(Stop())
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = image_trainer(tmp_path / "stopped", BOTH, **settings)
    resumed.train(resume_from_checkpoint=True)
    assert_same_outcome(outcome(resumed), outcome(whole))


def test_a_run_is_not_resumed_with_another_augmentation(tmp_path: Path) -> None:
    image_trainer(tmp_path, BOTH, num_rounds=1).train()
    with pytest.raises(ValueError, match=r"augmentation was 'ImageAugmentation\(flip=True, crop_padding=2\)', is None"):
        image_trainer(tmp_path, None, num_rounds=1).train(resume_from_checkpoint=True)


def test_processes_take_the_changes_that_one_process_takes_by_accumulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, str]] = []
    training = hf_noise_al.rounds.training
    monkeypatch.setattr(training, "named_generator", lambda *key: asked.append(key) or named_generator(*key))
    settings: dict[str, Any] = {"num_rounds": 1, "num_train_epochs": 1, "per_device_train_batch_size": 2}
    image_trainer(tmp_path / "one", BOTH, gradient_accumulation_steps=2, **settings).train()
    one = asked.copy()
    assert one == [(42, f"0/{step}/{batch}") for step in range(2) for batch in range(2)]
    found = []
    for rank in range(2):
        trainer = image_trainer(tmp_path / str(rank), BOTH, **settings)
        arguments = type("TwoProcesses", (type(trainer.args),), {"world_size": 2, "process_index": rank})
        trainer.args.__class__ = arguments
        for step in range(2):
            asked.clear()
            trainer.state.global_step = step
            trainer._training.next_batch_generator()
            found += asked
    assert sorted(found) == sorted(one)


# ---- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (None, None),
        (["flip"], ImageAugmentation(flip=True)),
        (["crop"], ImageAugmentation(crop_padding=3)),
        (["crop", "flip"], ImageAugmentation(flip=True, crop_padding=3)),
    ],
)
def test_settings_name_the_augmentation(words: list[str] | None, expected: ImageAugmentation | None) -> None:
    ready = prepare_images(make_images(4), make_images(2))
    assert image_augmentation(DataArguments(dataset_name="x", augmentation=words, crop_padding=3), ready) == expected


def test_more_padding_than_image_is_refused() -> None:
    ready = prepare_images(make_images(4), make_images(2))
    with pytest.raises(ValueError, match="`crop_padding: 8` can move images of 8 x 8 pixels out of sight. Lower it"):
        image_augmentation(DataArguments(dataset_name="x", augmentation=["crop"], crop_padding=8), ready)
    assert image_augmentation(DataArguments(dataset_name="x", crop_padding=8), ready) is None


def test_unknown_words_and_tasks_without_augmentation_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="Unknown `augmentation` flop. Did you mean `flip`"):
        DataArguments(dataset_name="x", augmentation=["flop"])
    with pytest.raises(InvalidArgument, match="`crop_padding` is 0. Set it to at least 1"):
        DataArguments(dataset_name="x", crop_padding=0)
    ready = prepare_images(make_images(4), make_images(2))
    asked = DataArguments(dataset_name="x", augmentation=["flip"])
    with pytest.raises(ValueError, match="is for images to classify: `task: text_classification` has none"):
        TASKS["text_classification"].augmentation(asked, ready)
    assert TASKS["text_classification"].augmentation(DataArguments(dataset_name="x"), ready) is None
