"""Use of weights: outside of their module's calls, and through modules whose outputs matter."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hf_noise_al.noise.gradient_sketch.weight_use import Held, decisive, decisive_tensors, detached, used_directly


class Twice(nn.Module):
    """Calls `first`, uses the weight of `second` by itself, and `third` in both ways; `fourth` is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third, self.fourth = (nn.Linear(3, 3) for _ in range(4))

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = nn.functional.linear(self.first(hidden), self.second.weight)
        return self.third(hidden) @ self.third.weight  # type: ignore[no-any-return]


def held_by(model: nn.Module) -> Held:
    return [(module, {"weight": f"{name}.weight"}) for name, module in model.named_children()]


@pytest.mark.parametrize("frozen", [False, True])
def test_names_what_is_used_outside_of_a_call(frozen: bool) -> None:
    model, rows = Twice().requires_grad_(not frozen), torch.randn(2, 3)
    before = list(model.parameters())
    assert used_directly(held_by(model), lambda: model(rows)) == ["second.weight", "third.weight"]
    assert all(a is b and a.requires_grad is not frozen for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in before)
    assert used_directly(held_by(model)[:1], lambda: model(rows)) == []
    assert used_directly([], lambda: model(rows)) == []


def test_a_tied_weight_may_be_used_through_either_module() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    held = [(first, {"weight": "shared"}), (second, {"weight": "shared"})]
    rows = torch.randn(2, 3)
    assert used_directly(held, lambda: second(first(rows))) == []
    assert used_directly(held, lambda: first(rows) @ second.weight) == ["shared"]
    assert second.weight is first.weight


def test_a_run_that_raises_leaves_the_weights_where_they_were() -> None:
    model = nn.Sequential(nn.Linear(3, 3))

    class Interrupted(nn.Module):
        def forward(self, hidden: Tensor) -> Any:
            raise KeyboardInterrupt

    weight, forward = model[0].weight, model[0].forward
    model[0].forward = Interrupted().forward  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        used_directly(held_by(model), lambda: model(torch.randn(2, 3)))
    model[0].forward = forward  # type: ignore[method-assign]
    assert model[0].weight is weight and not model[0]._forward_hooks and not model[0]._forward_pre_hooks


def test_names_modules_whose_outputs_matter() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle, self.fixed, self.head = (nn.Linear(3, 3) for _ in range(3))

        def forward(self, hidden: Tensor) -> Tensor:
            self.idle(hidden)
            with torch.no_grad():
                hidden = nn.functional.layer_norm(self.fixed(hidden), (3,))
            return self.head(hidden)  # type: ignore[no-any-return]

    model, rows = Model(), torch.randn(2, 3)
    outputs = model(rows).detach()
    assert decisive(held_by(model), lambda: model(rows), outputs) == ["fixed.weight", "head.weight"]
    assert not any(module._forward_hooks for module in model.modules())
    assert decisive([], lambda: model(rows), outputs) == []
    assert decisive(held_by(model), lambda: model(rows), outputs * torch.nan) == []
    small = outputs * 1e-7
    assert decisive(held_by(model)[1:2], lambda: model(rows) * 1e-7, small) == ["fixed.weight"]


def test_names_tensors_whose_entries_matter_and_puts_them_back() -> None:
    model, rows = Twice(), torch.randn(2, 3)
    tensors = dict(model.named_parameters())
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    outputs = model(rows).detach()
    found = decisive_tensors(tensors, lambda: model(rows), outputs)
    assert found == ["first.weight", "first.bias", "second.weight", "third.weight", "third.bias"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_parameters())

    def interrupted() -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decisive_tensors(tensors, interrupted, outputs)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_parameters())


class Detaches(nn.Module):
    """What comes of `first` goes on detached and as it is, what comes of `second` is looked at and let go."""

    def __init__(self, attribute: bool) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(3, 3) for _ in range(3))
        self.attribute = attribute

    def forward(self, hidden: Tensor) -> Tensor:
        first, second = self.first(hidden), self.second(hidden)
        assert second.detach().isfinite().all()
        fixed = first.data if self.attribute else first.detach()
        return self.third(fixed) + first + second  # type: ignore[no-any-return]


@pytest.mark.parametrize("attribute", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_names_what_is_detached_beside_a_path_that_is_not(attribute: bool, frozen: bool) -> None:
    model, rows = Detaches(attribute).requires_grad_(not frozen), torch.randn(2, 3)
    tensors = {name: tensor for name, tensor in model.named_parameters() if name.endswith("weight")}
    outputs = model(rows).detach()
    assert sorted(detached(tensors, lambda: model(rows), outputs)) == ["first.weight", "second.weight"]
    assert all(p.requires_grad is not frozen and p.grad is None for p in model.parameters())
    assert torch.equal(model(rows), outputs)
    model.third = nn.Linear(3, 3)
    nn.init.zeros_(model.third.weight)
    outputs = model(rows).detach()
    assert detached(tensors, lambda: model(rows), outputs) == [], "it does not matter"


def test_what_softmax_is_shifted_by_may_be_detached() -> None:
    linear, rows = nn.Linear(3, 3), torch.randn(2, 3)

    def run() -> Tensor:
        scores = linear(rows)
        shifted = (scores - scores.amax(dim=1, keepdim=True).detach()).exp()
        return shifted / shifted.sum(dim=1, keepdim=True)

    assert detached({"weight": linear.weight}, run, run().detach()) == []
