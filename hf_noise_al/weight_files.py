"""Weights that are sharded over processes, on the disk as one process writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from .sharding import local, local_part, settle, whole


def whole_weights(model: nn.Module, keep: bool) -> dict[str, Tensor]:
    """Return the state dict of the whole model, on the CPU; every process must ask, those that do not `keep` get {}.

    One tensor is gathered at a time. Tied tensors are one tensor in the result, too.
    """
    settle(model)
    found: dict[str, Tensor] = {}
    seen: dict[int, Tensor] = {}
    for name, tensor in _state(model).items():
        if id(tensor) not in seen:
            gathered = whole(tensor)
            seen[id(tensor)] = gathered.cpu() if keep else torch.empty(0)
        if keep:
            found[name] = seen[id(tensor)]
    return found


def load_weights(model: nn.Module, folder: Path) -> None:
    """Copy what `save_pretrained` left in `folder` into `model`, sharded or not: each process reads its own part.

    Raises:
        ValueError: a weight is not in the folder.
    """
    settle(model)
    state, adapter = _state(model), _adapter_state(model)
    targets = state if adapter is None else adapter
    loaded = set()
    with torch.no_grad():
        for name, tensor in _read(folder):
            if name in targets:
                target = targets[name]
                local(target).copy_(local_part(target, tensor))
                loaded.add(id(target))
    missing = [name for name, target in targets.items() if id(target) not in loaded]
    if missing:
        raise ValueError(
            f"Cannot load the weights in {folder}: {missing[0]} is not there, nor are {len(missing) - 1} others. "
            "Restore the folder, or start afresh in another `output_dir`."
        )


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by the names of the state dict; tied ones by each of their names."""
    names = model.state_dict().keys()
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: tensor for name, tensor in tensors if name in names}


def _adapter_state(model: nn.Module) -> dict[str, Tensor] | None:
    """Return what PEFT saves of `model`, by the names that it saves it under; None for another model."""
    if not hasattr(model, "peft_config"):
        return None
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model, state_dict=_state(model)))


def _read(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor of the safetensors files in `folder`, one at a time."""
    index = next(iter(sorted(folder.glob("*.safetensors.index.json"))), None)
    if index is None:
        names = sorted(path.name for path in folder.glob("*.safetensors"))
    else:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    for name in names:
        with safe_open(str(folder / name), framework="pt") as file:
            keys = file.keys()
            for key in keys:
                yield key, file.get_tensor(key)
