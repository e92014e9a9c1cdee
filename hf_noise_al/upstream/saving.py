"""Weights and checkpoints of a trainer on the disk and on the Hub: whole, bit for bit, and nothing private uploaded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from torch import nn

from ..files.checksums import check_folder, write_checksums
from ..files.run_names import HUB_FOLDER, SECONDS_FILE, WEIGHTS_FILE
from ..processes.sharded_weights import is_sharded
from .weight_files import load_weights, save_weights, whole_weights
from .wrapping import RewrappingTrainer


class SavingTrainer(RewrappingTrainer):
    """A `Trainer` whose checkpoints can be gone on from, and which uploads the model and its card alone."""

    _round_started = 0.0
    """When the training of the round began, by `time.perf_counter`."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model as `from_pretrained` loads it, on every process; sharded weights are written whole."""
        shards = self.is_fsdp_enabled and not self._state_dict_is_whole()  # upstream would write nothing
        if shards or self.is_deepspeed_enabled:
            self._save_weights(output_dir or str(self.args.output_dir))
        if not self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)
        elif self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

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
