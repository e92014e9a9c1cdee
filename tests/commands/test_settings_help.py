"""The help lists every setting, ours first."""

import dataclasses

from hf_noise_al import ActiveTrainingArguments
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


def test_ours_come_before_those_of_transformers() -> None:
    text = describe_settings("run")
    ours = [text.index(f"--{name} ") for name in ("model_name_or_path", "dataset_name", "query_size", "seeds")]
    assert max(ours) < text.index("--learning_rate ")


def test_every_setting_of_ours_is_explained() -> None:
    upstream = {item.name for item in dataclasses.fields(ActiveTrainingArguments.__base__)}
    for cls in (ModelArguments, DataArguments, RunArguments):
        for item in dataclasses.fields(cls):
            assert item.name in upstream or item.metadata.get("help"), item.name
