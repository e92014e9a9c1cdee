"""The weights of a model on the disk and back, bit for bit: sharded or whole, all of it or its adapters."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from .sharding import local, local_part, settle, whole

WEIGHTS_FILE = "weights.safetensors"
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
    try:
        if (folder / WEIGHTS_FILE).is_file():
            _copy(folder, [folder / WEIGHTS_FILE], _own_state(model))
            return
        for part, targets in _saved_by_peft(model, folder).items() or [(folder, _state(model))]:
            files = _files(part)
            if isinstance(model, PreTrainedModel) and part is folder and not _fits(_names(files), targets):
                _copy_converted(model, folder)
            else:
                _copy(part, files, targets)
    except (OSError, SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(
            f"Cannot load the weights in {folder}: {type(error).__name__}: {error}. Restore the folder, or start "
            "afresh in another `output_dir`."
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


def _copy(folder: Path, files: list[Path], targets: Mapping[str, Tensor]) -> None:
    names = _names(files)
    if not _fits(names, targets):
        _refuse_names(folder, names, targets)
    with torch.no_grad():
        for name, tensor in _read(files):
            target = targets[name]
            local(target).copy_(local_part(target, tensor))


def _copy_converted(model: PreTrainedModel, folder: Path) -> None:
    """Let transformers read names and layouts that it changed while saving, into a second model, and copy that."""
    types = [tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()]
    widest = max(types, key=lambda dtype: torch.finfo(dtype).bits, default=torch.float32)
    reader: Any = type(model)
    with torch.random.fork_rng(devices=[]):
        read, report = reader.from_pretrained(
            folder, config=copy.deepcopy(model.config), dtype=widest, output_loading_info=True, local_files_only=True
        )
    targets, found = _state(model), _state(read)
    missing = {*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])}
    names = (found.keys() - missing) | {*report["unexpected_keys"]}
    if not _fits(names, targets):
        _refuse_names(folder, names, targets)
    with torch.no_grad():
        for name, target in targets.items():
            local(target).copy_(local_part(target, found[name].detach()))


def _fits(names: set[str], targets: Mapping[str, Tensor]) -> bool:
    """Return whether `names` stand for every one of `targets`, tied ones by any of their names, and nothing else."""
    reached = {id(targets[name]) for name in names & targets.keys()}
    return names <= targets.keys() and all(id(target) in reached for target in targets.values())


def _refuse_names(folder: Path, names: set[str], targets: Mapping[str, Tensor]) -> NoReturn:
    reached = {id(targets[name]) for name in names & targets.keys()}
    missing = [name for name, target in targets.items() if id(target) not in reached]
    surplus = sorted(names - targets.keys())
    found = [
        f"{kind[0]} {verb}, {len(kind)} in all"
        for kind, verb in ((missing, "is not there"), (surplus, "is not of this model"))
        if kind
    ]
    raise ValueError(
        f"Cannot load the weights in {folder}: {'; '.join(found)}. Restore the folder, or start afresh in another "
        "`output_dir`."
    )


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by the names of the state dict; tied ones by each of their names."""
    names = model.state_dict().keys()
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: tensor for name, tensor in tensors if name in names}


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


def _saved_by_peft(model: nn.Module, folder: Path) -> dict[Path, dict[str, Tensor]]:
    """Return the folder of each adapter with its tensors; nothing for a model without adapters."""
    prefix = "base_model.model." if isinstance(model, PreTrainedModel) else ""  # where transformers added the adapter
    return {
        folder if adapter == "default" else folder / adapter: {
            prefix + name: tensor for name, tensor in _adapter_state(model, adapter).items()
        }
        for adapter in getattr(model, "peft_config", {})
    }


def _files(folder: Path) -> list[Path]:
    """Return the safetensors files in `folder`, those of its index where it has one."""
    index = next(iter(sorted(folder.glob("*.safetensors.index.json"))), None)
    if index is None:
        files = sorted(folder.glob("*.safetensors"))
    else:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        files = [folder / name for name in sorted(names)]
    if not files:
        raise FileNotFoundError(f"there is no safetensors file in {folder}")
    return files


def _names(files: list[Path]) -> set[str]:
    found: set[str] = set()
    for path in files:
        with safe_open(str(path), framework="pt") as file:
            found.update(file.keys())
    return found


def _read(files: list[Path]) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor of the files, one at a time."""
    for path in files:
        with safe_open(str(path), framework="pt") as file:
            keys = file.keys()
            for key in keys:
                yield key, file.get_tensor(key)
