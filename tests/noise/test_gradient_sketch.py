"""The gradient sketch: the right gradients of every supported layer, projected without bias, nothing left behind."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import sketch_models
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hf_noise_al.acquisition import Candidates, NoiseStability
from hf_noise_al.noise.gradient_sketch.first_batch import MOST_CHECKS
from hf_noise_al.noise.gradient_sketch.followed import unsupported_tensors
from hf_noise_al.noise.gradient_sketch.layer_rules import LayerGradient, Vectors
from hf_noise_al.noise.gradient_sketch.layer_taps import UnsupportedModuleError
from hf_noise_al.noise.gradient_sketch.sketch import GradientSketch, num_backward_passes
from hf_noise_al.noise.parameter_filter import perturbed_tensors
from hf_noise_al.noise.perturbation import perturbed
from hf_noise_al.observables.base import features, probabilities
from hf_noise_al.selection.checks import row_norms
from hf_noise_al.testing import candidates_of, generator


def mean_logits(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """A smooth row per example of any model: logits, averaged over a map."""
    logits: Tensor = model(**inputs).logits
    return logits.flatten(2).mean(dim=2) if logits.ndim > 2 else logits


def plain(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    result: Tensor = model(**inputs)
    return result


class WholeGradients:
    """Test-only noise: keeps every layer's gradient of each example whole; shared layers add up."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, str], Tensor] = {}

    def project(self, name: str, shape: torch.Size, gradient: LayerGradient, direction: int, width: int) -> Tensor:
        whole = whole_gradient(gradient, shape)
        key = direction, name
        self.found[key] = self.found[key] + whole if key in self.found else whole
        return whole.new_zeros(len(whole), width)


class DenseNoise:
    """Test-only noise: the given dense one for each projection, (K, *shape) by name."""

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        self.noise = noise

    def project(self, name: str, shape: torch.Size, gradient: LayerGradient, direction: int, width: int) -> Tensor:
        return whole_gradient(gradient, shape).flatten(1) @ self.noise[name].flatten(1).T


def whole_gradient(gradient: LayerGradient, shape: torch.Size) -> Tensor:
    if isinstance(gradient, Vectors):
        return gradient.values
    rows, columns = torch.eye(shape[0]), torch.eye(shape[1:].numel())
    like = gradient.like.dtype
    left, right = gradient.products(rows.to(like), columns.to(like))
    return torch.einsum("bti,btj->bij", left, right).reshape(-1, *shape)


def jacobians(
    model: nn.Module, inputs: Mapping[str, Tensor], observable: Any, parameter_filter: str = "weight"
) -> list[dict[str, Tensor]]:
    """Return, per example computed alone, the (D, *shape) gradients of its outputs by every perturbed tensor."""
    tensors = perturbed_tensors(model, parameter_filter)
    flags = {name: tensor.requires_grad for name, tensor in tensors.items()}
    model.requires_grad_(True)
    result = []
    for row in range(len(next(iter(inputs.values())))):
        outputs = observable(model, {name: value[row : row + 1] for name, value in inputs.items()})[0]
        by_output = [
            torch.autograd.grad(value, list(tensors.values()), retain_graph=True, allow_unused=True)
            for value in outputs
        ]
        result.append(
            {
                name: torch.stack([torch.zeros_like(t) if g[i] is None else g[i] for g in by_output])
                for i, (name, t) in enumerate(tensors.items())
            }
        )
    for name, tensor in tensors.items():
        tensor.requires_grad_(flags[name])
    return result


def scaled_kernel(model: nn.Module, inputs: Mapping[str, Tensor], observable: Any, noise_scale: float) -> Tensor:
    """Return products of scaled Jacobians, divided by the lengths of the clean rows: (N, N)."""
    tensors = perturbed_tensors(model)
    rows = []
    for found in jacobians(model, inputs, observable):
        parts = [
            found[n].flatten() * noise_scale * t.detach().norm() / math.sqrt(t.numel()) for n, t in tensors.items()
        ]
        rows.append(torch.cat(parts).detach())
    stacked = torch.stack(rows) / observable(model, inputs).detach().norm(dim=1, keepdim=True)
    return stacked @ stacked.T


# ---- gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameter_filter"),
    [*((name, "weight") for name in sketch_models.NAMES), ("bert", "all"), ("lora", "trainable"), ("lora", "all")],
)
def test_gradients_of_every_tensor_are_those_of_each_example_alone(name: str, parameter_filter: str) -> None:
    model, inputs = sketch_models.build(name)
    model, inputs = model.double(), {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    chosen = perturbed_tensors(model, parameter_filter)
    assert unsupported_tensors(model, parameter_filter) == []
    sketch = GradientSketch(model, 1e-3, generator(), parameter_filter, mean_logits)
    noise = sketch.noise = WholeGradients()  # type: ignore[assignment]
    sketch(model, inputs)
    alone = jacobians(model, inputs, mean_logits, parameter_filter)
    seen = 0
    for tensor_name in chosen:
        expected = torch.stack([found[tensor_name] for found in alone])  # (B, D, *shape)
        for direction in range(expected.shape[1]):
            if (direction, tensor_name) in noise.found:
                whole = noise.found[direction, tensor_name]
                torch.testing.assert_close(whole.reshape(expected[:, direction].shape), expected[:, direction])
                seen += 1
            else:
                assert not expected[:, direction].any(), tensor_name
    assert seen >= 3 * 5


@pytest.mark.parametrize("name", ["bert", "gpt2", "modern_bert", "llama", "resnet", "vit", "segformer"])
def test_with_the_same_dense_noise_it_is_finite_differences(name: str) -> None:
    """Within 1 %, in float32, at the paper's noise scale; where a ReLU bends the outputs, at a smaller one."""
    model, inputs = sketch_models.build(name)
    noise_scale, count = 1e-4 if name == "resnet" else 1e-3, 3
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(0.05 * torch.randn(parameter.shape, generator=generator(5)))
    tensors = perturbed_tensors(model)
    noise = {n: torch.randn(count, *t.shape, generator=generator(i)) for i, (n, t) in enumerate(tensors.items())}
    for drawn in noise.values():
        lengths = drawn.flatten(1).norm(dim=1).view(-1, *[1] * (drawn.ndim - 1))
        drawn.mul_(drawn[0].numel() ** 0.5 / lengths)  # as long as the published noise is, exactly
    sketch = GradientSketch(model, noise_scale, generator(), observable=mean_logits, num_projections=3 * count)
    sketch.noise = DenseNoise(noise)  # type: ignore[assignment]
    found = sketch(model, inputs) / 3**0.5  # of three directions each has a third of the projections
    with torch.no_grad():
        clean = mean_logits(model, inputs)
        moved = []
        for k in range(count):
            before = {n: t.clone() for n, t in tensors.items()}
            for n, t in tensors.items():
                t.add_(noise[n][k], alpha=float(noise_scale * t.norm() / t.numel() ** 0.5))
            moved.append((mean_logits(model, inputs) - clean) / clean.norm(dim=1, keepdim=True))
            for n, t in tensors.items():
                t.copy_(before[n])
    expected = torch.stack(moved, dim=2).flatten(1)  # (B, D * K): direction by direction
    assert float((found - expected).norm() / expected.norm()) < 0.01


# ---- kernels -------------------------------------------------------------------------------------------------------


def kernel_errors(count: int, seeds: int, observable: Any, **settings: Any) -> list[float]:
    """Return how far products of `count` projections are from those of scaled Jacobians, for each of the seeds."""
    model, inputs = sketch_models.build("bert")
    expected, errors = scaled_kernel(model, inputs, observable, 1e-3), []
    for seed in range(seeds):
        sketch = GradientSketch(model, 1e-3, generator(seed), observable=observable, num_projections=count, **settings)
        found = sketch(model, inputs)
        errors.append(float((found @ found.T / count - expected).norm() / expected.norm()))
    return errors


@pytest.mark.parametrize("observable", [probabilities, mean_logits])
def test_products_converge_to_those_of_scaled_jacobians_as_one_over_the_root(observable: Any) -> None:
    errors = [(sum(error**2 for error in kernel_errors(count, 8, observable)) / 8) ** 0.5 for count in (64, 1024, 4096)]
    assert errors[0] < 0.6 and errors[2] < 0.08
    assert 2 < errors[0] / errors[1] < 8  # sixteen times as many, four times closer, give or take chance
    assert 4 < errors[0] / errors[2] < 16


def test_random_signs_stand_in_for_many_outputs() -> None:
    assert sum(kernel_errors(4096, 4, features, num_output_projections=12)) / 4 < 0.25
    (every_output,) = kernel_errors(4096, 1, features, num_output_projections=16)
    assert every_output < 0.12, "all sixteen outputs, one by one"


def test_norms_and_distances_are_closer_to_the_exact_ones_than_many_finite_differences() -> None:
    """512 projections against 120 perturbations with full Gaussian noise, each over 3 seeds."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(12, 24), nn.Tanh(), nn.LayerNorm(24), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 2)
    )
    model.double()
    rows = torch.randn(40, 12, generator=generator(1), dtype=torch.float64)
    candidates = candidates_of(model, rows)
    tensors = perturbed_tensors(model)
    exact = []
    for row in rows:
        outputs = probabilities(model, {"input": row[None]})[0]
        parts = []
        for value in outputs:
            found = torch.autograd.grad(value, list(tensors.values()), retain_graph=True)
            parts += [g.flatten() * t.norm() / t.numel() ** 0.5 for g, t in zip(found, tensors.values(), strict=True)]
        exact.append(torch.cat(parts).detach() / outputs.norm().detach())
    reference = torch.stack(exact)

    def correlations(**settings: Any) -> Tensor:
        found = []
        for seed in range(3):
            features_found = NoiseStability(**settings).deviations(candidates, generator(seed))
            pairs = [(f(features_found), f(reference)) for f in (row_norms, torch.pdist)]
            found.append(torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]))
        return torch.stack(found).mean(dim=0)

    sketch = correlations(estimator="gradient_sketch", num_projections=512)
    published = correlations(estimator="finite_difference", num_perturbations=120)
    assert (sketch > published).all(), (sketch, published)
    assert (sketch > 0.8).all()


# ---- what it leaves, and what it does not need ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "lora", "resnet"])
def test_leaves_nothing_behind(name: str) -> None:
    model, inputs = sketch_models.build(name)
    state = {n: v.clone() for n, v in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    rng = torch.get_rng_state()
    sketch = GradientSketch(model, 1e-3, generator(), num_projections=16)
    with torch.no_grad():
        rows = sketch(model, inputs)
    assert not rows.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(torch.equal(v, state[n]) for n, v in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_leaves_nothing_behind_when_a_layer_raises(number: int) -> None:
    """In the pass that checks rows, in the one that checks the use of weights, and in that of the batch."""
    model, inputs = sketch_models.build("bert")
    model.classifier = nn.Linear(16, 16)
    model.classifier.weight = model.bert.pooler.dense.weight  # type: ignore[union-attr, assignment]
    model.requires_grad_(False)
    forward, passes = model.classifier.forward, []  # type: ignore[union-attr]

    def breaks(hidden: Tensor) -> Tensor:
        passes.append(1)
        if len(passes) == number:
            raise KeyboardInterrupt
        return forward(hidden)  # type: ignore[operator, no-any-return]

    model.classifier.forward = breaks  # type: ignore[union-attr, assignment]

    def state() -> list[Any]:
        held = [id(tensor) for module in model.modules() for tensor in module._parameters.values()]
        hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
        return [held, hooks, [p.requires_grad for p in model.parameters()], torch.is_grad_enabled()]

    before = state()
    with pytest.raises(KeyboardInterrupt):
        GradientSketch(model, 1e-3, generator(), observable=mean_logits)(model, inputs)
    assert len(passes) == number and state() == before


@pytest.mark.parametrize("name", ["bert", "resnet"])
def test_frozen_weights_give_the_same(name: str) -> None:
    model, inputs = sketch_models.build(name)
    first = GradientSketch(model, 1e-3, generator())(model, inputs)
    model.requires_grad_(False)
    torch.testing.assert_close(GradientSketch(model, 1e-3, generator())(model, inputs), first)


def test_rows_do_not_depend_on_the_batch() -> None:
    model, inputs = sketch_models.build("bert")
    sketch = GradientSketch(model.double(), 1e-3, generator())
    together = sketch(model, inputs)
    for size in (1, 2):
        apart = [sketch(model, {k: v[i : i + size] for k, v in inputs.items()}) for i in range(0, 4, size)]
        torch.testing.assert_close(torch.cat(apart), together)


def test_a_batch_of_hundreds_has_a_row_for_each_example() -> None:
    model, rows = nn.Linear(4, 2), torch.randn(300, 4, generator=generator(1))
    sketch = GradientSketch(model, 1e-3, generator(), observable=plain, num_projections=8)
    found = sketch(model, {"input": rows})
    torch.testing.assert_close(found[-3:], sketch(model, {"input": rows[-3:]}))
    assert found.shape == (300, 8)


def test_a_single_example_is_checked_beside_itself_with_what_is_not_per_example_left_as_it_is() -> None:
    seen: list[tuple[int, ...]] = []

    def observe(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
        seen.append((len(inputs["input"]), len(inputs["names"]), len(inputs["sizes"]), inputs["factor"].ndim))
        rows: Tensor = model(inputs["input"]) * inputs["factor"]
        return rows

    sketch = GradientSketch(model := nn.Linear(4, 2), 1e-3, generator(), observable=observe)
    sketch(model, {"input": torch.randn(1, 4), "names": ["a"], "sizes": [1, 2, 3], "factor": torch.tensor(2.0)})
    assert set(seen) == {(2, 2, 3, 0), (1, 1, 3, 0)}


def test_weight_gradients_are_not_computed() -> None:
    """The backward pass goes through activations alone: no product has the shape of a weight."""
    model, inputs = sketch_models.build("vit")
    inputs = {name: value[:2] for name, value in inputs.items()}  # no other dimension is two
    shapes = {tuple(t.shape) for t in perturbed_tensors(model).values() if t.ndim == 2}
    seen: list[tuple[int, ...]] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if func.overloadpacket.__name__ in ("mm", "addmm", "bmm") and isinstance(result, Tensor):
                seen.append(tuple(result.shape))
            return result

    sketch = GradientSketch(model, 1e-3, generator(), num_projections=32)
    sketch(model, inputs)  # checked by now
    with Watch():
        sketch(model, inputs)
    assert seen and not shapes & set(seen)


def test_in_place_activations_are_safe() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.LazyLinear(3)]
    model = nn.Sequential(*layers).eval()
    images = torch.randn(4, 3, 8, 8, generator=generator(1))
    model(images)
    rows = GradientSketch(model, 1e-3, generator(), observable=plain)(model, {"input": images})
    model[2] = nn.ReLU(inplace=True)
    again = GradientSketch(model, 1e-3, generator(), observable=plain)(model, {"input": images})
    assert torch.equal(rows, again)


def test_outputs_that_no_perturbed_tensor_reaches_do_not_move() -> None:
    model, inputs = sketch_models.build("bert")
    sketch = GradientSketch(model, 1e-3, generator(), "^classifier", features, num_projections=8)
    assert torch.equal(sketch(model, inputs), torch.zeros(4, 8))


def test_rows_are_divided_by_the_length_of_the_clean_row() -> None:
    model, inputs = sketch_models.build("bert")

    def tenfold(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        return 10 * mean_logits(model, inputs)

    rows = [GradientSketch(model, 1e-3, generator(), observable=o)(model, inputs) for o in (mean_logits, tenfold)]
    torch.testing.assert_close(rows[0], rows[1])


# ---- bfloat16 ------------------------------------------------------------------------------------------------------


def test_bfloat16_changes_the_sketch_little_and_finite_differences_beyond_use() -> None:
    model, inputs = sketch_models.build("bert")
    sketch = GradientSketch(model, 1e-3, generator())
    exact = sketch(model, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = sketch(model, inputs)
    assert rounded.dtype == torch.float32
    assert correlation(exact, rounded) > 0.99

    def differences(autocast: bool) -> Tensor:
        found = []
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            clean = probabilities(model, inputs)
            source = generator(1)
            for _ in range(8):
                with perturbed(model, 1e-3, source):
                    found.append(probabilities(model, inputs) - clean)
        return torch.cat(found, dim=1)

    assert correlation(differences(False), differences(True)) < 0.9


def correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


# ---- refusals ------------------------------------------------------------------------------------------------------


class Model(nn.Module):
    """A linear layer beside one more module, used as `forward` says."""

    def __init__(self, other: nn.Module) -> None:
        super().__init__()
        self.linear, self.other = nn.Linear(4, 2), other


class Functional(Model):
    def forward(self, input: Tensor) -> Tensor:
        assert isinstance(self.other.weight, Tensor)
        return self.linear(input) + nn.functional.linear(input, self.other.weight)


class TiedAside(Model):
    """A weight that is used through one module, which is called, and without its other one, which is not."""

    def __init__(self, other: nn.Linear) -> None:
        super().__init__(other)
        self.twin = nn.Linear(4, 2)
        self.twin.weight = other.weight

    def forward(self, input: Tensor) -> Tensor:
        return self.linear(input) + self.other(input) + nn.functional.linear(input, self.twin.weight)  # type: ignore[no-any-return]


class AlsoDirect(Model):
    """A weight that is used through its module, and once more without it."""

    def forward(self, input: Tensor) -> Tensor:
        assert isinstance(self.other.weight, Tensor)
        return self.linear(self.other(input)) + nn.functional.linear(input, self.other.weight)[:, :2]  # type: ignore[no-any-return]


class Detached(Model):
    def forward(self, input: Tensor) -> Tensor:
        return self.linear(self.other(input).detach())  # type: ignore[no-any-return]


class DetachedBeside(Model):
    """What comes of a layer goes on twice, once detached."""

    def forward(self, input: Tensor) -> Tensor:
        hidden = self.other(input)
        return self.linear(hidden.detach()) + hidden[:, :2]  # type: ignore[no-any-return]


class FixedBackbone(Model):
    def forward(self, input: Tensor) -> Tensor:
        with torch.no_grad():
            hidden = self.other(input)
        return self.linear(hidden)  # type: ignore[no-any-return]


class ChangesInput(Model):
    """Adds to what a layer was given, after it was used."""

    def forward(self, input: Tensor) -> Tensor:
        hidden = self.other(input)
        first = self.linear(hidden)
        hidden.mul_(2)
        return first + hidden[:, :2]  # type: ignore[no-any-return]


class Sorts(Model):
    """Orders the examples by their content, and puts them back."""

    def forward(self, input: Tensor) -> Tensor:
        order = input.sum(dim=1).argsort()
        return self.linear(input) + self.other(input[order])[order.argsort()]  # type: ignore[no-any-return]


class Some(Model):
    """Hands a part of the examples to a layer; as many entries as there are examples, or as many as divide them."""

    def forward(self, input: Tensor) -> Tensor:
        hidden = self.linear(input)
        chosen = input[:, 0] > 0
        parts = self.other(input[chosen].repeat_interleave(4, dim=0)).unflatten(0, (-1, 4)).mean(dim=1)
        return hidden.index_add(0, chosen.nonzero()[:, 0], parts)  # type: ignore[no-any-return]


class Idle(Model):
    def forward(self, input: Tensor) -> Tensor:
        return self.linear(input)  # type: ignore[no-any-return]


class SharedTable(Model):
    def forward(self, input: Tensor) -> Tensor:
        return self.linear(input) + self.other(torch.arange(len(input) - 1)).sum(dim=0)  # type: ignore[no-any-return]


class MixesExamples(Model):
    def forward(self, input: Tensor) -> Tensor:
        return self.linear(input) + self.other(input).mean(dim=0)  # type: ignore[no-any-return]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("size", [4, 6, 20])
def test_examples_in_an_order_of_their_own_are_refused(seed: int, size: int) -> None:
    model, rows = Sorts(nn.Linear(4, 2)), torch.randn(size, 4, generator=generator(seed))
    rows = rows[rows.sum(dim=1).argsort()]
    rows[1:-1] = rows[1:-1].flip(0)  # the first and the last stay where they are
    with pytest.raises(UnsupportedModuleError, match="cannot tell examples apart at"):
        GradientSketch(model, 1e-3, generator(), observable=plain)(model, {"input": rows})


def test_a_part_of_the_examples_is_refused_in_later_batches_too() -> None:
    model = Some(nn.Linear(4, 2))
    sketch = GradientSketch(model, 1e-3, generator(), observable=plain)
    rows = torch.randn(4, 4, generator=generator(1))
    rows[:, 0] = 1
    sketch(model, {"input": rows})
    rows[:, 0] = torch.tensor([1.0, -1.0, -1.0, 1.0])
    with pytest.raises(UnsupportedModuleError, match="cannot tell examples apart at"):
        GradientSketch(model, 1e-3, generator(), observable=plain)(model, {"input": rows})
    rows[:, 0] = -1  # a layer that is called with nothing
    assert GradientSketch(model, 1e-3, generator(), observable=plain)(model, {"input": rows}).isfinite().all()
    with pytest.raises(UnsupportedModuleError, match="cannot tell examples apart at"):
        sketch(model, {"input": torch.cat([rows, rows.abs()[:1], rows[:1]])})


def test_an_empty_batch_has_no_rows() -> None:
    sketch = GradientSketch(nn.Sequential(nn.Linear(4, 2)), 1e-3, generator(), observable=plain)
    assert sketch(sketch.followed.tapped[0][0], {"input": torch.zeros(0, 4)}).shape == (0, 512)


def test_examples_that_mix_are_refused_where_weights_are_sharded_and_the_first_batch_has_one_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hf_noise_al.noise.gradient_sketch.sketch.is_sharded", lambda model: True)
    model = MixesExamples(nn.Linear(4, 2))
    with pytest.raises(UnsupportedModuleError, match="cannot tell examples apart at"):
        GradientSketch(model, 1e-3, generator(), observable=plain)(model, {"input": torch.randn(1, 4)})


def test_names_tensors_without_a_rule() -> None:
    model = nn.Sequential(nn.Conv1d(2, 2, 1), nn.Flatten(), nn.Linear(4, 2))
    assert unsupported_tensors(model) == ["0.weight (a weight of Conv1d)"]
    with pytest.raises(UnsupportedModuleError, match=r"no rule for 1 .*0\.weight \(a weight of Conv1d\).*Use"):
        GradientSketch(model, 1e-3, generator())
    assert unsupported_tensors(model, "^2") == []


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (Functional(nn.Linear(4, 2)), r"cannot follow other\.weight: the outputs depend on it"),
        (TiedAside(nn.Linear(4, 2)), r"cannot follow other\.weight: the outputs depend on it"),
        (AlsoDirect(nn.Linear(4, 4)), r"cannot follow other\.weight: the outputs depend on it"),
        (Detached(nn.Linear(4, 4)), r"cannot follow other\.weight: .* that the model detaches"),
        (DetachedBeside(nn.Linear(4, 4)), r"cannot follow other\.weight: .* that the model detaches"),
        (FixedBackbone(nn.Linear(4, 4)), r"cannot follow other\.weight: .* that the model detaches"),
        (ChangesInput(nn.Linear(4, 4)), r"changes in place"),
        (SharedTable(nn.Embedding(9, 2)), r"cannot tell examples apart at other\.weight"),
        (MixesExamples(nn.Linear(4, 2)), r"cannot tell examples apart at other\.weight"),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_refuses_weights_that_it_cannot_follow(model: nn.Module, text: str, frozen: bool) -> None:
    model.requires_grad_(not frozen)
    for size in (4, 1):  # the first batch may be the last example
        with pytest.raises(UnsupportedModuleError, match=text):
            GradientSketch(model, 1e-3, generator(), observable=plain)(model, {"input": torch.randn(size, 4)})
    assert all(p.requires_grad is not frozen for p in model.parameters())
    assert not isinstance(model, TiedAside) or model.other.weight is model.twin.weight


class FirstTable(Model):
    """A table that the examples of a batch share, of as many rows as there are examples."""

    def forward(self, input: Tensor) -> Tensor:
        return self.linear(input) + self.other(torch.arange(len(input)))[:1]  # type: ignore[no-any-return]


class Transposed(Model):
    """Positions come first, as many as there are examples."""

    def forward(self, input: Tensor) -> Tensor:
        return self.linear(input) + self.other(input.T[:3]).sum(dim=0)  # type: ignore[no-any-return]


class OneRow(Model):
    """A row for all examples, of which the model takes the first."""

    def forward(self, input: Tensor) -> Tensor:
        return self.linear(input) + self.other(torch.ones(1, 4))[0]  # type: ignore[no-any-return]


class Upstream(Model):
    """A weight that is used without its module, before one that is called."""

    def forward(self, input: Tensor) -> Tensor:
        assert isinstance(self.other.weight, Tensor)
        return self.linear(nn.functional.linear(input, self.other.weight))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (FirstTable(nn.Embedding(9, 2)), "cannot tell examples apart at other.weight"),
        (Transposed(nn.Linear(3, 2)), "cannot tell examples apart at other.weight"),
        (OneRow(nn.Linear(4, 2)), "cannot tell examples apart at other.weight"),
        (MixesExamples(nn.Linear(4, 2)), "cannot tell examples apart at other.weight"),
        (Upstream(nn.Linear(4, 4)), "cannot follow other.weight"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("observable", [plain, probabilities])
def test_refuses_mixed_examples_also_where_outputs_sum_to_one(model: nn.Module, text: str, observable: Any) -> None:
    with pytest.raises(UnsupportedModuleError, match=text):
        GradientSketch(model, 1e-3, generator(), observable=observable)(model, {"input": torch.randn(3, 4)})


def test_weights_used_without_their_module_are_refused_also_where_no_other_is_perturbed() -> None:
    model = Functional(nn.Linear(4, 2))
    with pytest.raises(UnsupportedModuleError, match="saw none of the perturbed modules called"):
        GradientSketch(model, 1e-3, generator(), "^other", plain)(model, {"input": torch.randn(4, 4)})


@pytest.mark.parametrize("name", sketch_models.ONE_BY_ONE_NAMES)
def test_models_that_it_cannot_follow_are_refused_and_auto_goes_on(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model, inputs = sketch_models.build(name)
    with pytest.raises(UnsupportedModuleError, match=r"(no rule|cannot tell examples apart|cannot follow).*one_by_one"):
        GradientSketch(model, 1e-3, generator(), observable=mean_logits)(model, inputs)

    def observe(observable: Any, description: str = "observe") -> Tensor:
        with torch.no_grad():
            return observable(model, inputs)

    candidates = Candidates(model, len(next(iter(inputs.values()))), observe, mean_logits)
    with caplog.at_level("INFO", logger="hf_noise_al"):
        query = NoiseStability(num_perturbations=9).select(candidates, 2, generator(3))
    other: dict[str, Any] = {"estimator": "gradient_sketch", "one_by_one": True}
    if any("no rule" in record.message for record in caplog.records):
        assert "takes finite differences" in caplog.text
        other = {"estimator": "finite_difference"}
    expected = NoiseStability(num_perturbations=9, **other).select(candidates, 2, generator(3))
    assert torch.equal(query.scores, expected.scores), "the sketch left the generator as it was"


def test_a_table_of_positions_may_come_first_among_the_inputs() -> None:
    model, inputs = sketch_models.build("bert")
    expected = GradientSketch(model, 1e-3, generator())(model, inputs)
    first = {"position_ids": torch.arange(7)[None], **inputs}
    torch.testing.assert_close(GradientSketch(model, 1e-3, generator())(model, first), expected)


def test_an_observable_of_other_rows_is_refused() -> None:
    model, inputs = sketch_models.build("bert")
    with pytest.raises(UnsupportedModuleError, match="returns 1 rows, and the first dimension of"):
        GradientSketch(model, 1e-3, generator(), observable=lambda m, i: m(**i).logits[:1])(model, inputs)


def test_compiled_models_are_followed() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    images = torch.randn(4, 4, generator=generator(1))
    expected = GradientSketch(model, 1e-3, generator(), observable=plain)(model, {"input": images})
    model.compile(backend="eager")
    model(images)  # compiled without the hooks
    assert torch.equal(GradientSketch(model, 1e-3, generator(), observable=plain)(model, {"input": images}), expected)


def test_lets_modules_be_that_are_not_used() -> None:
    model = Idle(nn.Linear(4, 2))
    rows = GradientSketch(model, 1e-3, generator(), observable=plain)(model, {"input": torch.randn(4, 4)})
    assert rows.shape == (4, 512) and bool((rows != 0).all())


@pytest.mark.parametrize(("labels", "most", "expected"), [(2, 8, 1), (3, 8, 2), (150, 8, 8), (150, 3, 3)])
def test_counts_backward_passes(labels: int, most: int, expected: int) -> None:
    model, _ = sketch_models.build("bert")
    model.config.num_labels = labels  # type: ignore[union-attr]
    assert num_backward_passes(model, probabilities, most) == expected
    assert num_backward_passes(model, features, most) == most


def test_where_weights_are_gathered_for_one_backward_pass_each_has_a_forward_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, inputs = nn.Sequential(nn.Linear(4, 3)), {"x": torch.randn(6, 4, generator=generator(1))}
    passes: list[int] = []

    def observe(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        outputs: Tensor = model(inputs["x"])
        number = len(passes)
        passes.append(0)

        def count(_: Tensor) -> None:
            passes[number] += 1

        outputs.register_hook(count)
        return outputs

    def rows() -> Tensor:
        passes.clear()
        sketch = GradientSketch(model, 1e-3, generator(), observable=observe, num_projections=6)
        return torch.cat([sketch(model, inputs), sketch(model, inputs)])

    expected = rows()
    assert passes == [4, 0, 0, 3, 3], "six examples apart, the use of weights twice, and each batch"
    for name in ("is_zero3", "is_sharded"):
        monkeypatch.setattr(f"hf_noise_al.noise.gradient_sketch.sketch.{name}", lambda of: True)
    assert torch.equal(rows(), expected)
    assert passes == [1] * (MOST_CHECKS + 3 + 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["bert", "modern_bert", "lora", "resnet", "segformer"])
def test_rows_on_a_gpu_are_those_of_a_cpu(name: str) -> None:
    model, inputs = sketch_models.build(name)
    expected = GradientSketch(model, 1e-3, generator(), observable=mean_logits)(model, inputs)
    model, inputs = model.cuda(), {key: value.cuda() for key, value in inputs.items()}
    rows = GradientSketch(model, 1e-3, generator(), observable=mean_logits)(model, inputs)
    assert rows.is_cuda
    assert float((rows.cpu() - expected).norm() / expected.norm()) < 1e-3
