"""What a loop of rounds needs corrected in `transformers.Trainer`: every private upstream name is used here.

Upstream names relied on, each pinned by a test: ``Trainer.model_accepts_loss_kwargs``, ``Trainer._get_output_dir``,
``Trainer._push_from_checkpoint``, ``Trainer._save``, ``Trainer._save_checkpoint``, ``Trainer._load_from_checkpoint``,
``Trainer._load_best_model``, ``Trainer._remove_unused_columns``, ``Trainer._get_collator_with_removed_columns``,
``Trainer._set_signature_columns_if_needed``,
``Trainer._signature_columns``, ``Trainer._hp_search_setup``, ``Trainer._prepare_inputs``, ``Accelerator._models``,
``Accelerator.prepare`` (replaced on the instance), ``model._is_accelerate_prepared``, ``model._original_forward``,
``model._no_split_modules``, ``deepspeed_init``; in `weight_files`, where a checkpoint is read,
``model._keys_to_ignore_on_save``, ``model._weight_conversions`` and
``conversion_mapping.get_model_conversion_mapping``, the last two of transformers 5.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer, set_seed
from transformers.integrations.deepspeed import deepspeed_init
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils.logging import get_logger

from ..callbacks import ActiveTrainerCallback
from ..files.checksums import check_folder, write_checksums
from ..processes.sharded_weights import is_sharded, settle, settle_by
from ..training_args import ActiveTrainingArguments
from .unsupported import refuse_unsupported, refuse_unwritable_folder
from .weight_files import WEIGHTS_FILE, load_weights, save_weights, whole_weights

HUB_FOLDER = "_hub"
SECONDS_FILE = "round_seconds.txt"
"""In a checkpoint: the seconds that its round had taken, those of killed processes included."""


class UpstreamTrainer(Trainer):
    """A `Trainer` that may be trained again and again: right losses, whole wrappers, nothing private uploaded."""

    args: ActiveTrainingArguments
    model: Any
    model_init: Any
    deepspeed: Any
    _signature_columns: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        refuse_unwritable_folder(inspect.signature(Trainer.__init__).bind(self, *args, **kwargs).arguments.get("args"))
        super().__init__(*args, **kwargs)
        refuse_unsupported(self)
        _log_as_transformers_does(self.args)
        # Upstream takes any model whose forward has **kwargs to divide its loss by `num_items_in_batch`. BERT and most
        # others do not, so their gradients would grow with accumulation steps and processes.
        # Where there is a `compute_loss_func`, it gets the number, and the model need not.
        self.model_accepts_loss_kwargs = False
        self._round_folder: Path | None = None
        self._round_started = 0.0
        self._trial_of_run: Any = None

    def _set_signature_columns_if_needed(self) -> None:
        """Keep what the data collator reads beside the model's inputs: the attribute ``columns``, where it has one."""
        super()._set_signature_columns_if_needed()
        self._signature_columns = list(dict.fromkeys([*self._signature_columns, *_read_beside(self.data_collator)]))

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Keep what only observables read away from the model."""
        known = {name: value for name, value in inputs.items() if name not in _read_beside(self.data_collator)}
        return super().prediction_step(model, known, *args, **kwargs)

    def create_accelerator_and_postprocess(self) -> None:
        """Let the accelerator leave a model alone that it has sharded already."""
        super().create_accelerator_and_postprocess()
        if self.is_fsdp_enabled:
            self.accelerator.prepare = self._prepare_once

    def _prepare_once(self, *objects: Any, **settings: Any) -> Any:
        """Prepare as accelerate does; beside a model that is sharded already, prepare the optimizer only.

        accelerate gives the optimizer the sharded tensors by the addresses of the shards. Empty shards (of a bias of
        one number, on the second process) have one address, and the optimizer would lose all of them but one.
        """
        if not any(isinstance(each, FSDPModule) for each in objects):
            for each in objects:
                if isinstance(each, nn.Module):
                    self._keep_embedding_apart(each)
            return type(self.accelerator).prepare(self.accelerator, *objects, **settings)
        prepared = []
        for each in objects:
            if isinstance(each, FSDPModule):
                self.accelerator._models.append(each)
            prepared.append(each if isinstance(each, FSDPModule) else self.accelerator.prepare_optimizer(each))
        return prepared

    def _keep_embedding_apart(self, model: nn.Module) -> None:
        """Choose the blocks that are sharded, unless the user did, so that none holds the input embedding.

        accelerate shards the embedding by itself, and fails where it is in a block that was sharded before (as in the
        ``_no_split_modules`` of BERT) or where the model will not name its embedding (SegFormer).
        """
        try:
            embedding = model.get_input_embeddings()  # type: ignore[operator]
        except (AttributeError, NotImplementedError):
            embedding = None
            model.get_input_embeddings = lambda: None  # type: ignore[assignment]
        plugin = self.accelerator.state.fsdp_plugin
        if plugin.transformer_cls_names_to_wrap is None:
            blocks = getattr(model, "_no_split_modules", None) or []
            around = {type(module).__name__ for module in model.modules() if embedding in list(module.modules())}
            present = {type(module).__name__ for module in model.modules()}
            plugin.transformer_cls_names_to_wrap = [name for name in blocks if name in present - around]

    # ---- rounds ----------------------------------------------------------------------------------------------------

    @property
    def _run_folder(self) -> Path:
        return Path(Trainer._get_output_dir(self, self._trial_of_run))

    def _get_output_dir(self, trial: Any) -> str:
        """Return the folder of the round's checkpoints while a round trains."""
        return str(self._round_folder) if self._round_folder is not None else str(super()._get_output_dir(trial))

    def _set_up_trial(self, trial: Any) -> None:
        """Set the arguments of a trial of `hyperparameter_search` and make the model that the last trial took away.

        Upstream does so when training starts; here a round chooses rows before that.
        """
        self._hp_search_setup(trial)
        if self.model is None:
            set_seed(self.args.seed)
            self.model = self.model_wrapped = self.call_model_init(trial)

    def _forget_last_round(self) -> None:
        """Make the next `Trainer.train` build its own optimizer and wrap the model itself.

        An evaluation before the first training marks the model as prepared, and the training would then leave it
        without its DistributedDataParallel: the processes would drift apart unnoticed. It also leaves weights gathered
        that an optimizer would then take for the model's own.
        """
        self.optimizer = self.lr_scheduler = None
        settle(self.model)
        if self.is_deepspeed_enabled:
            self.accelerator.free_memory()  # it ends the engine; upstream would go on with what is left of it
            self.model_wrapped, self.deepspeed = self.model, None
        elif self.model_wrapped is self.model and not self.is_fsdp_enabled:
            attributes = self.model.__dict__
            attributes.pop("_is_accelerate_prepared", None)  # accelerate 1.4 wraps `forward` without this mark
            if "_original_forward" in attributes:
                attributes.pop("forward", None)
                attributes.pop("_original_forward")
            self.accelerator._models.clear()

    def _prepare_to_look(self) -> None:
        """Shard a model that is to be looked at before its first training, as that training would."""
        if self.is_fsdp_enabled and not is_sharded(self.model):
            self.create_optimizer()  # FSDP2 is set up for a model and its optimizer together
            self.model, _ = self.accelerator.prepare(self.model, self.optimizer)
            self.model_wrapped, self.optimizer = self.model, None
        if self.is_deepspeed_enabled and self.deepspeed is None:
            deepspeed_init(self, num_training_steps=0, inference=True)
            self.model_wrapped = self.deepspeed = self.accelerator.prepare(self.model)
        if self.is_deepspeed_enabled:
            settle_by(self.model, self.deepspeed.empty_partition_cache)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate also before the first training."""
        if not self.is_in_train:
            self._prepare_to_look()
        output = super().evaluation_loop(*args, **kwargs)
        settle(self.model)
        return output

    def _check_wrapping(self) -> None:
        if self.is_deepspeed_enabled:
            settle_by(self.model, self.deepspeed.empty_partition_cache)
        elif self.accelerator.num_processes > 1 and not isinstance(
            self.model_wrapped, DistributedDataParallel | FSDPModule
        ):
            raise RuntimeError(
                f"The model was trained on {self.accelerator.num_processes} processes without "
                "DistributedDataParallel or FSDP2, so their weights differ. This is a bug: please report it with your "
                "versions of transformers and accelerate."
            )

    # ---- weights on the disk ---------------------------------------------------------------------------------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model as `from_pretrained` loads it, on every process; sharded weights are written whole."""
        shards = self.is_fsdp_enabled and not self._state_dict_is_whole()  # upstream would write nothing
        if shards or self.is_deepspeed_enabled:
            self._save_weights(output_dir or str(self.args.output_dir))
        if not self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)
        elif self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    @property
    def _shards(self) -> bool:
        """Whether weights are sharded over the processes."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def _state_dict_is_whole(self) -> bool:
        return "FULL_STATE_DICT" in str(self.accelerator.state.fsdp_plugin.state_dict_type)

    def _optimizer_files(self) -> list[str]:
        """Return what a checkpoint must hold, beside weights and scheduler, for training to go on from it."""
        if not self.is_fsdp_enabled:
            return ["optimizer.pt", *([WEIGHTS_FILE] if self._adds_to_checkpoints() else [])]
        if self._state_dict_is_whole():
            return ["optimizer.bin", "pytorch_model_fsdp.bin"]
        return ["optimizer_0/.metadata", "pytorch_model_fsdp_0/.metadata"]  # written when all shards are there

    def _save_weights(self, folder: str) -> None:
        """Save the model with its weights whole; every process must call it, one writes."""
        state = whole_weights(self.model, self.args.should_save) if is_sharded(self.model) else None
        if self.args.should_save:
            self._save(folder, state_dict=state)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint, what PEFT leaves out of it, the seconds so far, and the checksums of all these files."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        checkpoint = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        if self._adds_to_checkpoints():
            save_weights(self.model, checkpoint, self.is_world_process_zero())
        if self.is_world_process_zero() and checkpoint.is_dir():
            seconds = time.perf_counter() - self._round_started
            (checkpoint / SECONDS_FILE).write_text(f"{seconds:.3f}", encoding="utf-8")
            write_checksums(checkpoint)

    def _adds_to_checkpoints(self) -> bool:
        """Return whether checkpoints need our own file of weights: PEFT keeps its adapters, and no means of batches."""
        return hasattr(self.model, "peft_config") and not self._shards

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the weights of a checkpoint, each under its name or not at all.

        Upstream takes the names on the disk for the model's own, passes over those that are not, and so leaves most
        weights of a ViT or a SegFormer as they were.
        """
        if self._reads_itself(resume_from_checkpoint):
            load_weights(self.model if model is None else model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        """Load the best weights of a round, as `_load_from_checkpoint` does."""
        best = str(self.state.best_model_checkpoint)
        check_folder(Path(best))
        if self._reads_itself(best):
            load_weights(self.model, Path(best))
        else:
            super()._load_best_model()

    def _reads_itself(self, checkpoint: str) -> bool:
        """Return whether the weights of a checkpoint are in safetensors, and not in shards for each process."""
        return not self._shards and any(Path(checkpoint).rglob("*.safetensors"))

    # ---- events ----------------------------------------------------------------------------------------------------

    def _fire(self, event: str, **details: Any) -> None:
        """Call `event` on every callback that knows the events of rounds."""
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ActiveTrainerCallback):
                known = {"model": self.model, "processing_class": self.processing_class}
                getattr(callback, event)(self.args, self.state, self.control, **known, **details)

    def _log_at(self, step: int, values: dict[str, float]) -> None:
        """Log to every backend of ``report_to`` with `step` as the step."""
        before = self.state.global_step
        self.state.global_step = step
        try:
            self.log(values)
        finally:
            self.state.global_step = before

    # ---- uploads ---------------------------------------------------------------------------------------------------

    def push_to_hub(self, *args: Any, **kwargs: Any) -> CommitInfo:
        """Upload the model and its card, and nothing of the run: no labels, queries or checkpoints of rounds."""
        if self.hub_model_id is None:
            self.init_hf_repo(token=kwargs.get("token"))
        kwargs.setdefault("model_name", str(self.hub_model_id).split("/")[-1])
        with self._hub_folder():
            return super().push_to_hub(*args, **kwargs)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        with self._hub_folder():
            super()._push_from_checkpoint(checkpoint_folder)

    @contextmanager
    def _hub_folder(self) -> Iterator[None]:
        """Let upstream, which uploads the whole `output_dir`, see a folder that holds the model only."""
        output_dir = self.args.output_dir
        self.args.output_dir = str(Path(str(output_dir)) / HUB_FOLDER)
        Path(self.args.output_dir).mkdir(parents=True, exist_ok=True)
        try:
            yield
        finally:
            self.args.output_dir = output_dir


def _read_beside(collator: object) -> tuple[str, ...]:
    """Return the columns that a data collator reads and hands to observables alone, as it says in ``columns``."""
    return tuple(getattr(collator, "columns", ()))


def _log_as_transformers_does(args: ActiveTrainingArguments) -> None:
    """Send what this package logs where transformers sends its own, at the level of ``args.log_level``."""
    ours = logging.getLogger("hf_noise_al")
    theirs = get_logger("transformers")
    if args.log_level != "passive" or not args.should_log or ours.level == logging.NOTSET:
        ours.setLevel(args.get_process_log_level())  # type: ignore[no-untyped-call]
    for handler in theirs.handlers:
        if not ours.handlers and not logging.getLogger().handlers:
            ours.addHandler(handler)
