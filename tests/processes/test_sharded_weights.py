"""Parts of tensors, by shape and by norm. Tensors that several processes hold are in distributed/test_sharded.py."""

import operator
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from hf_noise_al.noise.full_precision import full_precision
from hf_noise_al.noise.parameter_filter import perturbed_tensors
from hf_noise_al.processes.sharded_weights import (
    check_layout,
    class_name,
    global_norms,
    global_numel,
    global_shape,
    is_sharded,
    local,
    local_part,
    settle,
    settle_by,
    shard_of,
    whole,
)

needs_fsdp2_on_a_cpu = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="this torch runs FSDP2 on accelerators only"
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
    assert global_norms([parameter]) == [pytest.approx(float(tensor.norm()), rel=1e-7)]
    check_layout("any", parameter)
    with torch.no_grad():
        local(parameter).copy_(local_part(parameter, tensor + 1))
    assert torch.equal(whole(parameter), tensor + 1)


@needs_fsdp2_on_a_cpu
def test_settling_brings_back_what_a_forward_pass_left_gathered(one_process: None) -> None:
    model = fully_shard(nn.Linear(3, 2), mesh=init_device_mesh("cpu", (1,)))
    model(torch.ones(1, 3))
    assert not isinstance(model.weight, DTensor) and is_sharded(model)
    settle(model)
    assert isinstance(model.weight, DTensor)


@needs_fsdp2_on_a_cpu
@pytest.mark.parametrize("how", ["weights", "policy", "neither"])
def test_sharded_weights_of_low_precision_are_refused_unless_allowed(one_process: None, how: str) -> None:
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16) if how == "policy" else MixedPrecisionPolicy()
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)).to(torch.bfloat16 if how == "weights" else torch.float32)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)), mp_policy=policy)
    if how == "neither":
        with full_precision(model):
            assert model(torch.ones(1, 3)).dtype == torch.float32
        return
    with (
        pytest.raises(
            ValueError, match=r"Noise stability computes in float32.*are torch.bfloat16.*`mixed_precision: 'no'`"
        ),
        full_precision(model, gathered_as=torch.float16),
    ):
        pytest.fail("the body must not run")
    before = list(model.parameters())
    with full_precision(model, gathered_as=torch.bfloat16):
        assert model(torch.ones(1, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16
        settle(model)
        assert all(map(operator.is_, before, model.parameters())), "no copies, which FSDP2 would not know"


def zero3_parts(tensor: torch.Tensor, processes: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[nn.Parameter]:
    """Yield what each process holds of `tensor` under ZeRO-3, while the processes are asked for its rank."""
    size = -(-tensor.numel() // processes)
    padded = torch.cat([tensor.flatten(), torch.full((size * processes - tensor.numel(),), torch.nan)])
    for rank in range(processes):
        parameter = nn.Parameter(torch.empty(0))
        parameter.ds_id, parameter.ds_shape, parameter.ds_process_group = 0, tensor.shape, None
        parameter.ds_tensor = padded[rank * size : (rank + 1) * size].clone()
        monkeypatch.setattr(dist, "get_rank", lambda group, rank=rank: rank)
        yield parameter


@pytest.mark.parametrize("processes", [1, 2, 4, 7])
def test_parts_under_zero3_are_the_whole_in_order_without_padding(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = torch.arange(15.0).reshape(5, 3)
    held = []
    for parameter in zero3_parts(tensor, processes, monkeypatch):
        assert is_sharded(nn.ParameterList([parameter]))
        assert global_shape(parameter) == (5, 3) and global_numel(parameter) == 15
        assert torch.equal(local_part(parameter, tensor), local(parameter))
        held.append(local(parameter).clone())
        local(parameter).zero_()
        assert not parameter.ds_tensor.nan_to_num().any(), "it is the storage itself"
        check_layout("any", parameter)
    assert torch.equal(torch.cat(held), tensor.flatten())


def test_zero3_with_second_copies_or_on_nvme_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    (parameter,) = zero3_parts(torch.ones(3), 1, monkeypatch)
    parameter.ds_secondary_tensor = torch.ones(3)
    with pytest.raises(ValueError, match="Cannot perturb it: ZeRO-3 keeps it on NVMe, quantized, or in a second copy"):
        check_layout("it", parameter)
    parameter.ds_secondary_tensor = None
    parameter.ds_tensor = parameter.ds_tensor.to(torch.int8)
    with pytest.raises(ValueError, match="Leave out `offload_param` to NVMe"):
        check_layout("it", parameter)


class Engine:
    """Stands for the engine of DeepSpeed."""

    def __init__(self) -> None:
        self.released = 0

    def release(self) -> None:
        self.released += 1


def test_an_engine_settles_its_model_while_it_lives() -> None:
    model, engine = nn.Linear(2, 2), Engine()
    settle_by(model, engine.release)
    settle(model)
    settle(nn.Linear(2, 2))
    assert engine.released == 1
    del engine
    settle(model)


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
