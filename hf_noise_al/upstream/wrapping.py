"""The wrappers of a model (DistributedDataParallel, FSDP2, DeepSpeed) in a trainer that trains again and again."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer
from transformers.integrations.deepspeed import deepspeed_init
from transformers.trainer_utils import EvalLoopOutput

from ..processes.sharded_weights import is_sharded, settle, settle_by
from ..training_args import ActiveTrainingArguments


class RewrappingTrainer(Trainer):
    """A `Trainer` whose model is wrapped whole in every training, and can be looked at before the first."""

    args: ActiveTrainingArguments
    model: Any
    model_init: Any
    deepspeed: Any

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

    @property
    def _shards(self) -> bool:
        """Whether weights are sharded over the processes."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

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
