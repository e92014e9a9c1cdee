"""Sharded weights: what this process holds of a tensor, and what the tensor is as a whole.

A tensor is whole, or sharded by FSDP2 (``fully_shard``: a `DTensor` on a mesh of one dimension).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate, Shard


def is_sharded(model: nn.Module) -> bool:
    """Return whether any weight of `model` is sharded: a forward pass then needs every process."""
    return any(isinstance(module, FSDPModule) for module in model.modules()) or any(
        isinstance(parameter, DTensor) for parameter in model.parameters()
    )


def settle(model: nn.Module) -> None:
    """Bring every weight back to its sharded form, without communication.

    A forward pass leaves some weights gathered, in tensors that the next one uses or throws away: what is written to
    the shards meanwhile has no effect, and what is written to the gathered tensors is lost.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def local(parameter: Tensor) -> Tensor:
    """Return the storage that this process holds of `parameter`, the parameter's own data where it is whole."""
    tensor = parameter.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def global_shape(parameter: Tensor) -> tuple[int, ...]:
    """Return the shape of the whole tensor."""
    return tuple(parameter.shape)


def global_numel(parameter: Tensor) -> int:
    """Return the number of entries of the whole tensor."""
    return math.prod(global_shape(parameter))


def local_part(parameter: Tensor, whole: Tensor) -> Tensor:
    """Return the entries of `whole`, of the global shape, where `local` holds those of `parameter`; a view."""
    if not isinstance(parameter, DTensor):
        return whole
    (placement,) = parameter.placements
    if isinstance(placement, Replicate):
        return whole
    assert isinstance(placement, Shard)  # check_layout
    return shard_of(whole, parameter.device_mesh.size(), parameter.device_mesh.get_local_rank(), placement.dim)


def whole(parameter: Tensor) -> Tensor:
    """Return the whole tensor, gathered where it is sharded; every process must ask."""
    tensor = parameter.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_of(whole: Tensor, shards: int, index: int, dim: int = 0) -> Tensor:
    """Return shard `index` of `shards` along `dim`, cut as a `DTensor` is: the last ones may be short or empty."""
    parts = whole.chunk(shards, dim)
    return parts[index] if index < len(parts) else whole.narrow(dim, 0, 0)


def global_norm(parameter: Tensor) -> float:
    """Return the Frobenius norm of the whole tensor; every process must ask."""
    return global_norms([parameter])[0]


def global_norms(parameters: Sequence[Tensor]) -> list[float]:
    """Return the Frobenius norms of the whole tensors, all of them for one message; every process must ask."""
    norms = [_norm(local(parameter)) for parameter in parameters]
    meshes = {place: p.device_mesh for place, p in enumerate(parameters) if isinstance(p, DTensor) and _has_parts(p)}
    if meshes:
        mesh = next(iter(meshes.values()))
        squares = torch.tensor([norms[place] ** 2 for place in meshes], dtype=torch.float64).to(mesh.device_type)
        dist.all_reduce(squares, group=mesh.get_group())
        for place, square in zip(meshes, squares.tolist(), strict=True):
            norms[place] = math.sqrt(square)
    return norms


def check_layout(name: str, parameter: Tensor) -> None:
    """Raise ValueError where `parameter` is sharded in another way than FSDP2 does on its own."""
    if not isinstance(parameter, DTensor):
        return
    mesh, placements = parameter.device_mesh, parameter.placements
    if mesh.ndim != 1 or type(placements[0]) not in (Shard, Replicate):
        raise ValueError(
            f"Cannot perturb {name}: it is sharded as {placements} over a mesh of {mesh.ndim} dimensions, by tensor, "
            "pipeline or context parallelism or hybrid sharding. Use FSDP2 alone (one mesh dimension), or "
            "DistributedDataParallel."
        )


def class_name(module: nn.Module) -> str:
    """Return the name of the class of `module` before ``fully_shard`` put one of its own in the place of it."""
    found = type(module)
    return found.__bases__[1].__name__ if found.__bases__[0] is FSDPModule else found.__name__


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


def _has_parts(parameter: DTensor) -> bool:
    return isinstance(parameter.placements[0], Shard)


def _norm(tensor: Tensor) -> float:
    wide = tensor.dtype == torch.float64
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64 if wide else torch.float32))
