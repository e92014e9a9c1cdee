"""A trial on a few rows before the first round: what would fail after hours of training is refused at once.

Nothing is learned, written or drawn from the global random states, and the weights stay as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from datasets import Dataset
from torch import Tensor
from transformers import EvalPrediction
from transformers.trainer_pt_utils import nested_concat, nested_numpify

from ..acquisition import Acquisition, Candidates
from ..annotators import Annotator
from ..files.shown_text import one_line
from ..measuring.evaluation_sets import some_rows, why_nothing_is_measured
from ..observing.observer import Observer
from ..observing.unchanged import evaluation_mode, untouched_random_state
from ..refusals import Refusal
from ..run_folder.stored_run import StoredRun
from ..training_args import ActiveTrainingArguments
from ..upstream.trainer import UpstreamTrainer
from .answers import some_labeled
from .looking import Looking

logger = logging.getLogger(__name__)

OWN_MODULES = ("hf_noise_al", "transformers")


class TrialRun:
    """Tries, each once, what rounds do: a query, a training, an evaluation.

    Args:
        run: The run.
        looking: Shows its rows to the model.
    """

    def __init__(self, run: StoredRun, looking: Looking) -> None:
        self.run, self.trainer, self.looking = run, run.trainer, looking
        self.tried: set[str] = set()

    def try_out(self, acquisition: Acquisition, annotator: Annotator | None) -> None:
        """Try on a few rows what is going to happen, where nothing was trained yet.

        Raises:
            ValueError: it would fail.
        """
        trainer, run = self.trainer, self.run
        if run.state.history or trainer._shards:
            return
        with untouched_random_state():
            if trainer.args.num_rounds > 1 and "query" not in self.tried:
                rows = list(range(min(2, len(run.data))))
                observer, candidates = (
                    self.looking.observer(rows, quiet=True),
                    self.looking.candidates(rows, quiet=True),
                )
                try_query(trainer, acquisition, observer, candidates)
                self.tried.add("query")
            examples = some_labeled(run, annotator, trainer.args.per_device_train_batch_size)
            if examples is not None and "training" not in self.tried:
                refuse_too_few(trainer.args, run.pool.num_labeled or trainer.args.initial_size)
                try_training(trainer, examples)
                self.tried.add("training")
            if "evaluation" not in self.tried:
                try_evaluation(trainer)
                self.tried.add("evaluation")


def try_query(trainer: UpstreamTrainer, acquisition: Acquisition, observer: Observer, candidates: Candidates) -> None:
    """Look at two rows as a query does; raise ValueError where that is not possible."""
    observable = acquisition.looks_at(candidates.observable)
    if observable is None:
        return
    with _refusing("query", observer.dataset, trainer):
        observer.try_some(observable)
        rehearsal = acquisition.rehearsal()
        if rehearsal is not None:
            with _in_silence():
                rehearsal.select(candidates, 1, torch.Generator().manual_seed(0))


def try_training(trainer: UpstreamTrainer, rows: Dataset) -> None:
    """Compute the loss of a batch of labeled `rows`; raise ValueError where that fails or leads to no weight."""
    if _is_own(trainer, "get_train_dataloader"):
        return
    with _refusing("train", rows, trainer):
        kept = trainer._remove_unused_columns(rows, description="training")
        inputs = trainer._prepare_inputs(trainer.data_collator([kept[row] for row in range(len(kept))]))
        batches, count = trainer.get_batch_samples(iter([inputs]), 1, trainer.args.device)
        with evaluation_mode(trainer.model), trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(trainer.model, dict(batches[0]), num_items_in_batch=count)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise Refusal(
                f"Cannot train: the loss is {_shape(loss)}. Let the model, or `compute_loss_func`, return one number."
            )
        if not loss.requires_grad:
            raise Refusal(
                "Cannot train: the loss depends on no weight that is trained. Let some weights require gradients."
            )


def refuse_too_few(args: ActiveTrainingArguments, num_labeled: int) -> None:
    """Raise ValueError where the first round would have no batch at all, and train nothing."""
    batch = args.train_batch_size * args.world_size
    if args.dataloader_drop_last and num_labeled < batch:
        raise Refusal(
            f"The first round would train on nothing: it has {num_labeled} labels, and `dataloader_drop_last` drops a "
            f"batch of fewer than {batch}. Leave it out, raise `initial_size`, or lower `per_device_train_batch_size`."
        )


def try_evaluation(trainer: UpstreamTrainer) -> None:
    """Evaluate a few rows of every evaluation set; raise ValueError where a round would end without its metric."""
    if any(_is_own(trainer, name) for name in ("evaluate", "evaluation_loop", "get_eval_dataloader")):
        return
    found = trainer.eval_dataset
    sets = found if isinstance(found, dict) else {} if found is None else {"": found}
    for name, rows in sets.items():
        if hasattr(rows, "__len__") and hasattr(rows, "__getitem__"):  # a stream cannot be looked into
            _try_set(trainer, f"evaluation set {name!r}" if name else "evaluation set", rows)


def _try_set(trainer: UpstreamTrainer, place: str, rows: Any) -> None:
    args, measure = trainer.args, trainer.compute_metrics
    least = args.eval_batch_size if args.dataloader_drop_last else 1
    if len(rows) < least:
        raise Refusal(
            f"The {place} has {len(rows)} rows, and nothing would be measured"
            + (f": `dataloader_drop_last` drops a batch of fewer than {least}. Leave it out" if least > 1 else "")
            + ". Pass more rows, or no `eval_dataset`."
        )
    examples, batch_size = some_rows(rows, args.per_device_eval_batch_size)
    loss_only = True if measure is None else args.prediction_loss_only
    predictions: list[Any] = []
    labels: list[Any] = []
    inputs: dict[str, Any] = {}
    with _refusing("evaluate", rows, trainer, place), evaluation_mode(trainer.model), torch.no_grad():
        collate = _collator(trainer, examples)
        if isinstance(examples, Dataset):
            examples = trainer._remove_unused_columns(examples, description="evaluation")
        for start in range(0, len(examples), batch_size):
            inputs = collate([examples[row] for row in range(start, start + batch_size)])
            loss, output, label = trainer.prediction_step(trainer.model, inputs, loss_only)
            if output is not None and trainer.preprocess_logits_for_metrics is not None:
                output = trainer.preprocess_logits_for_metrics(output, label)
            predictions.append(output)
            labels.append(label)
        measured = loss is not None if measure is None else output is not None and label is not None
        if measured and measure is not None and args.eval_do_concat_batches and not args.batch_eval_metrics:
            predictions, labels = _joined(predictions), _joined(labels)
    if not measured:
        _refuse_unmeasured(trainer, place, inputs, rows)
    elif measure is not None and not args.batch_eval_metrics:
        _try_form(measure, place, predictions, labels)


def _refuse_unmeasured(trainer: UpstreamTrainer, place: str, inputs: Mapping[str, Any], rows: Any) -> None:
    """Raise ValueError where somebody waits for the metric that is missing, else warn."""
    args = trainer.args
    why = why_nothing_is_measured(place, inputs, rows, trainer.label_names, bool(args.prediction_loss_only))
    if trainer.compute_metrics is not None:
        raise Refusal(f"`compute_metrics` would never be called: {why}, or leave `compute_metrics` out.")
    evaluates = str(getattr(args.eval_strategy, "value", args.eval_strategy)) != "no"
    if evaluates and (args.metric_for_best_model is not None or args.load_best_model_at_end):
        raise Refusal(
            f"`metric_for_best_model` is {args.metric_for_best_model!r}, and no evaluation would measure it: {why}."
        )
    logger.warning(f"Rounds will have no metrics: {why}.")


def _try_form(measure: Callable[[Any], Any], place: str, predictions: Any, labels: Any) -> None:
    """Raise ValueError where `measure` fails on the unusual form that predictions have, and not on one array.

    A metric need not be defined on two rows, so that nothing is asked of it where predictions are one array.
    """
    if isinstance(predictions, Tensor):
        return
    plain = [_first(each) for each in predictions] if isinstance(predictions, list) else _first(predictions)
    try:
        with _in_silence():
            measure(EvalPrediction(nested_numpify(predictions), nested_numpify(labels)))
        return
    except Exception as error:
        failure = error
    try:
        with _in_silence():
            whole = [_joined(each) if isinstance(each, list) else each for each in (plain, labels)]
            measure(EvalPrediction(*map(nested_numpify, whole)))
    except Exception:
        return  # it says nothing about this few rows
    kind = "a list, one entry for each batch" if isinstance(predictions, list) else f"a tuple of {len(predictions)}"
    raise Refusal(
        f"`compute_metrics` cannot be used: predictions of the {place} are {kind}, and it takes one array "
        f"({_described(failure)}). Leave out `eval_do_concat_batches`, `output_attentions` and "
        "`output_hidden_states`, or pass a `preprocess_logits_for_metrics` that keeps the logits."
    ) from failure


def _joined(parts: Sequence[Any]) -> Any:
    """Return the batches as one, as an evaluation joins them."""
    whole = parts[0]
    for part in parts[1:]:
        whole = nested_concat(whole, part, padding_index=-100)
    return whole


def _first(predictions: Any) -> Any:
    return predictions[0] if isinstance(predictions, tuple) else predictions


def _collator(trainer: UpstreamTrainer, examples: Any) -> Callable[[list[Any]], Any]:
    if isinstance(examples, Dataset):
        collate: Callable[[list[Any]], Any] = trainer.data_collator
        return collate
    wrapped: Callable[[list[Any]], Any] = trainer._get_collator_with_removed_columns(
        trainer.data_collator, description="evaluation"
    )
    return wrapped


def _is_own(trainer: UpstreamTrainer, method: str) -> bool:
    """Return whether a user wrote `method`, so that what it does with the rows is not known."""
    return getattr(type(trainer), method).__module__.split(".")[0] not in OWN_MODULES


@contextmanager
def _refusing(verb: str, rows: Any, trainer: UpstreamTrainer, place: str = "") -> Iterator[None]:
    """Turn what is raised into a refusal; where memory runs out the trial knows no better than the training."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError | Refusal) or should_reduce_batch_size(error):
            raise
        where = f" on the {place}" if place else ""
        raise Refusal(
            f"Cannot {verb}{where}: a few rows were tried before the first round, and that failed with "
            f"{_described(error)}. {_advice(trainer, rows)}"
        ) from error


def _advice(trainer: UpstreamTrainer, rows: Any) -> str:
    args, config = trainer.args, getattr(trainer.model, "config", None)
    asked = [name for name in ("output_attentions", "output_hidden_states") if getattr(config, name, None)]
    if args.label_smoothing_factor and trainer.compute_loss_func is None:
        return (
            f"`label_smoothing_factor` is {args.label_smoothing_factor}, which works where labels are the numbers of "
            "classes alone: leave it out."
        )
    if not args.remove_unused_columns:
        return (
            f"`remove_unused_columns` is False, so the data collator gets every column ({_columns(rows)}): leave the "
            "setting out, or pass a `data_collator` that takes them."
        )
    if asked:
        return f"The model's configuration asks for `{'` and `'.join(asked)}`: leave them out."
    return f"Columns are {_columns(rows)}. Correct the data collator, the model, the loss or the labels."


def _columns(rows: Any) -> str:
    names = getattr(rows, "column_names", None) or (list(rows[0]) if len(rows) and isinstance(rows[0], dict) else [])
    return ", ".join(map(str, names)) or "unknown"


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error, 300)}"


def _shape(value: object) -> str:
    return f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


@contextmanager
def _in_silence() -> Iterator[None]:
    """Log nothing: what is said about a trial is said again about the work itself."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
