"""Noise stability: what is chosen by deviations, and which settings are refused."""

import math
import re
from collections.abc import Mapping
from typing import Any, get_args

import pytest
import torch
from tiny_perceptron import finite_differences, inputs, log_of, perceptron
from torch import Tensor, nn

from hf_noise_al.acquisition import NoiseStability
from hf_noise_al.selection.checks import row_norms
from hf_noise_al.selection.choosing import SelectionName, select_rows
from hf_noise_al.selection.k_center import k_center_greedy
from hf_noise_al.testing import calls, candidates_of, generator

# ---- deviations --------------------------------------------------------------------------------------------------


def test_scores_are_lengths_of_deviations_and_the_first_pick_is_the_longest() -> None:
    candidates = candidates_of(perceptron(), inputs())
    method = finite_differences(num_perturbations=4)
    query = method.select(candidates, 3, generator())
    torch.testing.assert_close(query.scores, method.deviations(candidates, generator()).norm(dim=1))
    assert query.indices[0] == query.scores.argmax()


# ---- precision ---------------------------------------------------------------------------------------------------


# ---- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selection", get_args(SelectionName))
@pytest.mark.parametrize("normalize_rows", [False, True])
def test_selections_choose_among_the_deviations(selection: SelectionName, normalize_rows: bool) -> None:
    candidates = candidates_of(perceptron(), inputs())
    method = finite_differences(num_perturbations=3, selection=selection, normalize_rows=normalize_rows)
    source = generator()
    rows = method.deviations(candidates, source)
    unit = rows / rows.norm(dim=1, keepdim=True)
    if normalize_rows and selection == "k_center":  # unit rows tie at the origin: it starts at the highest score
        expected = k_center_greedy(unit, 4, first=int(row_norms(rows).argmax()))
    else:
        expected = select_rows(selection, unit if normalize_rows else rows, 4, source)
    query = method.select(candidates, 4, generator())
    assert torch.equal(query.indices, expected)
    torch.testing.assert_close(query.scores, row_norms(rows))


def test_top_k_is_magnitude_without_direction() -> None:
    query = finite_differences(num_perturbations=3, selection="top_k").select(
        candidates_of(perceptron(), inputs()), 5, generator()
    )
    assert torch.equal(query.indices, query.scores.argsort(descending=True)[:5])


@pytest.mark.parametrize("normalize_rows", [False, True])
def test_labeled_examples_are_centers_where_asked(normalize_rows: bool) -> None:
    rows = inputs()
    first = int(
        finite_differences(num_perturbations=3).select(candidates_of(perceptron(), rows), 1, generator()).indices
    )
    method = finite_differences(num_perturbations=3, labeled_as_centers=True, normalize_rows=normalize_rows)
    covered = candidates_of(perceptron(), rows, labeled=rows[first : first + 1])
    query = method.select(covered, 8, generator())
    assert query.indices[-1] == first  # at distance zero from a center
    alone = method.select(candidates_of(perceptron(), rows), 8, generator())
    assert not torch.equal(alone.indices, query.indices)


def test_parameter_filter_is_used() -> None:
    candidates = candidates_of(perceptron(), inputs())
    found = finite_differences(num_perturbations=2, parameter_filter="^3").deviations(candidates, generator())
    assert not torch.equal(found, finite_differences(num_perturbations=2).deviations(candidates, generator()))
    with pytest.raises(ValueError, match="matches no parameter of Sequential"):
        finite_differences(parameter_filter="no_such").select(candidates, 2, generator())
    assert calls(candidates) == 2 * 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_scale": 0.0}, "`noise_scale` must be a positive finite number, got 0.0"),
        ({"noise_scale": math.nan}, "`noise_scale` must be a positive finite number, got nan"),
        ({"noise_scale": "big"}, "`noise_scale` must be a positive finite number, got 'big'"),
        ({"noise_scale": True}, "`noise_scale` must be a positive finite number, got True"),
        ({"num_perturbations": 0}, "`num_perturbations` must be at least 1, got 0"),
        ({"num_perturbations": 2.5}, r"`num_perturbations` must be a whole number, got 2\.5\. Set it to an int of"),
        ({"num_perturbations": "3"}, "`num_perturbations` must be a whole number, got '3'"),
        ({"num_perturbations": True}, "`num_perturbations` must be a whole number, got True"),
        ({"observable": "features"}, "`observable` must be a function of the model and its inputs, got 'features'"),
        (
            {"selection": "k_centre"},
            "Unknown selection 'k_centre'. Use one of k_center, k_means_plus_plus, k_dpp, top_k",
        ),
        ({"selection": "top_k", "labeled_as_centers": True}, "has no meaning with selection 'top_k'"),
        ({"selection": "k_dpp", "labeled_as_centers": True}, "has no meaning with selection 'k_dpp'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finite_differences(**settings)


def test_a_perturbed_output_that_is_not_finite_is_refused_with_its_row() -> None:
    model = perceptron()
    clean = model[0].weight.detach().clone()

    def breaks(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        rows: Tensor = model(**inputs)
        if not torch.equal(model[0].weight, clean):
            rows[5] = math.nan
        return rows

    with pytest.raises(ValueError, match="row 5 holds NaN or infinity"):
        finite_differences(num_perturbations=2, observable=breaks).select(
            candidates_of(model, inputs()), 2, generator()
        )
    assert torch.equal(model[0].weight, clean)


@pytest.mark.parametrize("settings", [{"noise_scale": 1e-300}, {"noise_scale": 1e-300, "estimator": "gradient_sketch"}])
def test_says_so_where_nothing_moves(settings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    candidates = candidates_of(perceptron().float(), inputs().float())
    assert "No candidate's outputs moved, so the choice means nothing. Is the `noise_scale` 1e-300" in log_of(
        caplog, candidates, **settings
    )
    caplog.clear()
    assert "outputs moved" not in log_of(caplog, candidates)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labeled_as_centers": "no"}, "`labeled_as_centers` must be true or false, got 'no'"),
        ({"normalize_rows": 1}, "`normalize_rows` must be true or false, got 1"),
        ({"one_by_one": "off"}, "`one_by_one` must be true or false"),
        ({"parameter_filter": None}, "`parameter_filter` must be a text, got None"),
    ],
)
def test_settings_of_another_type_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoiseStability(**settings)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"estimator": "fast"}, "Unknown estimator 'fast'. Use one of auto, gradient_sketch, finite_difference"),
        ({"num_projections": 0}, "`num_projections` must be at least 1, got 0"),
        ({"num_output_projections": 1.5}, "`num_output_projections` must be a whole number, got 1.5"),
        ({"max_feature_dim": 0}, "`max_feature_dim` must be at least 1, got 0"),
        ({"autocast": "float16", "estimator": "gradient_sketch"}, "Unknown autocast 'float16'. Use one of bfloat16"),
        ({"autocast": "bfloat16"}, "`autocast` works with estimator='gradient_sketch' alone: finite differences"),
        ({"autocast": "bfloat16", "estimator": "finite_difference"}, "smaller than the rounding of bfloat16"),
    ],
)
def test_refuses_settings_of_estimators_that_cannot_be(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        NoiseStability(**settings)
