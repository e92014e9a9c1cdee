"""Weight gradients of single layers, one per example, in the form that makes projecting them cheap.

A layer's weight gradient for one example is a sum over positions of an outer product: output gradient times input. Its
product with rank-one noise needs two thin products and a sum; the gradient itself is never built.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...processes.sharded_weights import class_name, global_shape

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
_OWN_FORWARD = (nn.Linear, nn.Embedding, nn.Conv2d, *_NORMS)


@dataclass(frozen=True)
class OuterProducts:
    """Sum over positions of ``left ⊗ right``."""

    left: Tensor
    """(B, T, rows of the weight), or (B, T) indices of rows, each standing for a one-hot vector."""
    right: Tensor
    """(B, T, columns of the weight)."""

    @property
    def like(self) -> Tensor:
        """A tensor with the device and the type that noise must have."""
        return self.right

    def products(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply both sides by noise, (rows, W) and (columns, W): two of (B, T, W)."""
        rows, columns = rows.to(self.right.dtype), columns.to(self.right.dtype)
        return self.left @ rows if self.left.is_floating_point() else rows[self.left], self.right @ columns


@dataclass(frozen=True)
class Patches:
    """A convolution's gradient: outer products of output gradients and patches of the input."""

    module: nn.Conv2d
    inputs: Tensor
    """(B, C, H, W)."""
    gradient: Tensor
    """(B, C', H', W')."""

    @property
    def like(self) -> Tensor:
        """A tensor with the device and the type that noise must have."""
        return self.gradient

    def products(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply both sides by noise, (C', W) and (C * h * w, W): two of (B, positions, W)."""
        module = self.module
        kernels = columns.T.reshape(-1, *_weight_shape(module)[1:]).to(self.inputs.dtype)
        right = F.conv2d(self.inputs, kernels, None, module.stride, module.padding, module.dilation)
        left = self.gradient.flatten(2).transpose(1, 2) @ rows.to(self.gradient.dtype)
        return left, right.flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class Matrices:
    """The gradients themselves, where they are small: (B, rows, columns)."""

    values: Tensor

    @property
    def like(self) -> Tensor:
        """A tensor with the device and the type that noise must have."""
        return self.values

    def products(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply both sides by noise; the rows of the weight stand for positions: two of (B, rows, W)."""
        right = self.values @ columns.to(self.values.dtype)
        return rows.to(right.dtype).expand(len(right), -1, -1), right


@dataclass(frozen=True)
class Vectors:
    """The gradients of a one-dimensional parameter: (B, n)."""

    values: Tensor


LayerGradient: TypeAlias = OuterProducts | Patches | Matrices | Vectors


def why_unsupported(module: nn.Module, parameter: str) -> str | None:
    """Return why the gradient of a module's `parameter` cannot be had in this form; None where it can."""
    if parameter not in ("weight", "bias") or (not isinstance(module, _OWN_FORWARD) and not _is_own_kind(module)):
        return f"a {parameter} of {type(module).__name__}"
    for kind in _OWN_FORWARD:
        known = _is_scaled_embedding(module) or _is_position_table(module) or _has_data_format(module)
        if isinstance(module, kind) and type(module).forward is not kind.forward and not known:
            return f"{type(module).__name__} has a forward of its own"
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return "an Embedding with `max_norm`, which changes its weights"
    if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
        return f"a Conv2d with padding_mode={module.padding_mode!r}"
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is None:
        return f"a {type(module).__name__} without running statistics mixes examples"
    return None


def layer_input(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """Return what `layer_gradient` needs to know of a call: the input, or the rows that a table looked up."""
    if _is_position_table(module):
        device = next(module.parameters()).device
        numbers = torch.arange(_weight_shape(module)[0], dtype=torch.float32, device=device)
        return _with_weight(module, numbers[:, None], *args, **kwargs)[..., 0].long()
    inputs: Tensor = args[0] if args else next(iter(kwargs.values()))
    return inputs.detach()


def layer_gradient(module: nn.Module, parameter: str, inputs: Tensor, gradient: Tensor, size: int) -> LayerGradient:
    """Return the gradients of a supported module's `parameter` for each of `size` examples.

    Args:
        module: The layer.
        parameter: "weight" or "bias".
        inputs: Its `layer_input`; the first dimension is that of the examples, possibly times parts of them.
        gradient: Of what is differentiated, by the layer's output.
        size: B, the number of examples.
    """
    if isinstance(module, nn.Embedding):
        if _is_scaled_embedding(module):
            scale = module.embed_scale
            assert isinstance(scale, Tensor | float)
            gradient = gradient * scale
        return OuterProducts(inputs.reshape(size, -1), gradient.reshape(size, -1, gradient.shape[-1]))
    if isinstance(module, nn.Conv2d):
        return _convolution(module, parameter, inputs, gradient, size)
    if isinstance(module, nn.Linear) or _is_conv1d(module):
        left = gradient.reshape(size, -1, gradient.shape[-1])
        if parameter == "bias":
            return Vectors(left.sum(dim=1))
        right = inputs.to(gradient.dtype).reshape(size, -1, inputs.shape[-1])
        return OuterProducts(left, right) if isinstance(module, nn.Linear) else OuterProducts(right, left)
    if _has_data_format(module) and module.data_format == "channels_first":
        inputs, gradient = inputs.movedim(1, -1), gradient.movedim(1, -1)
    product = gradient if parameter == "bias" else gradient * _normalized(module, inputs)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm):
        channels = product.shape[1]
        return Vectors(product.reshape(size, -1, channels, product[0, 0].numel()).sum(dim=(1, 3)))
    return Vectors(product.reshape(size, -1, math.prod(_weight_shape(module))).sum(dim=1))


def _convolution(
    module: nn.Conv2d, parameter: str, inputs: Tensor, gradient: Tensor, size: int
) -> Patches | Matrices | Vectors:
    if parameter == "bias":
        return Vectors(gradient.reshape(size, -1, *gradient.shape[1:]).sum(dim=(1, 3, 4)))
    inputs = inputs.to(gradient.dtype)
    if module.groups == 1 and len(inputs) == size:
        return Patches(module, inputs, gradient)
    found = _gradient_of_each_image(module, inputs, gradient)
    return Matrices(found.reshape(size, -1, *found.shape[1:]).sum(dim=1))


def _gradient_of_each_image(module: nn.Conv2d, inputs: Tensor, gradient: Tensor) -> Tensor:
    """Return weight gradients (B, C', C/groups * h * w): images as groups, output gradients as kernels."""
    if isinstance(module.padding, str):
        inputs = F.pad(inputs, module._reversed_padding_repeated_twice)
        padding: tuple[int, ...] = (0, 0)
    else:
        padding = module.padding
    images, groups = len(inputs), module.groups
    _, of_group, height, width = _weight_shape(module)
    maps = inputs.reshape(images, groups, of_group, *inputs.shape[2:]).movedim(2, 0)
    kernels = gradient.reshape(-1, 1, *gradient.shape[2:])
    found = F.conv2d(
        maps.reshape(of_group, images * groups, *inputs.shape[2:]),
        kernels,
        None,
        module.dilation,  # stride and dilation change places
        padding,
        module.stride,
        groups=images * groups,
    )[..., :height, :width]
    return found.movedim(0, 1).reshape(images, -1, of_group * height * width)


def _normalized(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return what a norm layer multiplies its weight with."""
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(inputs, module.normalized_shape, None, None, module.eps)
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(inputs, module.num_groups, None, None, module.eps)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return F.batch_norm(inputs, module.running_mean, module.running_var, None, None, False, 0.0, module.eps)
    one, zero = (_with_weight(module, inputs.new_full(_weight_shape(module), value), inputs) for value in (1, 0))
    return one - zero  # some add one to their weight


def _with_weight(module: nn.Module, weight: Tensor, *inputs: Any, **settings: Any) -> Tensor:
    """Return what `module` would with another weight, past its hooks: those of ZeRO-3 know their own weights alone."""
    other = copy.copy(module)
    other._parameters = {"weight": nn.Parameter(weight, requires_grad=False)}
    outputs: Tensor = type(other).forward(other, *inputs, **settings)
    return outputs


def _is_own_kind(module: nn.Module) -> bool:
    return _is_conv1d(module) or _is_rms_norm(module)


def _is_conv1d(module: nn.Module) -> bool:
    """Return whether `module` is the ``Conv1D`` of transformers: a linear layer, its weight transposed."""
    return class_name(module) == "Conv1D" and hasattr(module, "nf") and len(_weight_shape(module)) == 2


def _is_scaled_embedding(module: nn.Module) -> bool:
    """Return whether `module` is an embedding of transformers that multiplies its output with ``embed_scale``."""
    return isinstance(module, nn.Embedding) and type(module).__name__.endswith("ScaledWordEmbedding")


def _is_position_table(module: nn.Module) -> bool:
    """Return whether `module` is a table of transformers that works out itself which rows to look up (BART, OPT)."""
    return isinstance(module, nn.Embedding) and class_name(module).endswith("LearnedPositionalEmbedding")


def _has_data_format(module: nn.Module) -> bool:
    """Return whether `module` is a layer norm of transformers that may have its channels first (ConvNext)."""
    return isinstance(module, nn.LayerNorm) and hasattr(module, "data_format")


def _is_rms_norm(module: nn.Module) -> bool:
    names = [name for name, parameter in module._parameters.items() if parameter is not None]
    known = type(module).__name__.endswith(("RMSNorm", "T5LayerNorm"))  # T5 calls it so
    return known and names == ["weight"] and len(_weight_shape(module)) == 1


def _weight_shape(module: nn.Module) -> tuple[int, ...]:
    """Return the shape of the whole weight, also where this process holds a part of it; () where there is none."""
    weight = module._parameters.get("weight")  # `module.weight` would let ZeRO-3 gather it
    return () if weight is None else global_shape(weight)
