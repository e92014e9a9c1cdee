"""Other libraries, run as their users run them on the same model and rows; each is imported only where it runs."""

import copy
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainingArguments

from hf_noise_al import features
from hf_noise_al.observables.base import probabilities_and_features, split_probabilities_and_features

if TYPE_CHECKING:
    from variants import Bench


def baal_bald(bench: "Bench", samples: int = 20) -> Callable[[], object]:
    """baal's Trainer predicts `samples` times with its own dropout layers, its BALD ranks the predictions."""
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    from baal.active.heuristics import BALD
    from baal.bayesian.dropout import patch_module
    from baal.transformers_trainer_wrapper import BaalTransformersTrainer

    observer, args = bench.observer(), bench.trainer.args
    trainer = BaalTransformersTrainer(
        model=patch_module(copy.deepcopy(bench.model), inplace=True),
        args=TrainingArguments(
            output_dir=args.output_dir,
            per_device_eval_batch_size=bench.batch_size,
            use_cpu=args.device.type == "cpu",
            disable_tqdm=True,
            report_to="none",
        ),
        data_collator=observer.batches.collate,
    )
    return lambda: BALD()(trainer.predict_on_dataset(observer.dataset, iterations=samples))[: bench.query_size]


def small_text_core_set(bench: "Bench") -> Callable[[], object]:
    """small-text's greedy coreset on mean token embeddings."""
    from small_text import GreedyCoreset

    return _small_text(bench, GreedyCoreset())


def small_text_badge(bench: "Bench") -> Callable[[], object]:
    """small-text's BADGE on mean token embeddings."""
    from small_text.integrations.pytorch.query_strategies import BADGE

    return _small_text(bench, BADGE(bench.model.config.num_labels))


def _small_text(bench: "Bench", strategy: Any) -> Callable[[], object]:
    from small_text import TransformerBasedClassification, TransformerModelArguments, TransformersDataset

    dataset = bench.observer().dataset
    if "input_ids" not in dataset.column_names:
        raise ValueError("small-text is for texts only")
    num_labels = bench.model.config.num_labels
    rows = []
    for tokens in dataset["input_ids"]:  # padded to the longest that is allowed, as its `from_arrays` does
        padding = bench.max_length - len(tokens)
        ids = torch.tensor([[*tokens, *[bench.model.config.pad_token_id or 0] * padding]])
        rows.append((ids, torch.tensor([[1] * len(tokens) + [0] * padding]), -1))
    classifier = TransformerBasedClassification(
        TransformerModelArguments("unused", predict_batch_size=bench.batch_size, show_progress_bar=False),
        num_labels,
        device=bench.trainer.args.device.type,
    )
    classifier.model = bench.model
    data = TransformersDataset(rows, target_labels=np.arange(num_labels))
    labeled = np.array([0])  # its coreset needs a labeled row: the first candidate stands for one
    return lambda: strategy.query(classifier, data, np.arange(1, len(rows)), labeled, labeled, n=bench.query_size)


def scikit_activeml_core_set(bench: "Bench") -> Callable[[], object]:
    """scikit-activeml's CoreSet on our penultimate features."""
    from skactiveml.pool import CoreSet

    def query() -> object:
        rows = bench.candidates().observe(features).numpy()
        return CoreSet(random_state=0).query(rows, np.full(len(rows), np.nan), batch_size=bench.query_size)

    return query


def scikit_activeml_badge(bench: "Bench") -> Callable[[], object]:
    """scikit-activeml's Badge on our probabilities and penultimate features."""
    from skactiveml.base import SkactivemlClassifier
    from skactiveml.pool import Badge

    class Given(SkactivemlClassifier):  # type: ignore[misc]
        """Has no weights: its inputs are probabilities and embeddings side by side."""

        def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: object = None) -> "Given":
            return self

        def predict_proba(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            count = len(self.classes)
            return X[:, :count], X[:, count:]

    def query() -> object:
        rows = bench.candidates().observe(probabilities_and_features)
        count = split_probabilities_and_features(rows)[0].shape[1]
        given, labels = Given(classes=list(range(count))), np.full(len(rows), np.nan)
        strategy = Badge(random_state=0)
        return strategy.query(rows[:, 1:].numpy(), labels, given, fit_clf=False, batch_size=bench.query_size)

    return query
