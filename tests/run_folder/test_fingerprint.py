"""Fingerprint: what must be the same for a resumed run, named, and the same in every process."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_run import make_arguments, make_model

from hf_noise_al import Acquisition, Candidates, CoreSet, NoiseStability, Query
from hf_noise_al.observables.base import features
from hf_noise_al.run_folder.differences import refuse_differences
from hf_noise_al.run_folder.fingerprint import describe, fingerprint_defaults, run_fingerprint


def fingerprint(folder: Path, acquisition: Acquisition | None = None, **arguments: object) -> dict[str, object]:
    data = {"rows": 3}
    return run_fingerprint(data, make_arguments(folder, **arguments), make_model(), acquisition or CoreSet(), None)


@pytest.mark.parametrize(
    ("name", "value"), [("seed", 5), ("learning_rate", 0.5), ("query_size", 3), ("warm_start", True)]
)
def test_a_setting_that_matters_differs_under_its_name(tmp_path: Path, name: str, value: object) -> None:
    before, after = fingerprint(tmp_path), fingerprint(tmp_path, **{name: value})
    assert [key for key in before if before[key] != after[key]] == [name]


@pytest.mark.parametrize(("name", "value"), [("num_rounds", 9), ("per_device_eval_batch_size", 3), ("run_name", "x")])
def test_a_setting_that_does_not_matter_is_left_out(tmp_path: Path, name: str, value: object) -> None:
    assert fingerprint(tmp_path) == fingerprint(tmp_path / "elsewhere", **{name: value})


def test_data_model_and_acquisition_are_in_it(tmp_path: Path) -> None:
    found = fingerprint(tmp_path, NoiseStability(num_perturbations=7))
    assert found["data.rows"] == 3
    assert found["model"] == "BertForSequenceClassification"
    assert found["model.parameters"] == sum(parameter.numel() for parameter in make_model().parameters())
    settings = found["acquisition"]
    assert isinstance(settings, dict)
    assert (settings["class"], settings["num_perturbations"]) == ("NoiseStability", "7")


def test_a_setting_that_another_release_of_transformers_has_is_at_its_default_here(tmp_path: Path) -> None:
    defaults = fingerprint_defaults(make_arguments(tmp_path), CoreSet())
    now = fingerprint(tmp_path)
    for name, value in (("train_sampling_strategy", "random"), ("group_by_length", False)):
        assert name in now or defaults[name] == value
    other = {**now, "train_sampling_strategy": "group_by_length"}
    saved = {key: value for key, value in now.items() if key != "train_sampling_strategy"}
    refuse_differences(tmp_path, saved, now, defaults)
    refuse_differences(tmp_path, {**now, "train_sampling_strategy": "random"}, saved, defaults)
    with pytest.raises(ValueError, match="train_sampling_strategy was 'group_by_length', is 'random'"):
        refuse_differences(tmp_path, other, saved, defaults)


def test_functions_are_described_by_name_and_not_by_address() -> None:
    assert describe(CoreSet()) == "CoreSet(observable=features)"
    assert "observable=features" in describe(NoiseStability(observable=features))


def test_an_acquisition_without_fields_is_described_by_its_class() -> None:
    class Own(Acquisition):
        def select(self, candidates: Candidates, query_size: int, generator: torch.Generator) -> Query:
            raise NotImplementedError

    @dataclass(frozen=True)
    class Settled(Own):
        share: float = 0.5

    assert describe(Own()) == "Own"
    assert describe(Settled()) == "Settled(share=0.5)"
