"""Float32 for the time of a ``with`` block, whatever the training precision is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from ..processes.sharded_weights import gathered_dtypes, is_sharded, settle
from ..refusals import Refusal

LOW_PRECISION = (torch.bfloat16, torch.float16)


@contextmanager
def full_precision(model: nn.Module, gathered_as: torch.dtype | None = None) -> Iterator[None]:
    """Compute in float32 inside the block: weights and buffers cast, autocast and TF32 off; exact restore.

    The deviations of noise stability are smaller than the rounding of bfloat16, float16 and TF32 products, so finite
    differences mean something only here. Weights of lower precision get a float32 copy for the time of the block.

    Args:
        model: The model.
        gathered_as: A lower precision that sharded weights may have, or be gathered in; they keep it in the block.

    Raises:
        ValueError: weights are sharded in another low precision, or are cast to it where they are gathered.
    """
    sharded = is_sharded(model)
    if sharded:
        settle(model)
        check_sharded_precision({p.dtype for p in model.parameters()} | gathered_dtypes(model), gathered_as)
    with ExitStack() as stack:
        for device_type in {tensor.device.type for tensor in _tensors(model)} or {"cpu"}:
            stack.enter_context(torch.autocast(device_type, enabled=False))
        stack.enter_context(_ieee_products())
        stack.enter_context(_without_accelerate_autocast(model))
        if not sharded:
            stack.enter_context(_float32_tensors(model))
        yield


def check_sharded_precision(found: set[torch.dtype], allowed: torch.dtype | None) -> None:
    """Raise ValueError where sharded weights, found in these types, are in a lower precision than `allowed`."""
    low = found.intersection(LOW_PRECISION) - {allowed}
    if low:
        sketch = '{"estimator": "gradient_sketch", "autocast": "bfloat16"}'
        raise Refusal(
            f"Noise stability computes in float32, and the sharded weights are {low.pop()} or become it where they are "
            "gathered, which cannot be switched off. Load the model in float32 and train without mixed precision "
            "(`mixed_precision: 'no'`, neither `bf16` nor `fp16`); where it is bfloat16, let the gradient sketch "
            f"compute in it (`acquisition_kwargs` {sketch}); use DistributedDataParallel; or choose an acquisition "
            "that perturbs nothing."
        )


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


@contextmanager
def _float32_tensors(model: nn.Module) -> Iterator[None]:
    """Put float32 copies in the place of tensors: to cast a parameter would unhook DistributedDataParallel from it."""
    places = [
        (module, name, tensor)
        for module in model.modules()
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]
        if tensor is not None and tensor.dtype in LOW_PRECISION
    ]
    try:
        copies: dict[int, Tensor] = {}
        for module, name, tensor in places:
            if id(tensor) not in copies:
                wide = tensor.detach().float()
                is_parameter = isinstance(tensor, nn.Parameter)
                copies[id(tensor)] = nn.Parameter(wide, tensor.requires_grad) if is_parameter else wide
            setattr(module, name, copies[id(tensor)])
        yield
    finally:
        for module, name, tensor in places:
            setattr(module, name, tensor)


@contextmanager
def _without_accelerate_autocast(model: nn.Module) -> Iterator[None]:
    """Call the model's own `forward` instead of the autocasting one that accelerate put on the instance."""
    attributes = model.__dict__
    if "forward" not in attributes or "_original_forward" not in attributes:
        yield
        return
    wrapped = attributes["forward"]
    attributes["forward"] = attributes["_original_forward"]
    try:
        yield
    finally:
        attributes["forward"] = wrapped


@contextmanager
def _ieee_products() -> Iterator[None]:
    backends = torch.backends
    if hasattr(backends.cuda.matmul, "fp32_precision"):  # torch >= 2.9 refuses a mix of old and new names
        cudnn, mkldnn = backends.cudnn, backends.mkldnn
        places = [backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]  # type: ignore[attr-defined]
        saved = [place.fp32_precision for place in places]
        try:
            for place in places:
                place.fp32_precision = "ieee"
            yield
        finally:
            for place, value in zip(places, saved, strict=True):
                place.fp32_precision = value
    else:
        precision, convolutions = torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32
        try:
            torch.set_float32_matmul_precision("highest")
            backends.cudnn.allow_tf32 = False
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
            backends.cudnn.allow_tf32 = convolutions
