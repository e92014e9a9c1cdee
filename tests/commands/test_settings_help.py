"""The help lists every setting, ours first."""

import dataclasses

from hf_noise_al import ActiveTrainingArguments
from hf_noise_al.acquisition import ACQUISITIONS
from hf_noise_al.annotators import ANNOTATORS
from hf_noise_al.commands.settings_help import describe_settings
from hf_noise_al.settings.arguments import DataArguments, ModelArguments, RunArguments
from hf_noise_al.tasks import TASKS


def test_every_setting_is_listed() -> None:
    text = describe_settings("run")
    for cls in (ModelArguments, DataArguments, RunArguments):
        for item in dataclasses.fields(cls):
            assert not item.init or item.name in text, item.name


def test_the_tasks_are_listed() -> None:
    text = " ".join(describe_settings("run").split())
    assert f"What is learned: {', '.join(TASKS)}." in text


def test_every_setting_of_every_acquisition_is_listed_with_its_type_help_and_default() -> None:
    text = " ".join(describe_settings("run").split())
    assert (
        "With `--acquisition noise_stability`: --acquisition.noise_scale float "
        "Length of the noise on each tensor relative to the tensor's. [0.001]"
    ) in text
    assert "--acquisition.normalize_rows true | false Scale every" in text
    assert "--acquisition.autocast bfloat16 | none Lower" in text
    assert "--acquisition.observable (in Python) Where distances are measured, a function. [features]" in text
    assert "With `--acquisition random`: no settings." in text
    for name, acquisition in ACQUISITIONS.items():
        assert f"With `--acquisition {name}`: " in text
        for item in dataclasses.fields(acquisition):  # type: ignore[arg-type]
            assert f"--acquisition.{item.name} " in text and item.metadata["help"] in text, item.name


def test_registries_are_listed_by_name() -> None:
    text = " ".join(describe_settings("run").split())
    assert f"How queries are chosen: {', '.join(ACQUISITIONS)}." in text
    assert f"{', '.join(ANNOTATORS)}, or a name that another package brings" in text


def test_ours_come_before_those_of_transformers() -> None:
    text = describe_settings("run")
    ours = [text.index(f"--{name} ") for name in ("model_name_or_path", "dataset_name", "query_size", "seeds")]
    assert max(ours) < text.index("--learning_rate ")


def test_every_setting_of_ours_is_explained() -> None:
    upstream = {item.name for item in dataclasses.fields(ActiveTrainingArguments.__base__)}
    for cls in (ModelArguments, DataArguments, RunArguments):
        for item in dataclasses.fields(cls):
            assert item.name in upstream or item.metadata.get("help"), item.name
