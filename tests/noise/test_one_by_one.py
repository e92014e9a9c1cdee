"""The gradient sketch, one example at a time: models that it cannot follow in whole batches."""

from collections.abc import Mapping
from typing import Any

import pytest
import sketch_models
import torch
from test_gradient_sketch import (
    Detached,
    Functional,
    MixesExamples,
    Model,
    Sorts,
    WholeGradients,
    jacobians,
    mean_logits,
    plain,
)
from torch import Tensor, nn

from hf_noise_al.acquisition import Candidates, NoiseStability
from hf_noise_al.noise.gradient_sketch.followed import refuse_one_by_one_of_shards, unsupported_tensors
from hf_noise_al.noise.gradient_sketch.layer_taps import UnsupportedModuleError
from hf_noise_al.noise.gradient_sketch.sketch import GradientSketch
from hf_noise_al.noise.parameter_filter import perturbed_tensors
from hf_noise_al.observables.base import probabilities
from hf_noise_al.testing import generator


def one_by_one(model: nn.Module, **settings: Any) -> GradientSketch:
    return GradientSketch(model, 1e-3, generator(), **{"observable": plain, "one_by_one": True, **settings})


def batch_of(inputs: Mapping[str, Tensor], row: int) -> dict[str, Tensor]:
    return {name: value[row : row + 1] for name, value in inputs.items()}


@pytest.mark.parametrize("name", [*sketch_models.ONE_BY_ONE_NAMES, "bert", "albert", "lora"])
def test_gradients_are_those_of_each_example(name: str) -> None:
    model, inputs = sketch_models.build(name)
    model, inputs = model.double(), {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    tensors = perturbed_tensors(model)
    sketch = one_by_one(model, observable=mean_logits)
    sketch(model, inputs)  # finds which tensors are used directly
    seen = 0
    for row, alone in enumerate(jacobians(model, inputs, mean_logits)):
        noise = sketch.noise = WholeGradients()  # type: ignore[assignment]
        sketch(model, batch_of(inputs, row))
        for tensor_name, tensor in tensors.items():
            for direction, expected in enumerate(alone[tensor_name]):
                whole = noise.found.get((direction, tensor_name), torch.zeros(1, *tensor.shape, dtype=tensor.dtype))
                torch.testing.assert_close(whole.reshape(expected.shape), expected)
                seen += bool(expected.any())
    assert seen >= 3 * 3 * 5


@pytest.mark.parametrize("name", ["bert", "resnet", "segformer"])
def test_rows_are_those_of_whole_batches_where_both_are_possible(name: str) -> None:
    model, inputs = sketch_models.build(name)
    settings: dict[str, Any] = {"observable": mean_logits, "num_projections": 64}
    expected = GradientSketch(model, 1e-3, generator(), **settings)(model, inputs)
    found = one_by_one(model, **settings)(model, inputs)
    assert float((found - expected).norm() / expected.norm()) < 1e-4


class Recurrent(nn.Module):
    """A module without a rule that returns a tuple, and one that is transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(2, 3, 2), nn.ConvTranspose1d(3, 2, 2)

    def forward(self, input: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(input))).mean(dim=2)  # type: ignore[no-any-return]


@pytest.mark.parametrize("frozen", [False, True])
def test_tensors_without_a_rule_are_differentiated_themselves(frozen: bool) -> None:
    torch.manual_seed(0)
    model, rows = Recurrent().double(), torch.randn(4, 2, 5, generator=generator(1), dtype=torch.float64)
    model.requires_grad_(not frozen)
    assert len(unsupported_tensors(model)) == 2
    sketch = one_by_one(model, num_projections=20_000)
    found = sketch(model, {"input": rows})
    assert all(p.requires_grad is not frozen and p.grad is None for p in model.parameters())
    expected = []
    for alone in jacobians(model, {"input": rows}, plain):
        parts = [sketch.scales[name] * gradient.flatten() for name, gradient in alone.items()]
        expected.append(torch.cat(parts))
    exact = torch.stack(expected).detach() / model(rows).detach().norm(dim=1, keepdim=True)
    error = (found @ found.T / 20_000 - exact @ exact.T).norm() / (exact @ exact.T).norm()
    assert float(error) < 0.1


class Scaled(Model):
    """A weight of a single number, without dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        assert isinstance(self.other.weight, Tensor)
        return self.linear(input) * self.other.weight  # type: ignore[no-any-return]


def test_a_weight_without_dimensions_moves_outputs_as_its_gradient_says() -> None:
    scale = nn.Module()
    scale.weight = nn.Parameter(torch.tensor(1.5))  # type: ignore[assignment]
    model, rows = Scaled(scale).double(), torch.randn(3, 4, generator=generator(1), dtype=torch.float64)
    sketch = one_by_one(model, parameter_filter="^other", num_projections=20_000)
    found, outputs = sketch(model, {"input": rows}), model(rows).detach()
    exact = 1e-3 * 1.5 * model.linear(rows).detach() / outputs.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found @ found.T / 20_000, exact @ exact.T, rtol=0.05, atol=1e-8)


def test_used_weights_are_found_and_counted_with_their_module() -> None:
    model, rows = Functional(nn.Linear(4, 2)).double(), torch.randn(3, 4, dtype=torch.float64)
    sketch = one_by_one(model)
    sketch(model, {"input": rows})
    assert list(sketch.followed.direct) == ["other.weight"]
    assert [known for _, known in sketch.followed.tapped] == [{"weight": "linear.weight"}]


@pytest.mark.parametrize("size", [3, 1])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_leaves_nothing_behind_whichever_pass_is_interrupted(number: int, size: int) -> None:
    model = Functional(nn.Linear(4, 2)).requires_grad_(False)
    forward, passes = model.linear.forward, []

    def breaks(hidden: Tensor) -> Tensor:
        passes.append(1)
        if len(passes) == number:
            raise KeyboardInterrupt
        return forward(hidden)

    model.linear.forward = breaks  # type: ignore[method-assign]
    before = [*map(id, model.parameters())], [p.clone() for p in model.parameters()]
    with pytest.raises(KeyboardInterrupt):
        one_by_one(model)(model, {"input": torch.randn(size, 4)})
    assert [*map(id, model.parameters())] == before[0]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before[1], strict=True))
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_an_order_of_their_own_is_no_obstacle_for_examples_alone() -> None:
    model, rows = Sorts(nn.Linear(4, 2)), torch.randn(5, 4, generator=generator(1))
    found = one_by_one(model)(model, {"input": rows})
    alone = [one_by_one(model)(model, {"input": rows[i : i + 1]}) for i in range(5)]
    torch.testing.assert_close(found, torch.cat(alone))


class DetachedConvolution(Model):
    """What comes of a module without a rule is detached."""

    def forward(self, input: Tensor) -> Tensor:
        return self.linear(self.other(input[:, None]).detach()[:, 0])  # type: ignore[no-any-return]


class AsWideAsTheBatch(Model):
    """As many outputs for each example as there are examples, all the same."""

    def forward(self, input: Tensor) -> Tensor:
        return self.linear(input)[:, :1].expand(-1, len(input))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (MixesExamples(nn.Linear(4, 2)), "the outputs of this model for an example depend on the others"),
        (AsWideAsTheBatch(nn.Linear(4, 2)), "the outputs of this model for an example depend on the others"),
        (Detached(nn.Linear(4, 4)), r"cannot follow other\.weight: .* that the model detaches"),
        (DetachedConvolution(nn.Conv1d(1, 1, 1)), r"cannot follow other\.weight: .* that the model detaches"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_refuses_what_no_example_alone_can_show(model: nn.Module, text: str) -> None:
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UnsupportedModuleError, match=text):
        one_by_one(model)(model, {"input": torch.randn(4, 4)})
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_an_empty_batch_has_no_rows() -> None:
    model = nn.Sequential(nn.Linear(4, 2))
    assert one_by_one(model)(model[0], {"input": torch.zeros(0, 4)}).shape == (0, 512)


def test_outputs_that_are_not_finite_are_left_for_the_caller_to_name() -> None:
    model, rows = Functional(nn.Linear(4, 2)), torch.randn(3, 4)
    rows[1] = torch.nan
    found = one_by_one(model)(model, {"input": rows})
    assert found.isfinite().all(dim=1).tolist() == [True, False, True]


def test_lists_of_one_entry_each_are_taken_apart_and_other_inputs_stay() -> None:
    seen: list[tuple[int, int]] = []

    def observe(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
        seen.append((len(inputs["names"]), len(inputs["scale"])))
        return model(inputs["input"]) * inputs["scale"].mean()  # type: ignore[no-any-return]

    inputs: dict[str, Any] = {"input": torch.randn(3, 4), "names": list("abc"), "scale": torch.ones(2)}
    one_by_one(nn.Linear(4, 2), observable=observe)(nn.Linear(4, 2), inputs)
    assert set(seen[1:]) == {(1, 2)}


@pytest.mark.parametrize("estimator", ["auto", "gradient_sketch"])
def test_noise_stability_takes_it_where_it_is_asked_for(estimator: Any, caplog: pytest.LogCaptureFixture) -> None:
    model, inputs = sketch_models.build("deberta")

    def observe(observable: Any, description: str = "observe") -> Tensor:
        with torch.no_grad():
            rows: Tensor = observable(model, inputs)
        return rows

    candidates = Candidates(model, 4, observe, probabilities)
    method = NoiseStability(estimator=estimator, one_by_one=True)
    method.check(model, probabilities)
    with caplog.at_level("INFO", logger="hf_noise_al"):
        query = method.select(candidates, 2, generator())
    assert "finite differences:" not in caplog.text
    assert ("examples pass one by one" in caplog.text) is (estimator == "auto")
    expected = GradientSketch(model, 1e-3, generator(), one_by_one=True)(model, inputs)
    torch.testing.assert_close(query.scores, expected.norm(dim=1))


def test_auto_goes_on_with_finite_differences_where_examples_mix(caplog: pytest.LogCaptureFixture) -> None:
    model = MixesExamples(nn.Linear(4, 2))

    def observe(observable: Any, description: str = "observe") -> Tensor:
        with torch.no_grad():
            rows: Tensor = observable(model, {"input": torch.ones(3, 4) * torch.arange(1, 4)[:, None]})
        return rows

    with caplog.at_level("INFO", logger="hf_noise_al"):
        NoiseStability(one_by_one=True).select(Candidates(model, 3, observe, plain), 2, generator())
    assert "takes finite differences: The gradient sketch takes examples one by one, and" in caplog.text


def test_refuses_settings_that_have_no_meaning() -> None:
    with pytest.raises(ValueError, match="`one_by_one` has no meaning with estimator='finite_difference'"):
        NoiseStability(estimator="finite_difference", one_by_one=True)
    with pytest.raises(UnsupportedModuleError, match="one by one where weights are sharded"):
        refuse_one_by_one_of_shards(True)
    refuse_one_by_one_of_shards(False)
