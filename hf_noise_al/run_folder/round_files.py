"""Weights on the disk: where each round starts, where it got to, and what it ended with."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from ..files.atomic import sync_folder, write_atomically
from ..files.checksums import check_folder, write_checksums
from ..files.run_names import INITIAL_FOLDER, LABELS_FILE, MODEL_FOLDER, OUTPUT_FILE, ROUNDS_FOLDER, SECONDS_FILE
from ..refusals import Refusal, reason_of
from ..upstream.trainer import UpstreamTrainer
from ..upstream.weight_files import check_weights, load_weights, save_weights
from .state import ActiveState

logger = logging.get_logger(__name__)


class RoundFiles:
    """The folder ``_rounds`` of a run: ``initial`` weights, and the ``checkpoint-*`` or the ``model`` of a round.

    The leading underscore keeps it out of uploads. Every method is called on all processes; one of them writes.
    """

    def __init__(self, trainer: UpstreamTrainer) -> None:
        self.trainer = trainer
        self.resumed_round: int | None = None
        self.initial_saved = False

    @property
    def folder(self) -> Path:
        """The folder of the present run."""
        return self.trainer._run_folder / ROUNDS_FOLDER

    def round_folder(self, number: int) -> Path:
        """Return the folder of round `number`."""
        return self.folder / f"{number:02d}"

    def folds_folder(self, number: int) -> Path:
        """Return the folder of the cross-validation of round `number`."""
        return self.folder / f"{number:02d}-folds"

    def clear(self) -> None:
        """Remove what an earlier run left, and take the weights back to the initial ones."""
        if self.initial_saved:
            self._load(self.folder / INITIAL_FOLDER)
        if self.trainer.is_world_process_zero():
            shutil.rmtree(self.folder, ignore_errors=True)
        self.trainer.accelerator.wait_for_everyone()
        self.initial_saved, self.resumed_round = False, None

    def save_initial(self) -> None:
        """Keep the initial weights, where no `model_init` can make them again."""
        if self.trainer.model_init is None and not self.initial_saved:
            self._save(self.folder / INITIAL_FOLDER)
            self.initial_saved = True

    def resume(self, state: ActiveState) -> bool:
        """Load the weights that the state was written with; let the next round use what is left of it.

        Returns:
            Whether they are there; where not, training the last round again makes them.

        Raises:
            ValueError: they are gone or damaged, and so is what they could be made from.
        """
        trainer = self.trainer
        self.initial_saved, self.resumed_round = trainer.model_init is None, None
        if self.initial_saved:
            check_folder(self.folder / INITIAL_FOLDER)
        if state.history:
            last = self.round_folder(state.round - 1) / MODEL_FOLDER
            try:
                check_folder(last)
            except ValueError as error:
                if trainer.args.warm_start and state.round > 1:
                    raise  # it started from weights that are no longer there
                logger.warning(f"{error} Instead, round {state.round - 1} is trained again now.")
                return False
            self._load(last)
        elif self.initial_saved:
            self._load(self.folder / INITIAL_FOLDER)
        self.resumed_round = state.round
        return True

    def begin(self, number: int, num_labeled: int) -> str | None:
        """Put the weights where round `number` starts; return the checkpoint of a killed training to go on from.

        Args:
            number: The round.
            num_labeled: How many labels it trains on; a training that was killed with fewer is no use.
        """
        trainer, folder = self.trainer, self.round_folder(number)
        checkpoint = None
        if self.resumed_round == number and _trained_on(folder) in (None, num_labeled):
            checkpoint = self._last_checkpoint(folder)
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            if checkpoint is None:
                shutil.rmtree(folder, ignore_errors=True)
            write_atomically(folder / LABELS_FILE, json.dumps({"num_labeled": num_labeled}))
        trainer.accelerator.wait_for_everyone()
        if trainer.args.warm_start and number > 0:
            trainer._forget_last_round()
            self._load(self.round_folder(number - 1) / MODEL_FOLDER)
        else:
            self.start_anew()
        return None if checkpoint is None else str(checkpoint)

    def start_anew(self) -> None:
        """Put the weights where every training starts that is not a warm one."""
        self.trainer._forget_last_round()
        if self.trainer.model_init is None:
            self._load(self.folder / INITIAL_FOLDER)

    def seconds_before(self, checkpoint: str | None) -> float:
        """Return the seconds that killed processes spent on a round until they wrote `checkpoint`; 0 without one.

        What they trained after it is trained again, and counts as what is then spent on it.
        """
        try:
            seconds = float((Path(str(checkpoint)) / SECONDS_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # a release before did not write it
            return 0.0
        return seconds if 0 <= seconds < math.inf else 0.0

    def save(self, number: int, output: TrainOutput, seconds: float) -> None:
        """Keep what round `number` ended with, and nothing else of it; complete as soon as the folder has its name."""
        content = {
            "global_step": output.global_step,
            "training_loss": output.training_loss,
            "metrics": output.metrics,
            "seconds": seconds,
        }
        self._save(self.round_folder(number) / MODEL_FOLDER, json.dumps(content))
        if self._removes():
            for checkpoint in self.round_folder(number).glob("checkpoint-*"):
                shutil.rmtree(checkpoint, ignore_errors=True)

    def finished_training(self, number: int, num_labeled: int) -> tuple[TrainOutput, float] | None:
        """Load what a killed run had trained in round `number`, on as many labels, and could not evaluate any more."""
        target = self.round_folder(number) / MODEL_FOLDER
        if self.resumed_round != number or not target.is_dir():
            return None
        if _trained_on(self.round_folder(number)) not in (None, num_labeled):
            return None
        try:
            self._load(target)
            return self.output(number)
        except ValueError as error:
            logger.warning(f"{error} Round {number} is trained again.")
            return None

    def output(self, number: int) -> tuple[TrainOutput, float] | None:
        """Return the output of the training of round `number` and its seconds, if they are still there."""
        path = self.round_folder(number) / MODEL_FOLDER / OUTPUT_FILE
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            seconds = float(content.pop("seconds"))
            return TrainOutput(**content), seconds
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # of a folder without checksums
            raise Refusal(
                f"Cannot resume: {path} is damaged ({reason_of(error)}). Restore the folder, or start "
                "afresh in another `output_dir`."
            ) from error

    def forget_before(self, number: int) -> None:
        """Remove what is left of the rounds before `number`; a run needs the last one only."""
        if self._removes():
            for earlier in range(number):
                shutil.rmtree(self.round_folder(earlier), ignore_errors=True)

    def _removes(self) -> bool:
        return self.trainer.is_world_process_zero() and not self.trainer.args.keep_round_files

    def _save(self, target: Path, output: str | None = None) -> None:
        trainer = self.trainer
        temporary = target.with_name(f".{target.name}.incomplete")
        if trainer.is_world_process_zero():
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        trainer.accelerator.wait_for_everyone()
        save_weights(trainer.model, temporary, trainer.is_world_process_zero())
        if trainer.is_world_process_zero():
            if output is not None:
                write_atomically(temporary / OUTPUT_FILE, output)
            write_checksums(temporary)
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
            sync_folder(target.parent)
        trainer.accelerator.wait_for_everyone()

    def _load(self, source: Path) -> None:
        check_folder(source)
        with _without_progress_bars():
            load_weights(self.trainer.model, source)
        self.trainer.accelerator.wait_for_everyone()

    def _last_checkpoint(self, folder: Path) -> Path | None:
        """Return the newest checkpoint from which training goes on exactly: written to its end, not half removed."""
        if self.trainer.is_deepspeed_enabled:
            return None  # its checkpoints are of many files: the round is trained from its start again
        processes = self.trainer.accelerator.num_processes
        names = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
        names += ["scheduler.pt", *self.trainer._optimizer_files()]
        best = self.trainer.args.load_best_model_at_end
        found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
        for checkpoint in found:
            if _is_complete(checkpoint, names) and (not best or _has_its_best(checkpoint)):
                logger.info(f"Going on from {checkpoint}.")
                return checkpoint
            logger.warning(f"{checkpoint} is not complete: it is not used.")
        return None


def _trained_on(folder: Path) -> int | None:
    """Return how many labels the training in `folder` had; None where a release before did not say."""
    try:
        return int(json.loads((folder / LABELS_FILE).read_text(encoding="utf-8"))["num_labeled"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return -1


def _is_complete(checkpoint: Path, names: list[str]) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))  # the last file that is written
    except (OSError, ValueError):
        return False
    try:
        check_folder(checkpoint)
        check_weights(checkpoint)
    except ValueError:
        return False
    return all(_is_whole(checkpoint / name) for name in names)


def _has_its_best(checkpoint: Path) -> bool:
    """Return whether the best model before `checkpoint` is whole and where upstream will look for it.

    It is named by its path: in a folder that was moved, upstream would do without it in silence.
    """
    named = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8")).get("best_model_checkpoint")
    best = Path(named or checkpoint)
    try:
        check_folder(best)
    except ValueError:
        return False
    return best.resolve().parent == checkpoint.resolve().parent


def _is_whole(path: Path) -> bool:
    """Return whether the file was written to its end: what torch.save writes ends with an index."""
    return path.is_file() and (path.suffix not in (".pt", ".pth", ".bin") or zipfile.is_zipfile(path))


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Write a few small files without a bar for each."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
