"""What a loop of rounds needs corrected or refused in `transformers.Trainer`: every private upstream name is used here.

Upstream names relied on, each pinned by a test: ``Trainer.model_accepts_loss_kwargs``, ``Trainer._get_output_dir``,
``Trainer._push_from_checkpoint``, ``Trainer._save``, ``Trainer._load_from_checkpoint``,
``Trainer._remove_unused_columns``, ``Trainer._hp_search_setup``,
``Accelerator._models``, ``model._is_accelerate_prepared``, ``model._original_forward``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer, set_seed
from transformers.utils.logging import get_logger

from .callbacks import ActiveTrainerCallback
from .training_args import ActiveTrainingArguments

HUB_FOLDER = "_hub"


class UpstreamTrainer(Trainer):
    """A `Trainer` that may be trained again and again: right losses, whole wrappers, nothing private uploaded."""

    args: ActiveTrainingArguments
    model: Any
    model_init: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refuse_what_cannot_work()
        _log_as_transformers_does(self.args)
        # Upstream takes any model whose forward has **kwargs to divide its loss by `num_items_in_batch`. BERT and most
        # others do not, so their gradients would grow with accumulation steps and processes.
        if self.compute_loss_func is None:
            self.model_accepts_loss_kwargs = False
        self._round_folder: Path | None = None
        self._trial_of_run: Any = None

    def _refuse_what_cannot_work(self) -> None:
        if not isinstance(self.args, ActiveTrainingArguments):
            raise ValueError(f"`args` must be an `ActiveTrainingArguments`, got {type(self.args).__name__}.")
        if self.args.n_gpu > 1:
            raise ValueError(
                f"DataParallel over {self.args.n_gpu} GPUs in one process is not supported: it copies the weights at "
                "each step and perturbations would reach one copy only. Start one process per GPU with "
                "`accelerate launch`, or show one GPU with CUDA_VISIBLE_DEVICES=0."
            )
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                "FSDP and DeepSpeed are not supported yet: weights are perturbed whole. Use DistributedDataParallel "
                "(`accelerate launch --multi_gpu`)."
            )
        if self.optimizer is not None or self.lr_scheduler is not None:
            raise ValueError(
                "`optimizers` cannot be used: each round needs a new optimizer, one that was passed in would carry "
                "its moments from round to round. Pass `optimizer_cls_and_kwargs`, or set `optim` in the arguments."
            )
        method = getattr(self.model, "quantization_method", None)
        whole_numbers = [n for n, p in self.model.named_parameters() if not (p.is_floating_point() or p.is_complex())]
        if method is not None or whole_numbers:
            found = f"the weights are quantized by {method}" if method else f"{whole_numbers[0]} is quantized"
            raise ValueError(
                f"Quantized weights are not supported ({found}): noise needs floating-point weights, and quantized "
                "ones would be left out in silence. Load the model without quantization."
            )

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
        without its DistributedDataParallel: the processes would drift apart unnoticed.
        """
        self.optimizer = self.lr_scheduler = None
        if self.model_wrapped is self.model:
            attributes = self.model.__dict__
            attributes.pop("_is_accelerate_prepared", None)  # accelerate 1.4 wraps `forward` without this mark
            if "_original_forward" in attributes:
                attributes.pop("forward", None)
                attributes.pop("_original_forward")
            self.accelerator._models.clear()

    def _check_wrapping(self) -> None:
        if self.accelerator.num_processes > 1 and not isinstance(self.model_wrapped, DistributedDataParallel):
            raise RuntimeError(
                f"The model was trained on {self.accelerator.num_processes} processes without "
                "DistributedDataParallel, so their weights differ. This is a bug: please report it with your versions "
                "of transformers and accelerate."
            )

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


def _log_as_transformers_does(args: ActiveTrainingArguments) -> None:
    """Send what this package logs where transformers sends its own, at the level of ``args.log_level``."""
    ours = logging.getLogger("hf_noise_al")
    theirs = get_logger("transformers")
    if args.log_level != "passive" or not args.should_log or ours.level == logging.NOTSET:
        ours.setLevel(args.get_process_log_level())  # type: ignore[no-untyped-call]
    for handler in theirs.handlers:
        if not ours.handlers and not logging.getLogger().handlers:
            ours.addHandler(handler)
