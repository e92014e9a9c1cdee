"""Which tensors of a model are perturbed: the ones that the setting `parameter_filter` chooses."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..observables.base import names_in_base_model
from ..processes.sharded_weights import check_layout, class_name, global_numel, local
from ..refusals import Refusal
from .full_precision import LOW_PRECISION

logger = logging.getLogger(__name__)

PARAMETER_FILTERS = ("weight", "all", "trainable", "head")
_PLAIN_TYPES = (torch.float32, torch.float64, *LOW_PRECISION)
_WRAPPER_NAMES = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


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
        raise Refusal(
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
        raise Refusal(
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
        raise Refusal(
            f"`parameter_filter={parameter_filter!r}` is not a regular expression ({error}), and not one of "
            f"{', '.join(PARAMETER_FILTERS)}."
        ) from None


def _check_plain(name: str, parameter: Tensor) -> None:
    held = local(parameter) if type(parameter) is DTensor else parameter
    if type(held) not in (nn.Parameter, Tensor) or parameter.dtype not in _PLAIN_TYPES:
        raise Refusal(
            f"Cannot perturb {name}: it is a {type(parameter).__name__} of {parameter.dtype}, and noise needs plain "
            "floating-point weights. Load the model without quantization, or choose other tensors by "
            "`parameter_filter` (for LoRA on a quantized model: 'trainable')."
        )
    check_layout(name, parameter)


def _clean(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPER_NAMES)
