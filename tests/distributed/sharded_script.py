"""Done on several processes by test_sharded.py; what each process found goes to ``FOLDER/found-RANK.json``.

Simulated: accelerate shards on accelerators only, so it is told here that the gloo processes of this CPU are some; the
variable SIMULATED says by what, fsdp2 or zero3.
"""

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tiny_run
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from peft import LoraConfig, TaskType, get_peft_model
from processes_script import ESTIMATORS, ROUNDS, Stop, query_trainer
from tiny_run import make_model, make_pool, outcome
from torch.distributed.fsdp import MixedPrecisionPolicy

from hf_noise_al import ActiveTrainer, NoiseStability
from hf_noise_al.noise.parameter_filter import perturbed_tensors
from hf_noise_al.noise.perturbation import perturbed
from hf_noise_al.observables.base import probabilities
from hf_noise_al.processes.sharded_weights import gathered_dtypes, global_norms, is_sharded, local, settle, whole
from hf_noise_al.upstream.weight_files import whole_weights

HARDWARE: dict[str, Any] = {"use_cpu": os.environ.get("SIMULATED") != "zero3"}
make_trainer = partial(tiny_run.make_trainer, **HARDWARE)


def take_these_processes_for_gpus() -> None:
    """Let accelerate believe that the processes of this CPU have a GPU each."""
    original = PartialState.__init__

    def initialize(state: PartialState, *args: Any, **kwargs: Any) -> None:
        original(state, *args, **kwargs)
        if PartialState._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    PartialState.__init__ = initialize


def take_these_processes_for_deepspeeds() -> None:
    """Let accelerate, which asks DeepSpeed for processes on accelerators only, believe in those of this CPU."""
    backend = importlib.import_module("deepspeed.comm.torch")
    backend.build_shm_op = lambda: None  # it would compile for minutes what gloo does as well
    original = PartialState.__init__

    def initialize(state: PartialState, *args: Any, **kwargs: Any) -> None:
        original(state, *args, **kwargs)
        shared = PartialState._shared_state
        if shared.get("num_processes") == 1:
            shared.update(
                backend="gloo",
                num_processes=int(os.environ["WORLD_SIZE"]),
                process_index=int(os.environ["RANK"]),
                local_process_index=int(os.environ["LOCAL_RANK"]),
                distributed_type=DistributedType.DEEPSPEED,
            )

    PartialState.__init__ = initialize


def bits(model: torch.nn.Module) -> list[torch.Tensor]:
    settle(model)
    return [local(parameter).clone().view(torch.uint8) for parameter in model.parameters()]


def query(folder: Path, acquisition: str, rows: int = 203, size: int = 30) -> dict[str, Any]:
    """Query before any training; 203 rows leave a ragged last batch and an odd number of batches."""
    trainer = query_trainer(folder, acquisition, rows, **HARDWARE)
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
    found = {name: query(folder, name) for name in (*ESTIMATORS, "entropy", "core_set")}
    return {**found, **{f"few by {name}": query(folder, name, rows=3, size=2) for name in ESTIMATORS}}


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
    candidates = trainer._looking.candidates(list(range(21)))
    rows = NoiseStability(estimator="finite_difference", num_perturbations=2).deviations(
        candidates, torch.Generator().manual_seed(0)
    )
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


def sketched(folder: Path, autocast: str | None = None) -> dict[str, Any]:
    """Return rows of the gradient sketch; with `autocast`, FSDP2 gathers the weights in bfloat16."""
    trainer = make_trainer(
        folder / f"sketched-{autocast}", pool=make_pool(21), acquisition="random", acquisition_kwargs=None
    )
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if autocast and plugin is not None:
        before, plugin.mixed_precision_policy = plugin.mixed_precision_policy, MixedPrecisionPolicy(torch.bfloat16)
    trainer._prepare_to_look()
    if autocast and plugin is not None:
        plugin.mixed_precision_policy = before
    kept, candidates = bits(trainer.model), trainer._looking.candidates(list(range(21)))

    def rows(**settings: Any) -> torch.Tensor:
        return NoiseStability(**settings).deviations(candidates, torch.Generator().manual_seed(0))

    found = rows(estimator="gradient_sketch", autocast=autocast).tolist()
    refusal = None
    if gathered_dtypes(trainer.model) == {torch.bfloat16}:
        try:
            rows()
        except ValueError as error:
            refusal = str(error)
    return {"rows": found, "refusal": refusal, "bits kept": all(map(torch.equal, kept, bits(trainer.model)))}


RUN: dict[str, Any] = {
    "optim": "sgd",  # Adam makes steps of gradients that are nothing but rounding
    "query_size": 8,  # whole batches: a last one that is not would be filled up on several processes
    "num_rounds": 2,
    "num_train_epochs": 2,
    "acquisition_kwargs": {"estimator": "finite_difference", "num_perturbations": 2},
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def whole_run(folder: Path, fresh: bool = False, num_labels: int = 2, **arguments: Any) -> dict[str, Any]:
    """Look at the model before its first training, then run two rounds; batches are as large on any number."""
    each = 4 // int(os.environ.get("WORLD_SIZE", "1"))
    make = partial(make_model, num_labels, **NO_DROPOUT)
    trainer = make_trainer(
        folder,
        trainer={"model_init": lambda: make()} if fresh else {"model": make()},
        per_device_train_batch_size=each,
        **{**RUN, **arguments},
    )
    trainer.evaluate()
    looked = trainer.query(5).indices.tolist()
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    return {"looked": looked, **plain(trainer), "sharded": is_sharded(trainer.model)}


def plain(trainer: ActiveTrainer) -> dict[str, Any]:
    found = outcome(trainer)
    return {
        "annotations": [[a.row, a.label, a.round, a.score] for a in found["annotations"]],
        "history": found["history"],
        "weights": [float(value.double().sum()) for value in whole_weights(trainer.model, keep=True).values()],
    }


def runs(folder: Path) -> dict[str, Any]:
    return {
        "model": whole_run(folder / "model"),
        "model_init": whole_run(folder / "model_init", fresh=True),
        "regression": whole_run(folder / "regression", num_labels=1, save_strategy="epoch"),
    }


def uninterrupted_run(folder: Path) -> dict[str, Any]:
    trainer = make_trainer(folder / "whole", **ROUNDS)
    trainer.train()
    return plain(trainer)


def killed_run(folder: Path, state_dict_type: str = "FULL_STATE_DICT") -> dict[str, Any]:
    resume = (folder / "killed" / "active_state.json").exists()
    callbacks = [] if resume else [Stop(kill=True)]
    trainer = make_trainer(folder / "killed", trainer={"callbacks": callbacks}, **ROUNDS)
    if trainer.is_fsdp_enabled:
        plugin = trainer.accelerator.state.fsdp_plugin
        plugin.state_dict_config = plugin.optim_state_dict_config = None
        plugin.set_state_dict_type(state_dict_type)
    trainer.train(resume_from_checkpoint=resume)
    return plain(trainer)


calls = 0


def mortal(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Observe probabilities; in the middle of the first query the last process dies, unless it did before."""
    global calls
    calls += 1
    if calls == 2 and "DIE" in os.environ and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return probabilities(model, inputs)


def mortal_run(folder: Path) -> dict[str, Any]:
    trainer = make_trainer(folder / "mortal", trainer={"observable": mortal}, **RUN)
    trainer.train(resume_from_checkpoint=(folder / "mortal" / "active_state.json").exists())
    return plain(trainer)


def make_lora() -> torch.nn.Module:
    """Return a BERT with adapters that are not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        config = LoraConfig(task_type=TaskType.SEQ_CLS, r=3, target_modules=["query", "value"], lora_dropout=0.0)
        model = get_peft_model(make_model(**NO_DROPOUT), config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
    return model


def lora(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    each = 4 // int(os.environ.get("WORLD_SIZE", "1"))
    for chosen, estimator in (("trainable", "gradient_sketch"), ("all", "finite_difference")):
        trainer = make_trainer(
            folder / f"lora-{chosen}",
            trainer={"model": make_lora()},
            per_device_train_batch_size=each,
            **{
                **RUN,
                "acquisition_kwargs": {
                    "estimator": estimator,
                    "num_perturbations": 3,
                    "parameter_filter": chosen,
                },
            },
        )
        trainer._prepare_to_look()
        before, moving = bits(trainer.model), [p.requires_grad for p in trainer.model.parameters()]
        picked = trainer.query(9).indices.tolist()
        kept = list(map(torch.equal, before, bits(trainer.model)))
        trainer.train()
        trained = list(map(torch.equal, before, bits(trainer.model)))
        found[chosen] = {
            "picked": picked,
            "bits kept": all(kept),
            "base bits kept by training": all(same for same, moves in zip(trained, moving, strict=True) if not moves),
            "trained": not all(trained),
            "sharded": is_sharded(trainer.model),
            **plain(trainer),
        }
    return found


PARTS: dict[str, Callable[[Path], Any]] = {
    "queries": queries,
    "deviations": deviations,
    "sketch": sketched,
    "sketch in bfloat16": partial(sketched, autocast="bfloat16"),
    "runs": runs,
    "uninterrupted": uninterrupted_run,
    "killed": killed_run,
    "killed with shards": partial(killed_run, state_dict_type="SHARDED_STATE_DICT"),
    "mortal": mortal_run,
    "lora": lora,
}


def main(folder: Path, parts: Sequence[str]) -> None:
    simulated = os.environ.get("SIMULATED")
    if simulated == "fsdp2":
        take_these_processes_for_gpus()
    elif simulated == "zero3":
        take_these_processes_for_deepspeeds()
    found = {"processes": int(os.environ["WORLD_SIZE"]), **{part: PARTS[part](folder) for part in parts}}
    (folder / f"found-{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
    torch.distributed.destroy_process_group()  # its threads, still there at exit, can abort the process
