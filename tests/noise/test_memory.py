"""Rows that no memory of this machine can hold are refused; where nobody knows how much it has, none are."""

import os
from pathlib import Path

import pytest
import torch
from tiny_run import make_trainer
from torch import nn

from hf_noise_al.acquisition import Candidates, NoiseStability
from hf_noise_al.noise import memory
from hf_noise_al.noise.memory import refuse_beyond_memory


@pytest.fixture
def megabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine have a megabyte."""
    monkeypatch.setattr(memory, "_total_memory", lambda: 10**6)


@pytest.mark.usefixtures("megabyte")
def test_rows_that_just_fit_pass_and_one_more_is_refused_with_the_numbers() -> None:
    refuse_beyond_memory(250, 1000, "Lower it.")
    with pytest.raises(
        ValueError, match=r"of 251,000 rows, 1,000 numbers each, take 1\.0 GB .* has 0\.0 GB of memory\. Lower it\."
    ):
        refuse_beyond_memory(251_000, 1000, "Lower it.")
    with pytest.raises(ValueError, match="251 rows"):
        refuse_beyond_memory(251, 1000, "Lower it.")


@pytest.mark.parametrize("error", [AttributeError, ValueError, OSError])
def test_nothing_is_refused_where_the_system_does_not_say(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def unknown(name: str) -> int:
        raise error(name)

    monkeypatch.setattr(os, "sysconf", unknown, raising=False)
    refuse_beyond_memory(10**12, 10**12, "Lower it.")


def test_this_machine_cannot_hold_a_trillion_rows() -> None:
    with pytest.raises(ValueError, match="this machine has"):
        refuse_beyond_memory(10**12, 10**6, "Lower it.")


@pytest.mark.usefixtures("megabyte")
def test_a_sketch_too_wide_for_the_pool_is_refused_when_the_trainer_is_made(tmp_path: Path) -> None:
    wide = {"num_projections": 10**4, "num_perturbations": 8}  # 60 rows of 40 kB
    with pytest.raises(ValueError, match=r"features of 60 rows, 10,000 numbers each.*Lower `num_projections`"):
        make_trainer(tmp_path, acquisition_kwargs=wide)
    make_trainer(tmp_path, acquisition_kwargs=wide, candidate_size=20)
    make_trainer(tmp_path, acquisition_kwargs={**wide, "estimator": "finite_difference"})


@pytest.mark.usefixtures("megabyte")
@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"estimator": "gradient_sketch", "num_projections": 10**5}, "Lower `num_projections`"),
        ({"estimator": "finite_difference", "num_perturbations": 10**4, "max_feature_dim": 10**5}, "`max_feature_dim`"),
    ],
)
def test_rows_too_wide_are_refused_before_they_are_made(settings: dict[str, object], remedy: str) -> None:
    model, inputs = nn.Linear(4, 3), torch.randn(12, 4)
    passes = []

    def observe(observable: object, description: str = "") -> torch.Tensor:
        passes.append(description)
        return observable(model, {"input": inputs}).detach()  # type: ignore[operator]

    candidates = Candidates(model, 12, observe, lambda model, inputs: model(**inputs))
    with pytest.raises(ValueError, match=f"features of 12 rows.*{remedy}"):
        NoiseStability(**settings).select(candidates, 2, torch.Generator())  # type: ignore[arg-type]
    assert passes in ([], ["clean pass"])
