"""Whether a model keeps the examples of its first batch apart, and taps see every way to its outputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .followed import Followed
from .layer_taps import LayerTaps, UnsupportedModuleError, cannot_tell_apart, ignore
from .weight_use import decisive, decisive_tensors, detached, requiring_gradients, used_directly

Observed: TypeAlias = Callable[[], Tensor]
"""() -> what the model's outputs for one batch are, computed anew."""

MOST_CHECKS = 6
"""Most backward passes to check that each example is computed on its own; always so many where weights are sharded."""

ALONE_TOLERANCE = 1e-3
"""What the outputs of an example may differ by, alone and in a batch, relative to the largest."""


def check_together(
    followed: Followed,
    observed: Observed,
    size: int,
    graphs: Callable[[Tensor], Iterator[Tensor]],
    sharded: bool,
) -> None:
    """Refuse a model in which perturbed weights reach the outputs in ways that the taps do not see.

    Where weights are sharded they are followed through their modules alone: every process has to pass the model as
    often as the others.

    Args:
        followed: The perturbed tensors.
        observed: Passes a batch of at least two examples through the model.
        size: Examples in that batch.
        graphs: ``(outputs) -> outputs for one backward pass after another``.
        sharded: Whether weights are sharded.
    """
    with LayerTaps(followed.tapped, size) as taps:
        outputs = _checked_outputs(observed, taps)
        if not taps.called:
            raise UnsupportedModuleError(
                "The gradient sketch saw none of the perturbed modules called. Use one_by_one=True or "
                "estimator='finite_difference'."
            )
        if outputs.requires_grad:
            taps.check_that_rows_are_apart(graphs(outputs), _codes(size, MOST_CHECKS if sharded else None))
    if sharded:
        return
    if used := used_directly(followed.tapped, observed):
        raise _cannot_follow(used, "otherwise than through a call of its module", "one_by_one=True or ")
    _refuse_detached(followed, taps, observed, outputs, {})


def check_alone(
    followed: Followed,
    observable: Callable[[Mapping[str, Any]], Tensor],
    inputs: Mapping[str, Any],
    examples: list[dict[str, Any]],
    device_type: str,
) -> None:
    """Refuse a model whose outputs for an example depend on others, and find what must be differentiated itself.

    Args:
        followed: The perturbed tensors; those that are used outside of their modules move to `Followed.direct`.
        observable: Passes inputs through the model.
        inputs: The batch.
        examples: The same, each example as a batch of its own.
        device_type: Of the model.
    """
    with torch.no_grad(), torch.autocast(device_type, enabled=False):
        together = observable(inputs)
        require_row_per_example(together, len(examples))
        alone = torch.cat([observable(example) for example in examples])
    most = ALONE_TOLERANCE * float(together.nan_to_num(0, 0, 0).abs().max())
    if alone.shape != together.shape or not torch.allclose(alone, together, rtol=0, atol=most, equal_nan=True):
        raise UnsupportedModuleError(
            "The gradient sketch takes examples one by one, and the outputs of this model for an example depend on "
            "the others of the batch. Use estimator='finite_difference'."
        )

    def observed() -> Tensor:
        return observable(examples[0])

    followed.take_directly(used_directly(followed.tapped, observed))
    direct = followed.direct
    with requiring_gradients(direct.values()), LayerTaps(followed.tapped, 1) as taps:
        outputs = observed()
        gradients: Sequence[Tensor | None] = [None] * len(direct)
        if outputs.requires_grad:
            taps.check_that_rows_are_apart(itertools.repeat(outputs), torch.ones(1, 1, dtype=torch.bool))
            gradients = taps.backward(outputs.square(), ignore, list(direct.values()))
    silent = {name: direct[name] for name, found in zip(direct, gradients, strict=True) if found is None}
    _refuse_detached(followed, taps, observed, outputs, silent)


def require_row_per_example(outputs: Tensor, size: int) -> None:
    """Raise UnsupportedModuleError unless `outputs` has `size` rows, one for each example."""
    if len(outputs) != size:
        raise UnsupportedModuleError(
            f"The observable returns {len(outputs)} rows, and the first dimension of the largest input is {size}: the "
            "gradient sketch needs examples there. Use estimator='finite_difference'."
        )


def _checked_outputs(observed: Observed, taps: LayerTaps) -> Tensor:
    try:
        outputs = observed()
    except RuntimeError as error:
        if not taps.expanded or isinstance(error, torch.OutOfMemoryError):
            raise
        expanded, taps.expands = taps.expanded, False
        observed()  # raises again where the expanded tables were not the reason
        raise cannot_tell_apart(expanded) from error
    require_row_per_example(outputs, taps.size)
    return outputs


def _refuse_detached(
    followed: Followed, taps: LayerTaps, observed: Observed, outputs: Tensor, tensors: Mapping[str, Tensor]
) -> None:
    """Refuse what changes outputs without a gradient: modules that the taps saw none of, and `tensors`."""
    silent = [(module, known) for module, known in followed.tapped if module in taps.called - taps.seen]
    clean, every = outputs.detach(), {**followed.direct, **followed.tensors()}
    names = (
        decisive(silent, observed, clean)
        or decisive_tensors(tensors, observed, clean)
        or detached(every, observed, clean)
    )
    if names:
        raise _cannot_follow(names, "through something that the model detaches (`detach`, `torch.no_grad`)")


def _cannot_follow(names: list[str], how: str, instead: str = "") -> UnsupportedModuleError:
    return UnsupportedModuleError(
        f"The gradient sketch cannot follow {', '.join(names[:5])}: the outputs depend on it {how}. Use "
        f"{instead}estimator='finite_difference', or leave it out by `parameter_filter`."
    )


def _codes(size: int, passes: int | None) -> Tensor:
    """Return in which of `passes` each of `size` examples takes part: bool (passes, size).

    Of any two examples each takes part in a pass that the other does not: half of the passes, another half for each
    (where `MOST_CHECKS` passes have too few halves, they are given again). Without `passes` they are as few as can be.
    """
    if passes is None:
        passes = next((p for p in range(2, MOST_CHECKS) if math.comb(p, p // 2) >= size), MOST_CHECKS)
    halves = itertools.cycle(itertools.combinations(range(passes), passes // 2))
    codes = torch.zeros(passes, size, dtype=torch.bool)
    for example, half in zip(range(size), halves, strict=False):
        codes[list(half), example] = True
    return codes
