"""The weights of a model on the disk and back, bit for bit: sharded or whole, all of it or its adapters."""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..files.run_names import WEIGHTS_FILE
from ..processes.sharded_weights import class_of, global_numel, global_shape, is_zero3, local, local_part, settle, whole
from ..refusals import Refusal, reason_of

"""Holds every tensor under its name in the model; a checkpoint of transformers may have other names."""


def whole_weights(model: nn.Module, keep: bool) -> dict[str, Tensor]:
    """Return the state dict of the whole model, on the CPU; every process must ask, those that do not `keep` get {}.

    One tensor is gathered at a time. Tied tensors are one tensor in the result, too.
    """
    settle(model)
    return _gathered(_state(model), keep)


def save_weights(model: nn.Module, folder: Path, write: bool) -> None:
    """Write what training can change of `model` to ``weights.safetensors``; every process must ask, one may `write`.

    That is every parameter and persistent buffer, tied ones once; of a PEFT model all but the frozen weights under the
    adapters.
    """
    settle(model)
    tensors = _gathered(_own_state(model), write)
    if write:
        save_file({name: tensor.contiguous() for name, tensor in _apart(tensors).items()}, folder / WEIGHTS_FILE)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Copy the weights in `folder` into `model`, sharded or not: each process reads its own part.

    Args:
        model: Its tensors keep their types and places.
        folder: What `save_weights`, ``save_pretrained`` or a checkpoint of `transformers.Trainer` left.

    Raises:
        ValueError: a tensor of the model is not in the folder, one there is not of the model, or a file is damaged;
            nothing is changed where the names do not fit.
    """
    settle(model)
    with _explained(folder):
        if (folder / WEIGHTS_FILE).is_file():
            _copy(model, [folder / WEIGHTS_FILE], _own_state(model))
            return
        if hasattr(model, "peft_config"):
            _load_adapters(model, folder)
        elif isinstance(model, PreTrainedModel) and (
            _converts(model) or _difference(_shapes(_files(folder)), _state(model))
        ):
            _copy_converted(model, folder)
        else:
            _copy(model, _files(folder), _state(model))


def check_weights(folder: Path) -> None:
    """Raise ValueError where a file of weights in `folder` is not there, or cannot be opened."""
    with _explained(folder):
        _shapes(_files(folder))


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Raise a ValueError that names `folder` and says what to do, in the place of any error of the body."""
    try:
        yield
    except Exception as error:  # each format has ways of its own to say that a file is damaged
        raise Refusal(
            f"Cannot load the weights in {folder}: {reason_of(error)}. Restore the folder, or start afresh in another "
            "`output_dir`."
        ) from error


def _gathered(state: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    seen: dict[int, Tensor] = {}
    for name, tensor in state.items():
        if id(tensor) not in seen:
            gathered = whole(tensor)
            seen[id(tensor)] = gathered.cpu() if keep else torch.empty(0)
        if keep:
            found[name] = seen[id(tensor)]
    return found


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return each tensor once, by the first of its names; one that shares memory with another is copied."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    places: set[int] = set()
    for name, tensor in tensors.items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        place = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if place in places else tensor
        places.add(place)
    return found


def _copy(model: nn.Module, files: list[Path], targets: Mapping[str, Tensor]) -> None:
    different = _difference(_shapes(files), targets)
    if different is not None:
        raise Refusal(different)
    live = set(map(id, _live(model).values()))
    with torch.no_grad():
        for name, tensor in _read(files):
            if id(targets[name]) in live:
                _put(name, tensor, targets[name])
            else:  # extra state of a module, which the module alone can set
                model.load_state_dict({name: tensor}, strict=False)


def _put(name: str, tensor: Tensor, target: Tensor) -> None:
    if not is_zero3(target) and torch.promote_types(tensor.dtype, target.dtype) != target.dtype:
        raise Refusal(
            f"{name} is of {tensor.dtype}, and the model's, of {target.dtype}, would lose digits: load the model in "
            f"{tensor.dtype}"
        )
    local(target).copy_(local_part(target, tensor))


def _converts(model: PreTrainedModel) -> bool:
    """Return whether `save_pretrained` changes more than names, so that names and shapes which fit prove nothing."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
    except ImportError:  # transformers 4 changes names only
        return False
    known = [
        *get_model_conversion_mapping(model, add_legacy=False),
        *(getattr(model, "_weight_conversions", None) or []),
    ]
    return any(getattr(conversion, "operations", None) for conversion in known)


def _copy_converted(model: PreTrainedModel, folder: Path) -> None:
    """Let transformers read names and layouts that it changed while saving, into a second model, and copy that."""
    targets = _state(model)
    types = [tensor.dtype for tensor in targets.values() if tensor.is_floating_point()]
    reader: Any = class_of(model)
    with torch.random.fork_rng(devices=[]):
        read, report = reader.from_pretrained(
            folder,
            config=copy.deepcopy(model.config),
            dtype=functools.reduce(torch.promote_types, types, torch.bfloat16),
            output_loading_info=True,
            local_files_only=True,
        )
    found = _state(read)
    missing = {*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])}
    names = (found.keys() - missing) | {*report["unexpected_keys"]}
    different = _difference({name: global_shape(found[name]) if name in found else () for name in names}, targets)
    numbers, expected = sum(map(math.prod, _shapes(_files(folder)).values())), _numbers(model, targets)
    if different is None and numbers != expected:  # upstream does not report everything that is missing
        different = f"there are {numbers} numbers, and {expected} in the model"
    if different is not None:
        raise Refusal(different)
    with torch.no_grad():
        for name in names:  # one that upstream did not find may stand for a tensor that has another name as well
            _put(name, found[name].detach(), targets[name])


def _numbers(model: PreTrainedModel, targets: Mapping[str, Tensor]) -> int:
    """Return how many numbers `save_pretrained` writes of `targets`."""
    left_out = model._keys_to_ignore_on_save or ()
    return sum({id(target): global_numel(target) for name, target in targets.items() if name not in left_out}.values())


def _difference(found: Mapping[str, tuple[int, ...]], targets: Mapping[str, Tensor]) -> str | None:
    """Say how the names and shapes found on the disk are not those of `targets`; tied ones go by any of their names."""
    reached = {id(targets[name]) for name in found if name in targets}
    missing = [name for name, target in targets.items() if id(target) not in reached]
    surplus = sorted(found.keys() - targets.keys())
    other = [name for name, shape in found.items() if name in targets and global_shape(targets[name]) != shape]
    kinds = ((missing, "is not there"), (surplus, "is not of this model"), (other, "is of another shape in this model"))
    return "; ".join(f"{names[0]} {verb}, {len(names)} in all" for names, verb in kinds if names) or None


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by the names of the state dict; tied ones by each of their names."""
    live, state = _live(model), model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise Refusal(f"Cannot keep {name} of the model: only tensors can be, and it is a {type(value).__name__}.")
    return {name: live.get(name, tensor) for name, tensor in state.items()}


def _live(model: nn.Module) -> dict[str, Tensor]:
    return dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])


def _own_state(model: Any) -> dict[str, Tensor]:
    """Return what `save_weights` keeps, by its name in the model."""
    state = _state(model)
    if not hasattr(model, "peft_config"):
        return state
    adapters = {id(tensor) for name in model.peft_config for tensor in _adapter_state(model, name).values()}
    return {
        name: tensor
        for name, tensor in state.items()
        if not isinstance(tensor, nn.Parameter) or tensor.requires_grad or id(tensor) in adapters
    }


def _adapter_state(model: nn.Module, adapter: str) -> dict[str, Tensor]:
    """Return the tensors of an adapter by the names that PEFT saves them under."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model, state_dict=_state(model), adapter_name=adapter))


def _load_adapters(model: Any, folder: Path) -> None:
    """Load what PEFT saved: a folder for each adapter, but for the one that is called default."""
    prefix = "base_model.model." if isinstance(model, PreTrainedModel) else ""  # where transformers added the adapter
    for adapter in model.peft_config:
        files = _files(folder if adapter == "default" else folder / adapter)
        targets = {prefix + name: tensor for name, tensor in _adapter_state(model, adapter).items()}
        if {id(tensor) for tensor in targets.values()} <= {id(tensor) for tensor in _live(model).values()}:
            _copy(model, files, targets)
            continue
        from peft import set_peft_model_state_dict

        different = _difference(_shapes(files), targets)
        if different is not None:
            raise Refusal(different)
        set_peft_model_state_dict(model, dict(_read(files)), adapter)  # prompts are saved as PEFT computes them


def _files(folder: Path) -> list[Path]:
    """Return the files of weights in `folder`, those of its index where it has one."""
    index = next(iter(sorted(folder.glob("*model.*.index.json"))), None)
    if index is not None:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return [folder / name for name in sorted(names)]
    for pattern in ("*.safetensors", "pytorch_model.bin", "adapter_model.bin"):  # transformers 4 may write the last two
        if files := sorted(folder.glob(pattern)):
            return files
    raise Refusal(f"there is no file of weights in {folder}")


def _shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for path in files:
        if path.suffix == ".bin":
            found |= {name: tuple(tensor.shape) for name, tensor in _unzipped(path).items()}
            continue
        with safe_open(str(path), framework="pt") as file:
            names = file.keys()
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in names}
    return found


def _read(files: list[Path]) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor of the files, one at a time."""
    for path in files:
        if path.suffix == ".bin":
            yield from _unzipped(path).items()
            continue
        with safe_open(str(path), framework="pt") as file:
            keys = file.keys()
            for key in keys:
                yield key, file.get_tensor(key)


def _unzipped(path: Path) -> dict[str, Tensor]:
    content: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content
