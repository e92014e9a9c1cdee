"""Observables: what is looked at when a model sees a batch, as one row of numbers per example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from ..processes.sharded_weights import class_name
from ..refusals import Refusal

Observable: TypeAlias = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]
"""``(model, inputs) -> (B, D)``, one row per example of the batch."""


class Observe(Protocol):
    """Pass every candidate through the model once, with its current parameters."""

    def __call__(self, observable: Observable, description: str = "observe") -> Tensor:
        """Return one row per candidate, in candidate order, the same on every process: (size, D), on the CPU."""
        ...


WORD_STARTS = "word_starts"
"""Input beside those of the model, where rows are sentences of words: which word begins at a token, or -1: (B, T)."""

_HEAD_TYPES = ("Linear", "Conv1D", "Conv2d", "Conv1d", "Bilinear", "Embedding")


def check_observable(observable: object) -> None:
    """Raise ValueError unless `observable` can be called."""
    if not callable(observable):
        raise Refusal(
            f"`observable` must be a function of the model and its inputs, got {observable!r}. "
            "Pass one, such as `hf_noise_al.features`, or leave the setting out."
        )


def model_outputs(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the logits of `model`; what `inputs` say beside the model's own inputs stays out of its way."""
    return _logits(model(**{name: value for name, value in inputs.items() if name != WORD_STARTS}))


def probabilities(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return class probabilities: softmax, or sigmoid where the model's ``problem_type`` is multi-label: (B, C).

    Raises:
        ValueError: the model is a regression model, or it has more than one row of outputs per example.
    """
    return _class_probabilities(model, model_outputs(model, inputs))


def features(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the input of the output head, the penultimate features: (B, H).

    The head is the last linear layer or convolution that runs outside the model's ``base_model`` (anywhere, in a
    plain module). Where it runs at every position (GPT-2's ``score``), the features are those of the position whose
    output became the logits; where each position has logits of its own, the mean over the words that begin there
    (``inputs["word_starts"]``).
    """
    return _logits_and_features(model, inputs)[1]


def probabilities_and_features(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return what `probabilities` and `features` do, from one forward pass: (B, 1 + C + H).

    A row is the number of classes C, then the C probabilities, then the H features, so that it can be taken apart
    without the model: see `split_probabilities_and_features`.
    """
    logits, rows = _logits_and_features(model, inputs)
    classes = _class_probabilities(model, logits)
    return torch.cat([classes.new_full((len(classes), 1), classes.shape[1]), classes, rows], dim=1)


def split_probabilities_and_features(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Take rows of `probabilities_and_features` apart: (N, 1 + C + H) -> (N, C) and (N, H)."""
    classes = int(rows[0, 0])
    return rows[:, 1 : 1 + classes], rows[:, 1 + classes :]


def default_observable(model: nn.Module) -> Observable:
    """Return the paper's choice for `model`: `features` for a regression model, else `probabilities`."""
    return features if is_regression(model) else probabilities


def is_multi_label(model: nn.Module) -> bool:
    """Return whether the outputs of `model` are independent labels rather than one class of several."""
    return _problem_type(model) == "multi_label_classification"


def is_regression(model: nn.Module) -> bool:
    """Return whether the configuration of `model` says that its outputs are numbers; a plain module has none."""
    num_labels = getattr(getattr(model, "config", None), "num_labels", None)
    return _problem_type(model) == "regression" or (num_labels == 1 and not is_multi_label(model))


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the positions where `mask` is true, zero where it never is: (B, T, ...) -> (B, ...)."""
    weights = mask.to(values.dtype)
    return torch.einsum("bt...,bt->b...", values, weights / weights.sum(dim=1, keepdim=True).clamp(min=1))


def names_in_base_model(model: nn.Module) -> set[str]:
    """Return the names of the modules that are part of the model's ``base_model``; empty for a plain module."""
    base = _base_model(model)
    if base is None:
        return set()
    inside = {id(module) for module in base.modules()}
    return {name for name, module in model.named_modules() if id(module) in inside}


def _class_probabilities(model: nn.Module, logits: Tensor) -> Tensor:
    if logits.ndim != 2:
        remedy = "Pass an `observable` that returns one row per example."
        if logits.ndim == 3:
            remedy = (
                "Pass an `observable` that returns one row per example, such as `word_probabilities` for sentences."
            )
        if logits.ndim == 4:
            remedy = (
                "These are classes of pixels: pass `segmentation_map` of `hf_noise_al.observables.pixels` as the "
                "observable, and use 'noise_stability', 'entropy', 'margin', 'least_confidence' or 'core_set'."
            )
        raise Refusal(
            f"Class probabilities need logits of shape (batch, classes), found {tuple(logits.shape)}. {remedy}"
        )
    if is_multi_label(model):
        return logits.sigmoid()
    if logits.shape[1] == 1 or _problem_type(model) == "regression":
        found = "one" if logits.shape[1] == 1 else "`problem_type='regression'`"
        raise Refusal(
            f"Class probabilities need at least two outputs, one for each class, found {found}: this looks like a "
            "regression model. Use `features` as the observable, or an acquisition that needs no probabilities."
        )
    return logits.softmax(dim=1)


def _logits_and_features(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    called: list[tuple[Tensor, Tensor]] = []

    def remember(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> None:
        called[:] = [(args[0] if args else next(iter(kwargs.values())), output)]

    handles = [module.register_forward_hook(remember, with_kwargs=True) for module in _possible_heads(model)]
    try:
        logits = model_outputs(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not called:
        raise Refusal(
            f"Found no output head in {class_name(model)}: no linear layer or convolution ran outside its base "
            "model. Pass an `observable` of your own."
        )
    return logits, _rows_behind(logits, *called[-1], inputs.get(WORD_STARTS))


def _problem_type(model: nn.Module) -> object:
    return getattr(getattr(model, "config", None), "problem_type", None)


def _base_model(model: nn.Module) -> nn.Module | None:
    get_base_model = getattr(model, "get_base_model", None)  # a PEFT model wraps the transformers model
    inner = get_base_model() if callable(get_base_model) else model
    base = getattr(inner, "base_model", None)
    return base if isinstance(base, nn.Module) and base is not inner else None


def _possible_heads(model: nn.Module) -> list[nn.Module]:
    inside = names_in_base_model(model)
    return [
        module
        for name, module in model.named_modules()
        if name not in inside and class_name(module) in _HEAD_TYPES and not name.endswith("original_module")
    ]


def _logits(outputs: object) -> Tensor:
    found: object
    if isinstance(outputs, Tensor):
        found = outputs
    elif isinstance(outputs, Mapping) and "logits" in outputs:
        found = outputs["logits"]
    elif hasattr(outputs, "logits"):
        found = outputs.logits
    else:
        try:
            found = outputs[0]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            found = None
    if not isinstance(found, Tensor):
        names = f" of {', '.join(map(repr, outputs))}" if isinstance(outputs, Mapping) else ""
        raise Refusal(
            f"Found no logits in what the model returned: a {type(outputs).__name__}{names}. Let it return them as a "
            "tensor, as the first of a tuple, or as `logits`; or pass an `observable` of your own."
        )
    return found if found.dtype == torch.float64 else found.float()


def _rows_behind(logits: Tensor, inputs: Tensor, outputs: Tensor, word_starts: Tensor | None = None) -> Tensor:
    """Return the rows of the head's `inputs` that became the `logits`."""
    if word_starts is not None and inputs.shape[:-1] == logits.shape[:-1] == word_starts.shape:
        inputs = mean_where(inputs, word_starts >= 0)
    if inputs.ndim > 2 and logits.ndim == 2 and outputs.ndim == 3 and outputs.shape[-1] == logits.shape[1]:
        same = torch.isclose(outputs.to(logits.dtype), logits[:, None, :], rtol=0, atol=0, equal_nan=True).all(dim=2)
        if bool(same.any(dim=1).all()):
            inputs = inputs[torch.arange(len(inputs), device=inputs.device), same.int().argmax(dim=1)]
    if inputs.ndim == 4:
        inputs = inputs.mean(dim=(2, 3))
    if inputs.ndim != 2:
        raise Refusal(
            f"The output head sees inputs of shape {tuple(inputs.shape)}, not one row per example. "
            "Pass an `observable` of your own."
        )
    return inputs if inputs.dtype == torch.float64 else inputs.float()
