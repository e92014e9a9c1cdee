"""Parts of tensors, by shape and by norm. Tensors that several processes hold are in distributed/test_sharded.py."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from hf_noise_al.perturbation import perturbed_tensors
from hf_noise_al.sharding import (
    check_layout,
    class_name,
    global_norm,
    global_norms,
    global_numel,
    global_shape,
    is_sharded,
    local,
    local_part,
    settle,
    shard_of,
    whole,
)


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("shards", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dim", [0, 1])
def test_shards_are_the_whole_in_order_also_where_they_are_ragged_or_empty(shards: int, dim: int) -> None:
    tensor = torch.arange(30).reshape(5, 6)
    parts = [shard_of(tensor, shards, index, dim) for index in range(shards)]
    assert torch.equal(torch.cat(parts, dim), tensor)
    assert all(part.ndim == 2 for part in parts)
    assert [len(shard_of(torch.arange(5), 4, index)) for index in range(4)] == [2, 2, 1, 0]


def test_a_whole_tensor_is_its_own_part() -> None:
    parameter, other = nn.Parameter(torch.tensor([3.0, 4.0])), torch.zeros(2)
    assert local(parameter).data_ptr() == parameter.data_ptr()
    assert whole(parameter).data_ptr() == parameter.data_ptr()
    assert local_part(parameter, other) is other
    assert global_shape(parameter) == (2,) and global_numel(parameter) == 2
    assert global_norms([parameter, other]) == [5.0, 0.0]
    check_layout("any", parameter)
    assert not is_sharded(nn.Linear(2, 2))
    settle(nn.Linear(2, 2))


@pytest.mark.parametrize("placement", [Shard(0), Shard(1), Replicate()])
def test_what_is_written_to_the_local_part_is_in_the_tensor(one_process: None, placement: object) -> None:
    tensor = torch.arange(6.0).reshape(3, 2)
    parameter = nn.Parameter(distribute_tensor(tensor.clone(), init_device_mesh("cpu", (1,)), [placement]))
    assert is_sharded(nn.ParameterList([parameter]))
    assert global_shape(parameter) == (3, 2)
    assert global_norm(parameter) == pytest.approx(float(tensor.norm()), rel=1e-7)
    check_layout("any", parameter)
    with torch.no_grad():
        local(parameter).copy_(local_part(parameter, tensor + 1))
    assert torch.equal(whole(parameter), tensor + 1)


def test_other_layouts_are_refused(one_process: None) -> None:
    mesh = init_device_mesh("cpu", (1, 1))
    model = nn.Linear(3, 2, bias=False)
    model.weight = nn.Parameter(distribute_tensor(model.weight.detach(), mesh, [Shard(0), Shard(1)]))
    with pytest.raises(
        ValueError, match=r"Cannot perturb weight: it is sharded as .* over a mesh of 2 dimensions.*FSDP2 alone"
    ):
        perturbed_tensors(model)
    partial = DTensor.from_local(torch.zeros(2), init_device_mesh("cpu", (1,)), [Partial()])
    with pytest.raises(ValueError, match="Cannot perturb it: it is sharded as"):
        check_layout("it", partial)


def test_the_class_of_a_module_is_that_before_it_was_sharded() -> None:
    layer = nn.Linear(2, 2)
    assert class_name(layer) == "Linear"
    layer.__class__ = type("FSDPLinear", (FSDPModule, nn.Linear), {})
    assert class_name(layer) == "Linear"
