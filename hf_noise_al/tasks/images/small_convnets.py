"""Plain convolutional networks for small images: VGG-16, and a LeNet-like network for handwritten digits.

Both are stages of convolutions that end in 2 x 2 max pooling, then dense layers, then the output head; transformers
has neither. They are made by ``model_config`` with ``model_type: small_vgg`` or ``model_type: small_cnn``, saved,
loaded and pushed as any other model. ``AutoModelForImageClassification.from_pretrained`` knows them, and the network of
`small_resnet`, after ``import hf_noise_al.tasks``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

from ...refusals import Refusal


class SmallVggConfig(PretrainedConfig):
    """VGG-16 as is usual for images of 32 x 32 pixels: batch norm behind every convolution, dense layers of 512.

    Thirteen convolutions and three dense layers, configuration D of Very Deep Convolutional Networks for Large-Scale
    Image Recognition (arXiv 1409.1556), whose dense layers of 4,096 belong to images of 224 x 224.

    Args:
        num_channels: Of the images.
        image_size: Height and width of the images.
        hidden_sizes: Channels of each stage.
        depths: Convolutions of each stage.
        kernel_size: Of the convolutions.
        padding: Zeros around what a convolution sees.
        batch_norm: Whether a batch norm follows each convolution.
        dense_sizes: Widths of the dense layers before the output head.
        dropout: Share of each dense layer's outputs that is dropped in training.
    """

    model_type = "small_vgg"

    def __init__(
        self,
        num_channels: int = 3,
        image_size: int = 32,
        hidden_sizes: Sequence[int] = (64, 128, 256, 512, 512),
        depths: Sequence[int] = (2, 2, 3, 3, 3),
        kernel_size: int = 3,
        padding: int = 1,
        batch_norm: bool = True,
        dense_sizes: Sequence[int] = (512, 512),
        dropout: float = 0.5,
        **kwargs: Any,
    ) -> None:
        self.num_channels, self.image_size = num_channels, image_size
        self.hidden_sizes, self.depths = list(hidden_sizes), list(depths)
        self.kernel_size, self.padding, self.batch_norm = kernel_size, padding, batch_norm
        self.dense_sizes, self.dropout = list(dense_sizes), dropout
        if not self.hidden_sizes or len(self.hidden_sizes) != len(self.depths):
            raise Refusal(
                f"`hidden_sizes` {self.hidden_sizes} and `depths` {self.depths} must have one number for each stage."
            )
        if self.map_size() < 1:
            raise Refusal(
                f"Images of {image_size} x {image_size} pixels are too small for {len(self.depths)} stages: nothing "
                "is left of them. Raise `image_size`, or take fewer stages."
            )
        super().__init__(**kwargs)

    def map_size(self) -> int:
        """Return the height and width of what the last stage leaves."""
        size = self.image_size
        for depth in self.depths:
            size = (size + depth * (2 * self.padding + 1 - self.kernel_size)) // 2
        return size


class SmallCnnConfig(SmallVggConfig):
    """Two convolutions and a dense layer for handwritten digits, 28 x 28 pixels of gray, after LeNet-5.

    5 x 5 convolutions to 32 and 64 channels, without padding, each with ReLU and 2 x 2 max pooling; a dense layer of
    128 with dropout. The fields are those of `SmallVggConfig`.
    """

    model_type = "small_cnn"

    def __init__(
        self,
        num_channels: int = 1,
        image_size: int = 28,
        hidden_sizes: Sequence[int] = (32, 64),
        depths: Sequence[int] = (1, 1),
        kernel_size: int = 5,
        padding: int = 0,
        batch_norm: bool = False,
        dense_sizes: Sequence[int] = (128,),
        dropout: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_channels=num_channels,
            image_size=image_size,
            hidden_sizes=hidden_sizes,
            depths=depths,
            kernel_size=kernel_size,
            padding=padding,
            batch_norm=batch_norm,
            dense_sizes=dense_sizes,
            dropout=dropout,
            **kwargs,
        )


class ConvolutionalBody(nn.Module):
    """Everything but the output head: (B, C, H, W) -> (B, width of the last dense layer)."""

    def __init__(self, config: SmallVggConfig) -> None:
        super().__init__()
        self.image_shape = (config.num_channels, config.image_size, config.image_size)
        layers: list[nn.Module] = []
        channels = config.num_channels
        for size, depth in zip(config.hidden_sizes, config.depths, strict=True):
            for _ in range(depth):
                layers.append(nn.Conv2d(channels, size, config.kernel_size, padding=config.padding))
                layers += [nn.BatchNorm2d(size)] if config.batch_norm else []
                layers.append(nn.ReLU())
                channels = size
            layers.append(nn.MaxPool2d(2))
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        widths = [channels * config.map_size() ** 2, *config.dense_sizes]
        blocks = [[nn.Linear(*pair), nn.ReLU(), nn.Dropout(config.dropout)] for pair in pairwise(widths)]
        self.dense = nn.Sequential(*(layer for block in blocks for layer in block))
        self.width = widths[-1]

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the features that the output head sees."""
        if pixel_values.shape[1:] != self.image_shape:
            raise Refusal(
                f"The model is made for images (channels, height, width) of {self.image_shape}, found "
                f"{tuple(pixel_values.shape[1:])}. Set `image_size` and `num_channels` in `model_config` to that."
            )
        features: Tensor = self.dense(self.convolutions(pixel_values))
        return features


class _ConvNetForImageClassification(PreTrainedModel):
    """A body and its output head."""

    base_model_prefix = "body"
    main_input_name = "pixel_values"

    def __init__(self, config: SmallVggConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels or 2
        self.body = ConvolutionalBody(config)
        self.classifier = nn.Linear(self.body.width, self.num_labels)
        self.post_init()  # type: ignore[no-untyped-call, unused-ignore]

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutputWithNoAttention:
        """Return logits (B, classes), and the loss where there are `labels`: (B,), or (B, classes) for multi-label."""
        logits = self.classifier(self.body(pixel_values))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Start convolutions as He et al. (arXiv 1502.01852) do, dense layers as torch does."""
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            bound = 1 / math.sqrt(module.in_features)
            nn.init.uniform_(module.bias, -bound, bound)


class SmallVggForImageClassification(_ConvNetForImageClassification):
    """VGG-16 for small images."""

    config_class = SmallVggConfig


class SmallCnnForImageClassification(_ConvNetForImageClassification):
    """The LeNet-like network for handwritten digits."""

    config_class = SmallCnnConfig


# A recipe and `from_pretrained` know a model by its type, so the types must be known once this is imported.
for _model in (SmallVggForImageClassification, SmallCnnForImageClassification):
    AutoConfig.register(_model.config_class.model_type, _model.config_class)
    AutoModelForImageClassification.register(_model.config_class, _model)
