"""ActiveTrainingArguments: defaults, and what is refused before any work starts."""

from pathlib import Path
from typing import Any

import pytest
from tiny_run import make_arguments
from transformers import HfArgumentParser

from hf_noise_al import ActiveTrainingArguments
from hf_noise_al.acquisition import EntropySampling, NoiseStability


def test_defaults(tmp_path: Path) -> None:
    arguments = ActiveTrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    assert (arguments.num_rounds, arguments.initial_size, arguments.query_size) == (10, 100, 100)
    assert (arguments.candidate_size, arguments.initial_selection, arguments.warm_start) == (None, "random", False)
    assert arguments.make_acquisition() == NoiseStability()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_rounds": 0}, "`num_rounds` must be at least 1, got 0"),
        ({"initial_size": 0}, "`initial_size` must be at least 1, got 0"),
        ({"query_size": -5}, "`query_size` must be at least 1, got -5"),
        ({"num_rounds": 2.5}, r"`num_rounds` must be a whole number, got 2\.5\. Set it to an int of at least 1"),
        ({"initial_size": True}, "`initial_size` must be a whole number, got True"),
        ({"query_size": "3"}, "`query_size` must be a whole number, got '3'"),
        ({"candidate_size": 20.0}, r"`candidate_size` must be a whole number, got 20\.0"),
        ({"per_device_train_batch_size": 0}, "`per_device_train_batch_size` must be at least 1, got 0"),
        ({"per_device_eval_batch_size": -1}, "`per_device_eval_batch_size` must be at least 1, got -1"),
        ({"acquisition_kwargs": {"num_perturbations": "3"}}, "`num_perturbations` must be a whole number, got '3'"),
        ({"candidate_size": 5, "query_size": 6}, "Cannot query 6 of 5 candidates. Raise `candidate_size`"),
        ({"initial_selection": "best"}, "Unknown `initial_selection` 'best'. Use one of random, stratified, balanced"),
        ({"acquisition": "noise"}, "Unknown `acquisition` 'noise'. Use one of noise_stability, random"),
        ({"acquisition_kwargs": {"scale": 1}}, "'noise_stability' has no setting 'scale'. It has noise_scale"),
        ({"acquisition_kwargs": "scale"}, "`acquisition_kwargs` must be a JSON object, got 'scale'"),
        ({"acquisition": "random", "acquisition_kwargs": {"scale": 1}}, "no setting 'scale'. It has none"),
        ({"acquisition_kwargs": {"noise_scale": -1.0}}, "`noise_scale` must be a positive finite number, got -1.0"),
        ({"acquisition_kwargs": {"num_perturbations": 0}}, "`num_perturbations` must be at least 1, got 0"),
        ({"acquisition_kwargs": {"selection": "best"}}, "Unknown selection 'best'"),
        (
            {"acquisition_kwargs": {"noise_scale": 1e30}},
            r"at most 1\.0, got 1e\+30: it is relative, .* uses 1e-3",
        ),
        (
            {"acquisition_kwargs": {"num_projections": 10**9}},
            "`num_projections` must be at most 1,000,000, got 1,000,",
        ),
        ({"acquisition_kwargs": {"num_perturbations": 10**9}}, "`num_perturbations` must be at most 1,000,000"),
        ({"acquisition_kwargs": {"max_feature_dim": 10**9}}, "`max_feature_dim` must be at most 1,000,000"),
        ({"acquisition_kwargs": {"num_output_projections": 10**9}}, "`num_output_projections` must be at most 1,000"),
        ({"acquisition": "bald", "acquisition_kwargs": {"num_samples": 10**9}}, "`num_samples` must be at most 1,000"),
        ({"bf16_full_eval": True}, "`bf16_full_eval` is not supported: it converts the model in place"),
        ({"fp16_full_eval": True}, "`fp16_full_eval` is not supported: it converts the model in place"),
        ({"report_to": ["trackio"]}, "Trackio starts a new run at each round .* Set `run_name`"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_arguments(tmp_path, **arguments)


def test_trackio_with_a_run_name_is_accepted(tmp_path: Path) -> None:
    assert make_arguments(tmp_path, report_to=["trackio"], run_name="mine").run_name == "mine"


def test_acquisition_settings_come_from_a_dict_or_json(tmp_path: Path) -> None:
    for given in ({"num_perturbations": 7}, '{"num_perturbations": 7}'):
        assert make_arguments(tmp_path, acquisition_kwargs=given).make_acquisition() == NoiseStability(
            num_perturbations=7
        )
    assert make_arguments(tmp_path, acquisition="entropy", acquisition_kwargs=None).make_acquisition() == (
        EntropySampling()
    )


def test_the_parser_of_transformers_reads_them(tmp_path: Path) -> None:
    words = ["--output_dir", str(tmp_path), "--use_cpu", "--candidate_size", "40", "--query_size", "20", "--report_to"]
    words += ["none", "--warm_start", "--acquisition_kwargs", '{"num_perturbations": 5, "noise_scale": 0.01}']
    (arguments,) = HfArgumentParser(ActiveTrainingArguments).parse_args_into_dataclasses(words)
    assert (arguments.candidate_size, arguments.query_size, arguments.warm_start) == (40, 20, True)
    assert arguments.make_acquisition() == NoiseStability(num_perturbations=5, noise_scale=0.01)
    (from_dict,) = HfArgumentParser(ActiveTrainingArguments).parse_dict(
        {
            "output_dir": str(tmp_path),
            "use_cpu": True,
            "report_to": "none",
            "acquisition_kwargs": {"selection": "top_k"},
        }
    )
    assert from_dict.make_acquisition() == NoiseStability(selection="top_k")


def test_the_parser_shows_help_for_every_field() -> None:
    shown = HfArgumentParser(ActiveTrainingArguments).format_help()
    for name in ("num_rounds", "initial_size", "query_size", "candidate_size", "acquisition_kwargs", "label_column"):
        assert f"--{name}" in shown
