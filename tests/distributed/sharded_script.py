"""Started on several processes by test_sharded.py; what each process found goes to ``FOLDER/found-RANK.json``.

Simulated: accelerate shards on accelerators only, so it is told here that the gloo processes of this CPU are some.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from accelerate.state import PartialState
from accelerate.utils import DistributedType
from tiny_run import make_model, make_pool, make_trainer

from hf_noise_al import NoiseStability
from hf_noise_al.perturbation import perturbed, perturbed_tensors
from hf_noise_al.sharding import global_norms, is_sharded, local, settle, whole


def take_these_processes_for_gpus() -> None:
    """Let accelerate believe that the processes of this CPU have a GPU each."""
    original = PartialState.__init__

    def initialize(state: PartialState, *args: Any, **kwargs: Any) -> None:
        original(state, *args, **kwargs)
        if PartialState._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    PartialState.__init__ = initialize


def bits(model: torch.nn.Module) -> list[torch.Tensor]:
    settle(model)
    return [local(parameter).clone().view(torch.uint8) for parameter in model.parameters()]


def query(folder: Path, acquisition: str, rows: int = 203, size: int = 30) -> dict[str, Any]:
    """Query before any training; 203 rows leave a ragged last batch and an odd number of batches."""
    kwargs = {"num_perturbations": 5} if acquisition == "noise_stability" else None
    trainer = make_trainer(
        folder / f"query-{acquisition}-{rows}", pool=make_pool(rows), acquisition=acquisition, acquisition_kwargs=kwargs
    )
    trainer._prepare_to_look()
    before = bits(trainer.model)
    found = trainer.query(size)
    return {
        "indices": found.indices.tolist(),
        "scores": found.scores.tolist(),
        "sharded": is_sharded(trainer.model),
        "bits kept": all(map(torch.equal, before, bits(trainer.model))),
    }


def queries(folder: Path) -> dict[str, Any]:
    found = {name: query(folder, name) for name in ("noise_stability", "entropy", "core_set")}
    return {**found, "few": query(folder, "noise_stability", rows=3, size=2)}


def deviations(folder: Path) -> dict[str, Any]:
    """Return deviations, whole perturbed weights and norms, for a regression head of one row that one process holds."""
    trainer = make_trainer(
        folder / "deviations",
        pool=make_pool(21),
        trainer={"model": make_model(num_labels=1)},
        acquisition="random",
        acquisition_kwargs=None,
    )
    trainer._prepare_to_look()
    trainer.evaluate()  # leaves weights gathered
    candidates = trainer._candidates(list(range(21)))
    rows = NoiseStability(num_perturbations=2).deviations(candidates, torch.Generator().manual_seed(0))
    model = trainer.model
    with perturbed(model, 0.1, torch.Generator().manual_seed(0), "all"):
        candidates.observe(candidates.observable)
        settle(model)
        moved = {name: whole(tensor).flatten().tolist() for name, tensor in perturbed_tensors(model, "all").items()}
    return {
        "deviations": rows.flatten().tolist(),
        "moved": moved,
        "norms": global_norms(list(perturbed_tensors(model).values())),
        "smallest shard": min(local(parameter).numel() for parameter in model.parameters()),
    }


PARTS: dict[str, Callable[[Path], Any]] = {"queries": queries, "deviations": deviations}


def main() -> None:
    folder, parts = Path(sys.argv[1]), sys.argv[2:]
    if "SIMULATED" in os.environ:
        take_these_processes_for_gpus()
    found = {"processes": int(os.environ["WORLD_SIZE"]), **{part: PARTS[part](folder) for part in parts}}
    (folder / f"found-{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
