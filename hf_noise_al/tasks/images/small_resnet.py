"""ResNet for small images: a 3 x 3 stem that keeps their size, where the usual one leaves a sixteenth of the pixels.

The stages are those of transformers' ResNet, whose configuration cannot express this stem. The defaults are ResNet-18
as in section 4.2 of Deep Residual Learning for Image Recognition (arXiv 1512.03385) with the stages of its ResNet-18.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, ResNetConfig, ResNetForImageClassification
from transformers.models.resnet.modeling_resnet import ResNetConvLayer


class SmallResNetConfig(ResNetConfig):
    """`transformers.ResNetConfig` with the sizes of ResNet-18."""

    model_type = "small_resnet"

    def __init__(
        self,
        embedding_size: int = 64,
        hidden_sizes: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 2, 2),
        layer_type: str = "basic",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            embedding_size=embedding_size,
            hidden_sizes=list(hidden_sizes),
            depths=list(depths),
            layer_type=layer_type,
            **kwargs,
        )


class SmallResNetForImageClassification(ResNetForImageClassification):
    """`transformers.ResNetForImageClassification` whose first convolution is 3 x 3, without stride and pooling."""

    config_class = SmallResNetConfig

    def __init__(self, config: SmallResNetConfig) -> None:
        super().__init__(config)
        stem = self.resnet.embedder
        stem.embedder = ResNetConvLayer(
            config.num_channels, config.embedding_size, kernel_size=3, activation=config.hidden_act
        )
        stem.pooler = nn.Identity()  # type: ignore[assignment, unused-ignore]
        self.post_init()  # type: ignore[no-untyped-call, unused-ignore]


# A recipe and `from_pretrained` know a model by its type, so the type must be known once this is imported.
AutoConfig.register(SmallResNetConfig.model_type, SmallResNetConfig)
AutoModelForImageClassification.register(SmallResNetConfig, SmallResNetForImageClassification)
