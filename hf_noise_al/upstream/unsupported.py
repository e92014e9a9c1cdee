"""What a loop of rounds cannot be right with, refused when a trainer is made."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset
from transformers import PreTrainedModel, Trainer, get_scheduler
from transformers.debug_utils import DebugOption
from transformers.utils.import_utils import is_liger_kernel_available, is_torch_xla_available

from ..noise.full_precision import check_sharded_precision
from ..processes.sharded_weights import is_sharded
from ..refusals import Refusal
from ..training_args import ActiveTrainingArguments


def refuse_unsupported(trainer: Trainer) -> None:
    """Raise ValueError for arguments, models and ways to shard them that would give wrong results."""
    if not isinstance(trainer.args, ActiveTrainingArguments):
        raise Refusal(f"`args` must be an `ActiveTrainingArguments`, got {type(trainer.args).__name__}.")
    if trainer.args.n_gpu > 1:
        raise Refusal(
            f"DataParallel over {trainer.args.n_gpu} GPUs in one process is not supported: it copies the weights at "
            "each step and perturbations would reach one copy only. Start one process per GPU with "
            "`accelerate launch`, or show one GPU with CUDA_VISIBLE_DEVICES=0."
        )
    _refuse_other_sharding(trainer)
    _refuse_unknown_best_metric(trainer)
    _refuse_optimizers_that_cannot_be_made(trainer)
    _refuse_loaders_and_kernels_that_cannot_be_made(trainer.args)
    _refuse_checkpoints_of_tied_weights(trainer)
    if trainer.optimizer is not None or trainer.lr_scheduler is not None:
        raise Refusal(
            "`optimizers` cannot be used: each round needs a new optimizer, one that was passed in would carry "
            "its moments from round to round. Pass `optimizer_cls_and_kwargs`, or set `optim` in the arguments."
        )
    model: Any = trainer.model
    method = getattr(model, "quantization_method", None)
    whole_numbers = [n for n, p in model.named_parameters() if not (p.is_floating_point() or p.is_complex())]
    if method is not None or whole_numbers:
        found = f"the weights are quantized by {method}" if method else f"{whole_numbers[0]} is quantized"
        raise Refusal(
            f"Quantized weights are not supported ({found}): noise needs floating-point weights, and quantized "
            "ones would be left out in silence. Load the model without quantization."
        )


def refuse_unwritable_folder(arguments: object) -> None:
    """Raise ValueError where the process that saves cannot make the folder ``output_dir`` and a file in it."""
    if not isinstance(arguments, ActiveTrainingArguments) or not arguments.should_save:
        return
    folder = Path(str(arguments.output_dir))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-"):
            pass
    except OSError as error:
        raise Refusal(
            f"Cannot write to `output_dir` {str(folder)!r}: {error.strerror or error}. A run keeps its labels, weights "
            "and queries there. Set `output_dir` to a folder that can be written."
        ) from error


def refuse_low_precision_of_shards(accelerator: Accelerator, allowed: torch.dtype | None) -> None:
    """Raise ValueError where FSDP2 gathers weights in a lower precision than float32, other than `allowed`."""
    policy = getattr(getattr(accelerator.state, "fsdp_plugin", None), "mixed_precision_policy", None)
    check_sharded_precision({getattr(policy, "param_dtype", None) or torch.float32}, allowed)


def _refuse_unknown_best_metric(trainer: Trainer) -> None:
    """Raise ValueError for a ``metric_for_best_model`` that no evaluation during a round can have.

    Which numbers `compute_metrics` returns is not known before it was called; where there are several evaluation sets,
    the name of one stands before each number.
    """
    wanted = trainer.args.metric_for_best_model
    if wanted is None or str(getattr(trainer.args.eval_strategy, "value", trainer.args.eval_strategy)) == "no":
        return
    sets = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else {}
    starts = [f"{name}_" for name in sets] or [""]
    short = wanted.removeprefix("eval_")
    losses = [f"eval_{start}loss" for start in starts]
    if not short.startswith(tuple(starts)) or (trainer.compute_metrics is None and f"eval_{short}" not in losses):
        raise Refusal(
            f"`metric_for_best_model` is {wanted!r}, which no evaluation of this trainer measures. Set it to "
            f"{' or '.join(losses)}, or to a number that `compute_metrics` returns"
            f"{', after the name of its evaluation set' if sets else ''}."
        )


def _refuse_optimizers_that_cannot_be_made(trainer: Trainer) -> None:
    """Raise ValueError for an optimizer or a schedule that upstream could not make when the first round trains."""
    args, kind = trainer.args, type(trainer)
    model: Any = trainer.model
    made_by_upstream = kind.create_optimizer is Trainer.create_optimizer and not trainer.optimizer_cls_and_kwargs
    try:
        asked = "`optim`, `optim_args`"
        if made_by_upstream:
            trainer.get_optimizer_cls_and_kwargs(args, model)
        asked = "`lr_scheduler_type`, `lr_scheduler_kwargs`"
        if kind.create_scheduler is Trainer.create_scheduler:
            some = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
            settings: Any = args.lr_scheduler_kwargs  # a text was read when the arguments were made
            get_scheduler(args.lr_scheduler_type, some, 0, 10, scheduler_specific_kwargs=settings)
    except Exception as error:
        raise Refusal(f"Cannot train with {asked} as they are: {error}. Correct them.") from error


def _refuse_loaders_and_kernels_that_cannot_be_made(args: ActiveTrainingArguments) -> None:
    """Raise ValueError for settings that torch, or a package that is not there, refuses when the first round trains."""
    names = ("num_workers", "prefetch_factor", "persistent_workers", "multiprocessing_context")
    asked: dict[str, Any] = {
        name: getattr(args, f"dataloader_{name}", None) for name in names
    }  # the last one is of some releases
    try:
        DataLoader(TensorDataset(torch.zeros(1)), **asked)
    except ValueError as error:
        given = [f"`dataloader_{name}`" for name, value in asked.items() if value]
        raise Refusal(f"Cannot load rows with {', '.join(given)} as they are: {error}. Correct them.") from error
    if args.use_liger_kernel and not is_liger_kernel_available():
        raise Refusal(
            "`use_liger_kernel` is set, and there is no liger-kernel. Install it with `pip install liger-kernel`, or "
            "leave the setting out."
        )
    if DebugOption.UNDERFLOW_OVERFLOW in args.debug:
        raise Refusal(
            "`debug: underflow_overflow` is not supported: its hooks stay on the model, each round would add its own, "
            "and they fail on masks. Use `torch.autograd.detect_anomaly` around `train`."
        )
    if DebugOption.TPU_METRICS_DEBUG in args.debug and not is_torch_xla_available():
        raise Refusal("`tpu_metrics_debug` needs a TPU and torch_xla, and there is none. Leave the setting out.")


def _refuse_checkpoints_of_tied_weights(trainer: Trainer) -> None:
    """Raise ValueError where upstream could not write a checkpoint: safetensors takes no tensor under two names."""
    model: Any = trainer.model
    if str(getattr(trainer.args.save_strategy, "value", trainer.args.save_strategy)) == "no":
        return
    if isinstance(model, PreTrainedModel) or hasattr(model, "peft_config"):
        return
    first: dict[int, str] = {}
    for name, tensor in model.state_dict().items():
        place = tensor.untyped_storage().data_ptr()
        if place and place in first:
            raise Refusal(
                f"Checkpoints of this {type(model).__name__} cannot be written: {first[place]} and {name} share their "
                "memory, and transformers writes such weights of a `PreTrainedModel` only. Set `save_strategy` to "
                "'no', or make the model a `PreTrainedModel`."
            )
        first[place] = name


def _refuse_other_sharding(trainer: Trainer) -> None:
    model: Any = trainer.model
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if trainer.is_deepspeed_enabled:
        _refuse_other_deepspeed(trainer.accelerator)
    if plugin is not None and getattr(plugin, "fsdp_version", 1) != 2:
        raise Refusal(
            "FSDP1 is not supported: it keeps the weights of many layers in one flat tensor, and noise is made "
            "tensor by tensor. Use FSDP2: `accelerate launch --use_fsdp --fsdp_version 2`, with accelerate 1.6 or "
            "later."
        )
    axes = getattr(trainer.accelerator, "parallelism_config", None)
    found = [
        name
        for name in ("tp_size", "cp_size", "sp_size", "ep_size", "dp_replicate_size")
        if (getattr(axes, name, None) or 1) > 1
    ]
    if found or (is_sharded(model) and not trainer.is_deepspeed_enabled):
        raise Refusal(
            f"{f'`{found[0]}` above 1' if found else 'A model that is sharded already'} is not supported: weights "
            "may be sharded by FSDP2 over one dimension, and not by tensor or context parallelism or hybrid "
            "sharding. Use FSDP2 alone, or DistributedDataParallel, and load the model without a plan or mesh."
        )
    if plugin is not None and plugin.cpu_ram_efficient_loading:
        names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        buffers = [name for name in model.state_dict() if name not in names]
        if buffers:
            raise Refusal(
                "`fsdp_cpu_ram_efficient_loading` cannot be used with this model: accelerate cannot load its "
                f"buffers ({buffers[0]}) that way. Set `fsdp_cpu_ram_efficient_loading: false` (`accelerate launch "
                "--fsdp_cpu_ram_efficient_loading false`)."
            )


def _refuse_other_deepspeed(accelerator: Accelerator) -> None:
    config = accelerator.state.deepspeed_plugin.hf_ds_config.config
    stage = config.get("zero_optimization", {}).get("stage", 0)
    if stage != 3:
        raise Refusal(
            f"DeepSpeed with ZeRO stage {stage} is not supported: a query looks at the model between trainings, "
            "and transformers prepares a DeepSpeed model for that with stage 3 only. Use stage 3, FSDP2 or "
            "DistributedDataParallel."
        )
    for name in ("optimizer", "scheduler"):
        if name in config:
            raise Refusal(
                f"Leave `{name}` out of the DeepSpeed configuration: transformers drops it at the first evaluation "
                "or query before a training, and later rounds would train with another one. Set `optim`, "
                "`learning_rate` and `lr_scheduler_type` in the arguments."
            )
