"""Examples with parts: scores are means over the parts that are there."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from hf_noise_al.observables.base import probabilities
from hf_noise_al.observables.parts import ProbabilitiesOfParts, check_one_answer_each, mean_over_parts


class Parts:
    """Two examples: one of two parts and a gap, one without any part."""

    def parts(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        there = torch.tensor([[True, False, True], [False, False, False]])
        return inputs["probabilities"], there


def test_what_is_not_there_has_no_say() -> None:
    given = torch.tensor([[[0.9, 0.1], [0.5, 0.5], [0.6, 0.4]], [[0.5, 0.5]] * 3])
    found = mean_over_parts(Parts(), lambda rows: 1 - rows.amax(-1))(nn.Identity(), {"probabilities": given})
    torch.testing.assert_close(found, torch.tensor([[0.25], [0.0]]))


def test_only_observables_that_know_parts_have_them() -> None:
    assert isinstance(Parts(), ProbabilitiesOfParts)
    check_one_answer_each(probabilities, "It needs one answer")
    with pytest.raises(ValueError, match="It needs one answer, and this model answers for every part of it"):
        check_one_answer_each(Parts(), "It needs one answer")
