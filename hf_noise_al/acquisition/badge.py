"""BADGE: gradients of the last layer, long and different."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..observables.base import (
    Observable,
    is_multi_label,
    is_regression,
    probabilities_and_features,
    split_probabilities_and_features,
)
from ..observables.parts import check_one_answer_each
from ..refusals import Refusal
from ..selection.checks import check_finite, check_size, row_norms
from ..selection.k_means import k_means_plus_plus_of_products
from .base import Acquisition, Candidates, Choice


@dataclass(frozen=True)
class BADGE(Acquisition):
    """k-means++ on gradient embeddings (Ash et al., ICLR 2020, arXiv 1906.03671).

    The embedding of a candidate is the gradient of the loss in the output head's weights, were the most likely class
    the right one: ``(p - onehot(argmax p)) ⊗ h``, h the penultimate features. It is kept as its two factors, so that
    a query holds N x (C + H) numbers and never N x C * H. One forward pass gives both.
    """

    def check(self, model: nn.Module, observable: Observable) -> None:
        """Raise ValueError unless `model` chooses one class of several for each example."""
        _check_one_class_each(model)
        check_one_answer_each(observable, "BADGE takes the gradient of one answer per example")

    def looks_at(self, observable: Observable) -> Observable:
        """Return the two factors of gradient embeddings."""
        return probabilities_and_features

    def select(self, candidates: Candidates, query_size: int, generator: torch.Generator) -> Choice:
        """Return candidates drawn by k-means++ seeding; scores are lengths of their gradient embeddings."""
        check_size(query_size, candidates.size)
        self.check(candidates.model, candidates.observable)
        rows = candidates.observe(probabilities_and_features, "probabilities and features")
        check_finite(rows)
        probabilities, features = split_probabilities_and_features(rows)
        errors = error_of_likeliest_class(probabilities)
        indices = k_means_plus_plus_of_products(errors, features, query_size, generator)
        return Choice(indices, row_norms(errors) * row_norms(features))


def error_of_likeliest_class(probabilities: Tensor) -> Tensor:
    """Return the gradient of cross-entropy in the logits, were the likeliest class right: (N, C) -> (N, C)."""
    likeliest = probabilities.argmax(dim=1, keepdim=True)
    return probabilities.scatter_add(1, likeliest, probabilities.new_full(likeliest.shape, -1))


def _check_one_class_each(model: nn.Module) -> None:
    if is_multi_label(model) or is_regression(model):
        found, instead = (
            ("independent labels", "'noise_stability', 'entropy' or 'bald'")
            if is_multi_label(model)
            else ("a regression", "'noise_stability' or 'core_set'")
        )
        raise Refusal(
            "BADGE takes the most likely class for the label, so it needs a model that chooses one class of several; "
            f"the outputs of this {type(model).__name__} are {found}. Use {instead}."
        )
