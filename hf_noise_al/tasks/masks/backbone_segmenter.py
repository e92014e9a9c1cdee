"""A small fully convolutional head on a vision backbone, for models that have no head for semantic segmentation."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    MODEL_FOR_BACKBONE_MAPPING,
    MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForSemanticSegmentation,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SemanticSegmenterOutput

from ...refusals import Refusal

STAGES = 4
"""How many of a backbone's last stages the head looks at."""


class BackboneSegmenterConfig(PretrainedConfig):  # type: ignore[misc, unused-ignore]
    """Configuration of a `BackboneSegmenter`.

    Args:
        backbone_config: Configuration of the backbone, or its fields with ``model_type``; None is a ResNet.
        map_channels: Channels of each feature map of the backbone; None finds out.
        head_channels: Width of the head.
        initializer_range: Standard deviation of the head's initial weights.
        semantic_loss_ignore_index: Label of pixels that do not count in the model's own loss.
        kwargs: Fields of every configuration, such as ``num_labels`` and ``id2label``.
    """

    model_type = "backbone_segmenter"

    def __init__(
        self,
        backbone_config: PretrainedConfig | dict[str, Any] | None = None,
        map_channels: Sequence[int] | None = None,
        head_channels: int = 128,
        initializer_range: float = 0.02,
        semantic_loss_ignore_index: int = 255,
        **kwargs: Any,
    ) -> None:
        if not isinstance(backbone_config, PretrainedConfig):
            fields = dict(backbone_config or {})
            backbone_config = AutoConfig.for_model(fields.pop("model_type", "resnet"), **fields)
        self.backbone_config = backbone_config
        self.map_channels = list(map_channels if map_channels is not None else _channels_of_maps(backbone_config))
        self.head_channels = head_channels
        self.initializer_range = initializer_range
        self.semantic_loss_ignore_index = semantic_loss_ignore_index
        super().__init__(**kwargs)

    @property
    def num_channels(self) -> int:
        """Return the channels of the images."""
        return int(getattr(self.backbone_config, "num_channels", 3))


class FullyConvolutionalHead(nn.Module):
    """Bring the maps of all stages to one width and the size of the largest, add them up, classify each place."""

    def __init__(self, map_channels: Sequence[int], width: int, num_labels: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in map_channels)
        self.mix = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(math.gcd(width, 8), width)
        self.classifier = nn.Conv2d(width, num_labels, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Classify: maps (B, C_i, H_i, W_i) -> logits (B, num_labels, H, W) of the largest H and W."""
        size = max((tuple(each.shape[2:]) for each in maps), key=math.prod)
        total = torch.zeros((), device=maps[0].device, dtype=maps[0].dtype)
        for project, each in zip(self.projections, maps, strict=True):
            total = total + F.interpolate(project(each), size=size, mode="bilinear", align_corners=False)
        logits: Tensor = self.classifier(self.norm(self.mix(total)).relu())
        return logits


class BackboneSegmenter(PreTrainedModel):  # type: ignore[misc, unused-ignore]
    """Any vision backbone with a fully convolutional head (after Long et al., CVPR 2015, arXiv 1411.4038)."""

    config_class = BackboneSegmenterConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"

    def __init__(self, config: BackboneSegmenterConfig) -> None:
        super().__init__(config)
        self.backbone = _make_backbone(config.backbone_config)
        self.head = FullyConvolutionalHead(config.map_channels, config.head_channels, int(config.num_labels or 0))
        self.post_init()  # type: ignore[no-untyped-call, unused-ignore]

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> SemanticSegmenterOutput:
        """Return logits (B, num_labels, h, w) of the largest feature map's size, and a loss where there are labels.

        Args:
            pixel_values: (B, C, H, W).
            labels: Class of each pixel, (B, H', W'); ``config.semantic_loss_ignore_index`` where it does not count.
        """
        logits = self.head(feature_maps(self.backbone, pixel_values))
        loss = None
        if labels is not None:
            upsampled = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
            loss = F.cross_entropy(upsampled, labels, ignore_index=self.config.semantic_loss_ignore_index)
        return SemanticSegmenterOutput(loss=loss, logits=logits)


class AutoSegmenter:
    """Make a model for semantic segmentation of any configuration: its own, or a `BackboneSegmenter` around it."""

    @staticmethod
    def from_config(config: Any, **options: Any) -> PreTrainedModel:
        """Return a model with random weights."""
        made: PreTrainedModel = AutoModelForSemanticSegmentation.from_config(with_head(config), **options)
        return made

    @staticmethod
    def from_pretrained(source: str, config: Any, **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
        """Return a model with the weights in `source`, and which of its weights are new; options as in transformers.

        Raises:
            ValueError: it is neither a model for semantic segmentation nor a vision backbone.
        """
        whole = with_head(config)
        if whole is config:
            loaded: tuple[PreTrainedModel, dict[str, Any]] = AutoModelForSemanticSegmentation.from_pretrained(
                source, config=config, **options
            )
            return loaded
        made = BackboneSegmenter(whole)
        # AutoBackbone would ask the Hub for a folder of this machine
        cls: Any = MODEL_FOR_BACKBONE_MAPPING[type(config)] if _is_backbone(config) else AutoModel
        if _is_backbone(config):
            options.pop("trust_remote_code", None)
        made.backbone, report = cls.from_pretrained(source, config=whole.backbone_config, **options)
        new = [f"backbone.{name}" for name in report["missing_keys"]]
        new += [f"head.{name}" for name in made.head.state_dict()]
        mismatched = [f"backbone.{key if isinstance(key, str) else key[0]}" for key in report["mismatched_keys"]]
        return made, {"missing_keys": new, "mismatched_keys": mismatched}


def with_head(config: Any) -> Any:
    """Return `config` where it is that of a model for semantic segmentation, else that of one around it.

    Raises:
        ValueError: it is no vision model.
    """
    remote = getattr(config, "auto_map", None) or {}
    if type(config) in MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING or "AutoModelForSemanticSegmentation" in remote:
        return config
    backbone = copy.deepcopy(config)
    backbone.num_labels = 2  # the default: the classes are those of the whole
    if _is_backbone(config):
        backbone.out_features = list(config.stage_names[1:][-STAGES:] or config.stage_names)
    classes = {"id2label": config.id2label, "label2id": config.label2id}
    return BackboneSegmenterConfig(backbone, **classes)


def feature_maps(backbone: nn.Module, pixel_values: Tensor) -> list[Tensor]:
    """Return the maps of a backbone, or the last one of a plain vision model, tokens put back into place: (B, C, h, w).

    Raises:
        ValueError: the model's outputs are no maps.
    """
    resizes = "interpolate_pos_encoding" in inspect.signature(backbone.forward).parameters
    outputs = backbone(pixel_values, **({"interpolate_pos_encoding": True} if resizes else {}))
    maps = getattr(outputs, "feature_maps", None)
    if maps is not None:
        return list(maps)
    last: Tensor = outputs[0]
    if last.ndim == 4:
        return [last]
    patch = getattr(backbone.config, "patch_size", None)
    if last.ndim == 3 and isinstance(patch, int):
        height, width = (side // patch for side in pixel_values.shape[2:])
        if height * width <= last.shape[1]:  # class tokens and registers come first
            return [last[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))]
    raise Refusal(
        f"{type(backbone).__name__} gives outputs of shape {tuple(last.shape)} for images, no map of features. "
        "Use a model with a head for semantic segmentation, or one that `AutoBackbone` knows."
    )


def _is_backbone(config: Any) -> bool:
    return type(config) in MODEL_FOR_BACKBONE_MAPPING


def _make_backbone(config: Any) -> nn.Module:
    auto: Any = AutoBackbone if _is_backbone(config) else AutoModel
    made: nn.Module = auto.from_config(config)
    return made


def _channels_of_maps(config: Any) -> list[int]:
    """Return how many channels the maps of a backbone have, found without weights."""
    if not hasattr(config, "num_channels"):
        raise Refusal(
            f"A {config.model_type} model does not look at images. Use a model for semantic segmentation or a vision "
            "backbone, such as ResNet."
        )
    image_size = getattr(config, "image_size", None)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size or (224, 224)
    with torch.device("meta"):
        backbone = _make_backbone(config).eval()
        maps = feature_maps(backbone, torch.zeros(1, config.num_channels, height, width))
    return [each.shape[1] for each in maps]


AutoConfig.register(BackboneSegmenterConfig.model_type, BackboneSegmenterConfig)
AutoModelForSemanticSegmentation.register(BackboneSegmenterConfig, BackboneSegmenter)
