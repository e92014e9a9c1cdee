"""Sharded weights: what this process holds of a tensor, and what the tensor is as a whole.

A tensor is whole, or sharded by FSDP2 (``fully_shard``: a `DTensor` on a mesh of one dimension), or sharded by
DeepSpeed's ZeRO-3 (an empty tensor with attributes: ``ds_tensor`` is this process's part of the flattened whole).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate, Shard

from ..refusals import Refusal

_RELEASES: weakref.WeakKeyDictionary[nn.Module, weakref.WeakMethod[Callable[[], object]]] = weakref.WeakKeyDictionary()


def is_sharded(model: nn.Module) -> bool:
    """Return whether any weight of `model` is sharded: a forward pass then needs every process."""
    return any(isinstance(module, FSDPModule) for module in model.modules()) or any(
        isinstance(parameter, DTensor) or is_zero3(parameter) for parameter in model.parameters()
    )


def settle(model: nn.Module) -> None:
    """Bring every weight back to its sharded form, without communication.

    A forward pass leaves some weights gathered, in tensors that the next one uses or throws away: what is written to
    the shards meanwhile has no effect, and what is written to the gathered tensors is lost.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    release = _RELEASES.get(model, lambda: None)()
    if release is not None:
        release()


def settle_by(model: nn.Module, release: Callable[[], object]) -> None:
    """Let `settle` call `release`, a method of the engine that gathers the weights of `model`, while that lives."""
    _RELEASES[model] = weakref.WeakMethod(release)


def local(parameter: Tensor) -> Tensor:
    """Return the storage that this process holds of `parameter`, the parameter's own data where it is whole."""
    if is_zero3(parameter):
        start, end = _zero3_range(parameter)
        part: Tensor = parameter.ds_tensor.detach()  # type: ignore[attr-defined]
        return part[: end - start]
    tensor = parameter.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def global_shape(parameter: Tensor) -> tuple[int, ...]:
    """Return the shape of the whole tensor."""
    return tuple(parameter.ds_shape if is_zero3(parameter) else parameter.shape)  # type: ignore[attr-defined]


def global_numel(parameter: Tensor) -> int:
    """Return the number of entries of the whole tensor."""
    return math.prod(global_shape(parameter))


def local_part(parameter: Tensor, whole: Tensor) -> Tensor:
    """Return the entries of `whole`, of the global shape, where `local` holds those of `parameter`."""
    if is_zero3(parameter):
        start, end = _zero3_range(parameter)
        return whole.flatten()[start:end]
    if not isinstance(parameter, DTensor) or isinstance(parameter.placements[0], Replicate):
        return whole
    placement = parameter.placements[0]
    assert isinstance(placement, Shard)  # check_layout
    return shard_of(whole, parameter.device_mesh.size(), parameter.device_mesh.get_local_rank(), placement.dim)


def whole(parameter: Tensor) -> Tensor:
    """Return the whole tensor, gathered where it is sharded; every process must ask."""
    if is_zero3(parameter):
        part, group = parameter.ds_tensor.detach().to(parameter.device), parameter.ds_process_group  # type: ignore[attr-defined]
        parts = [torch.empty_like(part) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, part.contiguous(), group=group)
        return torch.cat(parts)[: global_numel(parameter)].view(global_shape(parameter))
    tensor = parameter.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_of(whole: Tensor, shards: int, index: int, dim: int = 0) -> Tensor:
    """Return shard `index` of `shards` along `dim`, cut as a `DTensor` is: the last ones may be short or empty."""
    parts = whole.chunk(shards, dim)
    return parts[index] if index < len(parts) else whole.narrow(dim, 0, 0)


def global_norms(parameters: Sequence[Tensor]) -> list[float]:
    """Return the Frobenius norms of the whole tensors, all of them for one message; every process must ask."""
    norms = [_norm(local(parameter)) for parameter in parameters]
    places = [place for place, parameter in enumerate(parameters) if _has_parts(parameter)]
    if places:
        group, device = _group(parameters[places[0]])
        squares = torch.tensor([norms[place] ** 2 for place in places], dtype=torch.float64).to(device)
        dist.all_reduce(squares, group=group)
        for place, square in zip(places, squares.tolist(), strict=True):
            norms[place] = math.sqrt(square)
    return norms


def check_layout(name: str, parameter: Tensor) -> None:
    """Raise ValueError where `parameter` is sharded in another way than FSDP2 or ZeRO-3 do on their own."""
    if isinstance(parameter, DTensor):
        mesh, placements = parameter.device_mesh, parameter.placements
        if mesh.ndim != 1 or type(placements[0]) not in (Shard, Replicate):
            raise Refusal(
                f"Cannot perturb {name}: it is sharded as {placements} over a mesh of {mesh.ndim} dimensions, by "
                "tensor, pipeline or context parallelism or hybrid sharding. Use FSDP2 alone (one mesh dimension), or "
                "DistributedDataParallel."
            )
    elif is_zero3(parameter):
        part = parameter.ds_tensor  # type: ignore[attr-defined]
        elsewhere = "nvme" in str(getattr(part, "final_location", None))
        if elsewhere or getattr(parameter, "ds_secondary_tensor", None) is not None or part.dtype != parameter.dtype:
            raise Refusal(
                f"Cannot perturb {name}: ZeRO-3 keeps it on NVMe, quantized, or in a second copy. Leave out "
                "`offload_param` to NVMe, `zero_hpz_partition_size` and `zero_quantized_nontrainable_weights`."
            )


def class_of(module: nn.Module) -> type[nn.Module]:
    """Return the class of `module` before ``fully_shard`` put one of its own in the place of it."""
    found = type(module)
    return found.__bases__[1] if found.__bases__[0] is FSDPModule else found


def class_name(module: nn.Module) -> str:
    """Return the name of the class of `module`, as `class_of` finds it."""
    return class_of(module).__name__


def gathered_dtypes(model: nn.Module) -> set[torch.dtype]:
    """Return the types that FSDP2 computes in; every process must ask, and each group is gathered once.

    They differ from those of the shards where a policy of mixed precision casts while weights are gathered.
    """
    found: set[torch.dtype] = set()
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.unshard()
            found |= {p.dtype for p in module.parameters() if p.is_floating_point() and not isinstance(p, DTensor)}
            module.reshard()
    return found


def is_zero3(parameter: Tensor) -> bool:
    """Return whether ZeRO-3 shards `parameter`: its own shape is that of nothing then."""
    return hasattr(parameter, "ds_id")


def _zero3_range(parameter: Tensor) -> tuple[int, int]:
    """Return where this process's part of the flattened whole starts and ends; what follows in it is padding."""
    size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
    numel = global_numel(parameter)
    start = min(dist.get_rank(parameter.ds_process_group) * size, numel)  # type: ignore[attr-defined]
    return start, min(start + size, numel)


def _has_parts(parameter: Tensor) -> bool:
    return is_zero3(parameter) or (isinstance(parameter, DTensor) and isinstance(parameter.placements[0], Shard))


def _group(parameter: Tensor) -> tuple[dist.ProcessGroup, torch.device]:
    """Return the processes that share `parameter`, and the device on which they exchange."""
    if isinstance(parameter, DTensor):
        return parameter.device_mesh.get_group(), torch.device(parameter.device_mesh.device_type)
    return parameter.ds_process_group, parameter.device  # type: ignore[attr-defined]


def _norm(tensor: Tensor) -> float:
    wide = tensor.dtype == torch.float64
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64 if wide else torch.float32))
