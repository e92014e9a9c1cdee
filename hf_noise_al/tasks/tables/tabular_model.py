"""A multilayer perceptron for rows of a table, as a model of transformers: saved, loaded and pushed like any other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.generic import ModelOutput

from ...pool.problem_type import MULTI_LABEL, REGRESSION
from ...refusals import Refusal
from .target_scale import TargetScale


class TabularMLPConfig(PretrainedConfig):  # type: ignore[misc, unused-ignore]
    """Configuration of a `TabularMLPModel`.

    Args:
        num_features: F, the width of the input.
        hidden_sizes: Widths of the hidden layers; those of the paper's model for house prices.
        hidden_act: Activation after each of them, by its name in transformers.
        dropout: Share of each hidden layer that is dropped in training.
        kwargs: Fields of every configuration: ``num_labels``, ``problem_type``, ``id2label`` ...

    Raises:
        ValueError: no hidden layer, a width below 1, an unknown activation, or a dropout outside [0, 1).
    """

    model_type = "tabular_mlp"

    def __init__(
        self,
        num_features: int = 1,
        hidden_sizes: Sequence[int] = (128, 64, 32),
        hidden_act: str = "relu",
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        sizes = [num_features, *hidden_sizes]
        if not hidden_sizes or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
            raise Refusal(
                f"`hidden_sizes` is {list(hidden_sizes)}, `num_features` is {num_features}. Give at least one hidden "
                "layer, and whole numbers from 1."
            )
        if hidden_act not in ACT2FN:
            raise Refusal(f"Unknown `hidden_act` {hidden_act}. Use one of transformers, such as relu, gelu or tanh.")
        if not 0 <= dropout < 1:
            raise Refusal(f"`dropout` is {dropout}. Set it to at least 0 and below 1.")
        self.num_features = num_features
        self.hidden_sizes = list(hidden_sizes)
        self.hidden_act = hidden_act
        self.dropout = dropout
        super().__init__(**kwargs)


@dataclass
class TabularOutput(ModelOutput):  # type: ignore[misc, unused-ignore]
    """What a `TabularMLPForPrediction` returns."""

    loss: Tensor | None = None
    """Mean over the batch, where labels were given."""
    logits: Tensor | None = None
    """(B, num_labels): class scores, or numbers in the units of the data."""


class TabularMLPPreTrainedModel(PreTrainedModel):
    """What the models share: their configuration and how their weights begin."""

    config_class = TabularMLPConfig
    base_model_prefix = "tabular_mlp"
    main_input_name = "features"

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=5**0.5)  # as PyTorch does: wider ones remember few rows by heart
            nn.init.zeros_(module.bias)
        elif isinstance(module, TargetScale):
            nn.init.zeros_(module.mean)
            nn.init.ones_(module.scale)

    @classmethod
    def from_config(cls, config: PretrainedConfig, **kwargs: Any) -> Any:
        """Return a model with new weights, as ``AutoModel....from_config`` does."""
        return cls._from_config(config, **kwargs)  # type: ignore[no-untyped-call, unused-ignore]


class TabularMLPModel(TabularMLPPreTrainedModel):
    """Linear layers with activations: features (B, F) to ``last_hidden_state`` (B, last width)."""

    def __init__(self, config: TabularMLPConfig) -> None:
        super().__init__(config)
        widths = [config.num_features, *config.hidden_sizes]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(widths))
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()  # type: ignore[no-untyped-call, unused-ignore]

    def forward(self, features: Tensor) -> BaseModelOutput:
        """Return the last hidden layer."""
        hidden = features.to(self.dtype)
        for layer in self.layers:
            hidden = self.dropout(self.activation(layer(hidden)))
        return BaseModelOutput(last_hidden_state=hidden)


class TabularMLPForPrediction(TabularMLPPreTrainedModel):
    """A `TabularMLPModel` with an output layer, for classes or numbers as ``config.problem_type`` says.

    For numbers the loss is the squared error on scaled targets. Who trains sets the scale, from the labels that are
    known: `hf_noise_al.tasks.tables.target_scale.ScaleTargets` does in each round.
    """

    def __init__(self, config: TabularMLPConfig) -> None:
        super().__init__(config)
        self.tabular_mlp = TabularMLPModel(config)
        num_labels = int(config.num_labels or 1)
        self.head = nn.Linear(config.hidden_sizes[-1], num_labels)
        if config.problem_type is None:
            config.problem_type = "regression" if num_labels == 1 else "single_label_classification"
        if config.problem_type == REGRESSION:
            self.target_scale = TargetScale(num_labels)
        self.post_init()  # type: ignore[no-untyped-call, unused-ignore]
        if config.problem_type == REGRESSION:  # here, as transformers 4 does not find buffers when it looks for it
            self._keep_in_fp32_modules_strict = {"target_scale"}  # a price of 200,000 is infinite in float16

    def forward(self, features: Tensor, labels: Tensor | None = None) -> TabularOutput:
        """Return logits of (B, F) features and, where there are labels, (B,) or (B, num_labels), the loss."""
        outputs = self.head(self.tabular_mlp(features).last_hidden_state)
        if self.config.problem_type == REGRESSION:
            targets = None if labels is None else self.target_scale.scaled(labels.reshape(outputs.shape))
            loss = None if targets is None else F.mse_loss(outputs.to(targets.dtype), targets)
            return TabularOutput(loss=loss, logits=self.target_scale(outputs))
        if labels is None:
            return TabularOutput(logits=outputs)
        if self.config.problem_type == MULTI_LABEL:
            return TabularOutput(
                loss=F.binary_cross_entropy_with_logits(outputs.float(), labels.float()), logits=outputs
            )
        return TabularOutput(loss=F.cross_entropy(outputs.float(), labels), logits=outputs)


AutoConfig.register(TabularMLPConfig.model_type, TabularMLPConfig)
AutoModel.register(TabularMLPConfig, TabularMLPModel)
