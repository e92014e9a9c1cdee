"""What tells two runs apart: by entry, with the default where a release did not know the entry."""

from pathlib import Path
from typing import Any

import pytest

from hf_noise_al.run_folder.differences import OtherRun, refuse_differences

ACQUISITION = {"class": "NoiseStability", "noise_scale": "0.001", "selection": "'k_center'"}
NOW = {"seed": 42, "optim": "adamw", "acquisition": ACQUISITION}
DEFAULTS = {"seed": 42, "optim": "adamw", "acquisition": {"noise_scale": "0.001", "selection": "'k_center'"}}


@pytest.mark.parametrize(
    "saved",
    [
        NOW,
        {"seed": 42, "acquisition": ACQUISITION},
        {**NOW, "acquisition": {"class": "NoiseStability"}},
        {**NOW, "acquisition": "NoiseStability(noise_scale=0.001)"},
        {**NOW, "acquisition": "NoiseStability(noise_scale=0.001, selection='k_center')"},
        {**NOW, "group_by_length": False, "warmup_ratio": None},  # settings that upstream dropped, at rest
        {**NOW, "acquisition": {**ACQUISITION, "noise_scale": "1e-3"}},
    ],
    ids=["same", "argument", "setting", "first version", "first version, whole", "dropped", "number"],
)
def test_what_a_release_did_not_know_had_its_default(saved: dict[str, Any]) -> None:
    refuse_differences(Path("state"), saved, NOW, DEFAULTS)


@pytest.mark.parametrize(
    ("saved", "now", "difference"),
    [
        ({**NOW, "seed": 1}, NOW, "seed was 1, is 42"),
        (
            {**NOW, "evaluation": {"content": "1e999"}},
            {**NOW, "evaluation": {"content": "2e999"}},
            "evaluation.content was '1e999', is '2e999'",
        ),
        ({**NOW, "run_id": "1e999"}, {**NOW, "run_id": "2e999"}, "run_id was '1e999', is '2e999'"),
        ({"seed": 42, "acquisition": ACQUISITION}, {**NOW, "optim": "sgd"}, "optim was 'adamw', is 'sgd'"),
        (
            {**NOW, "acquisition": "NoiseStability(noise_scale=0.001)"},
            {**NOW, "acquisition": {**ACQUISITION, "selection": "'top_k'"}},
            "acquisition.selection was \"'k_center'\", is \"'top_k'\"",
        ),
        (
            {**NOW, "acquisition": "CoreSet(observable=features)"},
            NOW,
            "acquisition was 'CoreSet', is 'NoiseStability'",
        ),
        ({**NOW, "acquisition": "Own(<object"}, NOW, "acquisition was 'Own(<object', is 'NoiseStability'"),
        ({**NOW, "warmup_ratio": 0.1}, NOW, "warmup_ratio was 0.1, is None"),
        ({**NOW, "evaluation": {"rows": 3}}, {**NOW, "evaluation": {"rows": 4}}, "evaluation.rows was 3, is 4"),
    ],
)
def test_another_run_is_refused_with_what_differs(saved: dict[str, Any], now: dict[str, Any], difference: str) -> None:
    with pytest.raises(OtherRun) as refusal:
        refuse_differences(Path("state"), saved, now, DEFAULTS)
    assert f"state belongs to another run: {difference}. Use the same data" in str(refusal.value)


def test_an_entry_without_default_says_nothing_of_a_run_that_lacks_it() -> None:
    refuse_differences(Path("state"), NOW, {**NOW, "evaluation": {"rows": 3}}, DEFAULTS)
