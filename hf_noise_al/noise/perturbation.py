"""Perturbations: relative Gaussian weight noise that lasts as long as a ``with`` block."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from numbers import Real

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..observables.base import names_in_base_model
from ..processes.generators import named_generator
from ..processes.sharded_weights import (
    check_layout,
    class_name,
    gathered_dtypes,
    global_norms,
    global_numel,
    global_shape,
    is_sharded,
    local,
    local_part,
    settle,
)

logger = logging.getLogger(__name__)

MOST_NOISE = 1.0
"""The largest `noise_scale`: noise as long as the weights that it is added to."""

PARAMETER_FILTERS = ("weight", "all", "trainable", "head")
_LOW_PRECISION = (torch.bfloat16, torch.float16)
_PLAIN_TYPES = (torch.float32, torch.float64, *_LOW_PRECISION)
_WRAPPER_NAMES = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


@contextmanager
def perturbed(
    model: nn.Module, noise_scale: float, generator: torch.Generator, parameter_filter: str = "weight"
) -> Iterator[None]:
    """Add Gaussian noise to the weights of `model` inside the block; restore them bit for bit afterwards.

    Each tensor W gets ``noise_scale * ||W|| * V / ||V||``, V standard Gaussian of W's shape, Frobenius norms
    (Deep Active Learning with Noise Stability, AAAI 2024). The noise of a tensor depends on one draw from `generator`
    and on the tensor's name, and is made on the CPU, so it is the same on every device. Only one copy of the
    perturbed tensors is kept, and it is what restores them, also when the body raises. Of sharded weights each process
    changes and keeps its own part, by the norms and the noise of the whole; every process must enter the block.

    Args:
        model: The model; its parameters change in place.
        noise_scale: Length of the noise relative to that of the tensor, finite and positive.
        generator: CPU generator; exactly one number is drawn.
        parameter_filter: Which tensors, see `perturbed_tensors`.

    Raises:
        ValueError: the filter matches nothing, a matched tensor is quantized, or `noise_scale` is out of range.
    """
    check_noise_scale(noise_scale)
    settle(model)
    tensors = perturbed_tensors(model, parameter_filter)
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    norms = dict(zip(tensors, global_norms(list(tensors.values())), strict=True))
    originals = {name: local(tensor).clone() for name, tensor in tensors.items()}
    try:
        with torch.no_grad():
            for name, tensor in tensors.items():
                _add_noise(tensor, originals[name], noise_scale * norms[name], named_generator(seed, name))
        yield
    finally:
        settle(model)
        with torch.no_grad():
            for name, tensor in tensors.items():
                local(tensor).copy_(originals[name])


def perturbed_tensors(model: nn.Module, parameter_filter: str = "weight") -> dict[str, nn.Parameter]:
    """Return the parameters that `parameter_filter` chooses, by name, each distinct tensor once.

    Args:
        model: The model, possibly wrapped by PEFT.
        parameter_filter: ``"weight"``, the paper's choice: the `.weight` of every module that has one (linear,
            ``Conv1D``, convolution, embedding and norm layers), no biases. ``"all"``: every parameter.
            ``"trainable"``: every parameter that requires a gradient. ``"head"``: what lies outside the model's
            ``base_model``. Anything else: a regular expression searched for in parameter names.

    Raises:
        ValueError: nothing matches, or a match is not a plain floating-point tensor (quantized weights).
    """
    chosen: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for name, parameter in _matching(model, parameter_filter):
        if id(parameter) not in seen:
            seen.add(id(parameter))
            chosen[_clean(name)] = parameter
    if not chosen:
        raise ValueError(
            f"`parameter_filter={parameter_filter!r}` matches no parameter of {class_name(model)}. "
            f"Use one of {', '.join(PARAMETER_FILTERS)}, or a regular expression over names such as "
            f"{[name for name, _ in model.named_parameters()][:3]}."
        )
    for name, parameter in chosen.items():
        _check_plain(name, parameter)
    return chosen


def log_choice(model: nn.Module, parameter_filter: str) -> None:
    """Log how many parameters `parameter_filter` chooses and which it leaves out, biases apart."""
    chosen = perturbed_tensors(model, parameter_filter)
    ids = {id(parameter) for parameter in chosen.values()}
    rest = {name: p for name, p in model.named_parameters() if id(p) not in ids and p.is_floating_point()}
    biases = [name for name in rest if name.endswith("bias")]
    others = [name for name in rest if not name.endswith("bias")]
    logger.info(
        "parameter_filter=%r perturbs %d tensors (%s parameters) and leaves out %d biases and %d other tensors "
        "(%s parameters)%s",
        parameter_filter,
        len(chosen),
        f"{sum(map(global_numel, chosen.values())):,}",
        len(biases),
        len(others),
        f"{sum(global_numel(rest[name]) for name in others):,}",
        (": " + ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")) if others else "",
    )


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
    low = found.intersection(_LOW_PRECISION) - {allowed}
    if low:
        sketch = '{"estimator": "gradient_sketch", "autocast": "bfloat16"}'
        raise ValueError(
            f"Noise stability computes in float32, and the sharded weights are {low.pop()} or become it where they are "
            "gathered, which cannot be switched off. Load the model in float32 and train without mixed precision "
            "(`mixed_precision: 'no'`, neither `bf16` nor `fp16`); where it is bfloat16, let the gradient sketch "
            f"compute in it (`acquisition_kwargs` {sketch}); use DistributedDataParallel; or choose an acquisition "
            "that perturbs nothing."
        )


def check_noise_scale(noise_scale: float) -> None:
    """Raise ValueError unless `noise_scale` is a positive number of at most `MOST_NOISE`."""
    number = isinstance(noise_scale, Real) and not isinstance(noise_scale, bool)
    if not number or not 0 < noise_scale < float("inf"):
        raise ValueError(f"`noise_scale` must be a positive finite number, got {noise_scale!r}. The paper uses 1e-3.")
    if noise_scale > MOST_NOISE:
        raise ValueError(
            f"`noise_scale` must be at most {MOST_NOISE}, got {noise_scale!r}: it is relative, and at {MOST_NOISE} the "
            "noise on a weight tensor is as long as the tensor, so that outputs would tell of the noise alone. "
            "The paper uses 1e-3."
        )


def _matching(model: nn.Module, parameter_filter: str) -> Iterator[tuple[str, nn.Parameter]]:
    if parameter_filter == "weight":
        for name, module in model.named_modules():
            weight = module._parameters.get("weight")  # getattr would see a wrapper's view of another module's weight
            if weight is not None:
                yield (f"{name}.weight" if name else "weight"), weight
        return
    pattern = None if parameter_filter in PARAMETER_FILTERS else _compiled(parameter_filter)
    inside = names_in_base_model(model) if parameter_filter == "head" else set()
    if parameter_filter == "head" and not inside:
        raise ValueError(
            f"`parameter_filter='head'` needs a model with a `base_model`, {class_name(model)} has none. "
            "Use a regular expression over parameter names."
        )
    for name, parameter in model.named_parameters(remove_duplicate=pattern is None):  # a tied tensor has two names
        if (
            parameter_filter == "all"
            or (parameter_filter == "trainable" and parameter.requires_grad)
            or (parameter_filter == "head" and name.rpartition(".")[0] not in inside)
            or (pattern is not None and pattern.search(_clean(name)))
        ):
            yield name, parameter


def _compiled(parameter_filter: str) -> re.Pattern[str]:
    try:
        return re.compile(parameter_filter)
    except re.error as error:
        raise ValueError(
            f"`parameter_filter={parameter_filter!r}` is not a regular expression ({error}), and not one of "
            f"{', '.join(PARAMETER_FILTERS)}."
        ) from None


def _check_plain(name: str, parameter: Tensor) -> None:
    held = local(parameter) if type(parameter) is DTensor else parameter
    if type(held) not in (nn.Parameter, Tensor) or parameter.dtype not in _PLAIN_TYPES:
        raise ValueError(
            f"Cannot perturb {name}: it is a {type(parameter).__name__} of {parameter.dtype}, and noise needs plain "
            "floating-point weights. Load the model without quantization, or choose other tensors by "
            "`parameter_filter` (for LoRA on a quantized model: 'trainable')."
        )
    check_layout(name, parameter)


def _clean(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPER_NAMES)


def _add_noise(parameter: Tensor, original: Tensor, length: float, generator: torch.Generator) -> None:
    """Write `original` plus noise of `length`, made whole, to the part of `parameter` that this process holds."""
    tensor, shape = local(parameter), global_shape(parameter)
    wide = original.dtype == torch.float64
    whole = tuple(tensor.shape) == shape
    in_place = whole and tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()
    noise = tensor.normal_(generator=generator) if in_place else torch.randn(shape, generator=generator)
    noise.mul_(length / max(float(torch.linalg.vector_norm(noise)), torch.finfo(torch.float32).tiny))
    if in_place:
        tensor.add_(original)
    else:
        noise = local_part(parameter, noise).to(tensor.device)
        tensor.copy_(original + noise if wide else noise.add_(original))


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


@contextmanager
def _float32_tensors(model: nn.Module) -> Iterator[None]:
    """Put float32 copies in the place of tensors: to cast a parameter would unhook DistributedDataParallel from it."""
    places = [
        (module, name, tensor)
        for module in model.modules()
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]
        if tensor is not None and tensor.dtype in _LOW_PRECISION
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
