"""Each layer's weight gradient for each example, where models of transformers do not reach; and what has no rule."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.opt.modeling_opt import OPTLearnedPositionalEmbedding

from hf_noise_al.noise.gradient_sketch.layer_rules import Vectors, layer_gradient, layer_input, why_unsupported

SIZE = 3


def images(channels: int = 6, side: int = 9) -> Tensor:
    return torch.randn(SIZE, channels, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def batch_norm(kind: type[nn.BatchNorm1d] | type[nn.BatchNorm2d], channels: int) -> nn.Module:
    module = kind(channels)
    assert module.running_mean is not None and module.running_var is not None
    module.running_mean.normal_()
    module.running_var.uniform_(0.5, 2)
    return module.eval()


class WeightOnes(nn.Module):
    """An RMS norm that multiplies by one plus its weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-6) * (1 + self.weight)


class PlusOneRMSNorm(WeightOnes):
    """Known by its name."""


LAYERS: dict[str, tuple[Any, Tensor]] = {
    "linear": (lambda: nn.Linear(5, 4), tokens(SIZE, 7, 5)),
    "linear without positions": (lambda: nn.Linear(5, 4), tokens(SIZE, 5)),
    "linear on examples cut in parts": (lambda: nn.Linear(5, 4), tokens(SIZE * 2, 7, 5)),
    "embedding": (lambda: nn.Embedding(9, 4, padding_idx=0), torch.tensor([[1, 0, 1], [8, 2, 0], [3, 3, 3]])),
    "convolution": (lambda: nn.Conv2d(6, 4, 3), images()),
    "strides, padding, dilation": (lambda: nn.Conv2d(6, 4, 3, stride=2, padding=(2, 1), dilation=2), images()),
    "same padding": (lambda: nn.Conv2d(6, 4, (2, 4), padding="same"), images()),
    "groups": (lambda: nn.Conv2d(6, 9, 3, stride=2, padding=1, groups=3), images()),
    "groups, dilation, odd strides": (lambda: nn.Conv2d(6, 6, 2, stride=3, dilation=2, groups=2), images()),
    "groups, same padding": (lambda: nn.Conv2d(6, 6, (2, 4), padding="same", groups=2), images()),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6), images()),
    "images cut in parts": (lambda: nn.Conv2d(6, 4, 3), images().repeat(2, 1, 1, 1)),
    "layer norm": (lambda: nn.LayerNorm(5), tokens(SIZE, 7, 5)),
    "layer norm over a map": (lambda: nn.LayerNorm((6, 9, 9)), images()),
    "group norm": (lambda: nn.GroupNorm(3, 6), images()),
    "batch norm of maps": (lambda: batch_norm(nn.BatchNorm2d, 6), images()),
    "batch norm of rows": (lambda: batch_norm(nn.BatchNorm1d, 5), tokens(SIZE, 5)),
    "batch norm of sequences": (lambda: batch_norm(nn.BatchNorm1d, 5), tokens(SIZE, 5, 7)),
    "batch norm of maps cut in parts": (lambda: batch_norm(nn.BatchNorm2d, 6), images().repeat(2, 1, 1, 1)),
    "group norm of maps cut in parts": (lambda: nn.GroupNorm(3, 6), images().repeat(2, 1, 1, 1)),
    "torch's RMS norm": (lambda: nn.RMSNorm(5), tokens(SIZE, 7, 5)),
    "another RMS norm": (lambda: PlusOneRMSNorm(5), tokens(SIZE, 7, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradient_of_each_example_is_that_of_autograd(name: str) -> None:
    torch.manual_seed(0)
    build, inputs = LAYERS[name]
    module = build().double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    outputs = module(inputs)
    gradient = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    apart = (outputs * gradient).reshape(SIZE, -1).sum(dim=1)
    for parameter, tensor in module.named_parameters():
        assert why_unsupported(module, parameter) is None
        expected = torch.stack([torch.autograd.grad(one, tensor, retain_graph=True)[0] for one in apart])
        if isinstance(module, nn.Embedding):  # autograd leaves out the padding row, which does reach the outputs
            expected[:, 0] = torch.stack([g[i == 0].sum(dim=0) for i, g in zip(inputs, gradient, strict=True)])
        found = layer_gradient(module, parameter, inputs, gradient, SIZE)
        if isinstance(found, Vectors):
            whole = found.values
        else:
            rows, columns = tensor.shape[0], tensor.shape[1:].numel()
            left, right = found.products(*(torch.eye(n, dtype=torch.float64) for n in (rows, columns)))
            whole = torch.einsum("bti,btj->bij", left, right)
        torch.testing.assert_close(whole.reshape(expected.shape), expected)


def test_a_table_of_positions_says_which_rows_it_looks_up_also_where_there_are_more_than_columns() -> None:
    table, mask = OPTLearnedPositionalEmbedding(12, 4), torch.tensor([[1] * 9, [0, 0] + [1] * 7])
    rows = layer_input(table, [mask], {})
    assert rows.shape == (2, 9) and len(rows[0].unique()) == 9
    assert torch.equal(table.weight[rows], table(mask))


class Doubling(nn.Linear):
    """A linear layer that does something else."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    ("module", "parameter", "why"),
    [
        (nn.Conv1d(2, 2, 1), "weight", "a weight of Conv1d"),
        (nn.Bilinear(2, 2, 2), "weight", "a weight of Bilinear"),
        (nn.LSTM(2, 2), "weight_ih_l0", "a weight_ih_l0 of LSTM"),
        (WeightOnes(3), "weight", "a weight of WeightOnes"),
        (Doubling(2, 2), "weight", "Doubling has a forward of its own"),
        (nn.Embedding(3, 2, max_norm=1.0), "weight", "max_norm"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "weight", "padding_mode='reflect'"),
        (nn.BatchNorm2d(2, track_running_stats=False), "weight", "without running statistics mixes examples"),
    ],
)
def test_says_what_has_no_rule(module: nn.Module, parameter: str, why: str) -> None:
    found = why_unsupported(module, parameter)
    assert found is not None and why in found
