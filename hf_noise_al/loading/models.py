"""Models in their initial state: from a checkpoint with a head for the task, or made from a configuration."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging

from ..files.shown_text import first_line, listed
from ..pool.problem_type import classes_of_config
from ..refusals import Refusal
from ..settings.arguments import ModelArguments
from ..settings.recipe import did_you_mean

logger = logging.get_logger(__name__)


def load_model_config(arguments: ModelArguments, head: Mapping[str, Any]) -> Any:
    """Return the configuration of the model, with the output head's fields `head` (`num_labels`, `id2label` ...)."""
    if arguments.model_name_or_path is not None:
        try:
            return AutoConfig.from_pretrained(
                arguments.model_name_or_path,
                revision=arguments.model_revision,
                trust_remote_code=arguments.trust_remote_code,
                **head,
            )
        except (OSError, ValueError) as error:
            raise Refusal(
                f"Cannot load the model {arguments.model_name_or_path}: {first_line(error)} "
                "Name a Hub id, or a folder with config.json."
            ) from error
    fields = dict(arguments.model_config) if isinstance(arguments.model_config, dict) else {}
    model_type = str(fields.pop("model_type", ""))
    known = list(transformers.CONFIG_MAPPING)
    if model_type not in known:
        raise Refusal(f"Unknown `model_type` {model_type} in `model_config`.{did_you_mean(model_type, known)}")
    default = AutoConfig.for_model(model_type)
    for name in fields:
        if not hasattr(default, name):
            near = did_you_mean(name, list(default.to_dict()))
            raise Refusal(f"`model_config` has `{name}`, which a {model_type} configuration does not have.{near}")
    try:
        return AutoConfig.for_model(model_type, **fields, **head)
    except Exception as error:  # configurations may raise anything, in transformers 5 an error of huggingface_hub
        raise Refusal(f"Cannot use `model_config`: {first_line(error.__cause__ or error)}") from error


def model_factory(
    arguments: ModelArguments,
    auto_model: Any,
    head: Mapping[str, Any],
    pad_token_id: int | None = None,
    trained_head: bool = False,
) -> Callable[[], PreTrainedModel]:
    """Return a function that makes the model in its initial state, for the trainer's `model_init`.

    Random weights come from torch's global generator, which the trainer seeds before each call. Where the checkpoint
    has no head, or one for other classes, a new one is made; with `trained_head` that is refused.
    """
    if trained_head and arguments.model_name_or_path is None:
        raise Refusal("A query needs a trained model. Name its folder with `model_name_or_path`.")
    config = load_model_config(arguments, head)
    if getattr(config, "pad_token_id", None) is None and pad_token_id is not None:
        config.pad_token_id = pad_token_id
    known = checkpoint_classes(arguments)
    asked = tuple(map(str, head.get("id2label", {}).values()))
    others = known is not None and bool(asked) and len(known) == len(asked) and known != asked
    told = False

    def make() -> PreTrainedModel:
        nonlocal told
        if arguments.model_name_or_path is None:
            made: PreTrainedModel = auto_model.from_config(config, dtype=torch.float32)
            return made
        model, new = _load_checkpoint(arguments, auto_model, config)
        if trained_head and (new or others):
            raise _untrained(str(arguments.model_name_or_path), new, known, asked, config.num_labels)
        if others and not new:
            new = _renew_head(model, auto_model, config)
        if not told and not trained_head:
            _log_head(arguments.model_name_or_path, new, known, asked)
        told = True
        return model

    return make


def _load_checkpoint(arguments: ModelArguments, auto_model: Any, config: Any) -> tuple[PreTrainedModel, list[str]]:
    """Return the model with the weights of its checkpoint, and the names of the weights that are not among these."""
    try:
        with _without_load_report():
            model, report = auto_model.from_pretrained(
                arguments.model_name_or_path,
                config=config,
                revision=arguments.model_revision,
                trust_remote_code=arguments.trust_remote_code,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except (OSError, ValueError) as error:
        raise Refusal(f"Cannot load {arguments.model_name_or_path}: {first_line(error)}") from error
    return model, _new_weights(report)


def _untrained(
    name: str, new: list[str], known: tuple[str, ...] | None, asked: tuple[str, ...], num_labels: int
) -> Refusal:
    return Refusal(
        f"{name} has no trained weights for this task: {', '.join(new) or 'its output head'} would be new "
        f"({num_labels} outputs{': ' + listed(asked, 12) if asked else ''}); its own classes are "
        f"{listed(known or ('unnamed',), 12)}. Name a model that was fine-tuned on these classes."
    )


def _log_head(name: str, new: list[str], known: tuple[str, ...] | None, asked: tuple[str, ...]) -> None:
    """Say which weights are new, or that the outputs of a checkpoint without names are taken for the classes."""
    own = f" ({listed(known, 12)})" if known else ""
    if new:
        logger.info(f"Not in {name}{own}, made new for {listed(asked, 12) or 'this task'}: {', '.join(new)}.")
    elif known is None and len(asked) > 1:
        logger.warning(
            f"{name} has an output head and does not name its classes: its outputs are taken to be "
            f"{listed(asked, 12)}, in this order. Set `class_names` where they are others."
        )


def checkpoint_classes(arguments: ModelArguments) -> tuple[str, ...] | None:
    """Return the classes that the checkpoint names, in the order of its outputs; None where it names none."""
    return None if arguments.model_name_or_path is None else classes_of_config(load_model_config(arguments, {}))


def _renew_head(model: PreTrainedModel, auto_model: Any, config: Any) -> list[str]:
    """Give `model` new weights where their shape depends on the number of classes; return their names."""
    more = copy.deepcopy(config)
    more.num_labels = config.num_labels + 1
    with torch.device("meta"):
        larger = auto_model.from_config(more).state_dict()
    fresh = auto_model.from_config(config, dtype=torch.float32).state_dict()
    own = model.state_dict()
    names = sorted(name for name, tensor in own.items() if name in larger and tensor.shape != larger[name].shape)
    with torch.no_grad():
        for name in names:
            own[name].copy_(fresh[name])
    return names


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Keep transformers from reporting in every round which weights are new: it is logged here, once."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _new_weights(report: Mapping[str, Any]) -> list[str]:
    mismatched = [key if isinstance(key, str) else key[0] for key in report.get("mismatched_keys", ())]
    return sorted({*report.get("missing_keys", ()), *mismatched})
