"""What a loop of rounds needs corrected in `transformers.Trainer`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import Trainer, set_seed
from transformers.utils.logging import get_logger

from ..callbacks import ActiveTrainerCallback
from ..refusals import retold
from ..training_args import ActiveTrainingArguments
from .saving import SavingTrainer
from .unsupported import refuse_unsupported, refuse_unwritable_folder

T = TypeVar("T")


class UpstreamTrainer(SavingTrainer):
    """A `Trainer` that may be trained again and again: right losses, whole wrappers, nothing private uploaded."""

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
        self._trial_of_run: Any = None

    def _set_signature_columns_if_needed(self) -> None:
        """Keep what the data collator reads beside the model's inputs: the attribute ``columns``, where it has one."""
        super()._set_signature_columns_if_needed()
        self._signature_columns = list(dict.fromkeys([*self._signature_columns, *_read_beside(self.data_collator)]))

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Keep what only observables read away from the model."""
        known = {name: value for name, value in inputs.items() if name not in _read_beside(self.data_collator)}
        return super().prediction_step(model, known, *args, **kwargs)

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

    def from_main_process(self, work: Callable[[], T]) -> T:
        """Return what `work` returns on the main process, on every one; where it fails, fail on all of them."""
        answer: list[Any] = [None, None]
        if self.is_world_process_zero():
            try:
                answer[0] = work()
            except Exception as error:
                if self.args.world_size == 1:
                    raise
                answer[1] = retold(error, str(error)) if isinstance(error, ValueError) else RuntimeError(repr(error))
        result, refusal = broadcast_object_list(answer)
        if refusal is not None:  # on every process, for none to wait for the others
            raise refusal
        return cast(T, result)

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
