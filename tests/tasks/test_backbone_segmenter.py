"""A head on any backbone: trained weights are kept, and what is saved comes back bit for bit."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from segmentation_data import CONFIGS, NAMES, make_folder
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
    SegformerConfig,
)

from hf_noise_al.loading.models import model_factory
from hf_noise_al.settings.arguments import ModelArguments
from hf_noise_al.tasks.masks.backbone_segmenter import (
    AutoSegmenter,
    BackboneSegmenter,
    BackboneSegmenterConfig,
    with_head,
)
from hf_noise_al.tasks.masks.mask_targets import MaskTargets

HEAD = MaskTargets(class_names=NAMES, values=(0, 1, 2)).head()
WITHOUT_HEAD = ("resnet", "convnext", "vit", "mobilenet_v1")


def images(size: tuple[int, int] = (24, 16)) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model_type", WITHOUT_HEAD)
def test_a_backbone_gets_a_head_and_is_saved_and_loaded_bit_for_bit(model_type: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(model_type, **CONFIGS[model_type], **HEAD)
    model = AutoSegmenter.from_config(config).eval()
    assert isinstance(model, BackboneSegmenter)
    with torch.no_grad():
        model.save_pretrained(tmp_path)
        logits = copy.deepcopy(model)(images()).logits  # convolutions round by where weights lie in memory
        loaded, report = AutoModelForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
        assert logits.shape[:2] == (2, 3) and logits.std() > 0
        assert torch.equal(copy.deepcopy(loaded.eval())(images()).logits, logits)
    assert not any(report.values())
    assert loaded.config.id2label == dict(enumerate(NAMES)) and loaded.config.num_channels == 3
    assert AutoConfig.from_pretrained(tmp_path).map_channels == config_of(loaded).map_channels


def config_of(model: Any) -> BackboneSegmenterConfig:
    assert isinstance(model.config, BackboneSegmenterConfig)
    return model.config


@pytest.mark.parametrize("model_type", WITHOUT_HEAD)
def test_weights_of_a_pretrained_backbone_are_kept_and_new_ones_named(model_type: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path, model_type)
    arguments = ModelArguments(model_name_or_path=str(folder))
    torch.manual_seed(0)
    make = model_factory(arguments, AutoSegmenter, HEAD)
    first, second = make(), make()
    source = list(AutoModelForImageClassification.from_pretrained(folder).state_dict().values())
    new = {name for name in first.state_dict() if "norms_stages" in name or "hidden_states_norms" in name}
    for name, value in first.state_dict().items():
        if name.startswith("backbone.") and name not in new and "pooler" not in name:
            assert any(value.shape == known.shape and torch.equal(value, known) for known in source), name
    assert not torch.equal(first.state_dict()["head.classifier.weight"], second.state_dict()["head.classifier.weight"])
    with pytest.raises(ValueError, match="has no trained weights for this task: .*head.classifier.weight"):
        model_factory(arguments, AutoSegmenter, HEAD, trained_head=True)()


def test_the_last_four_stages_are_looked_at() -> None:
    config = AutoConfig.for_model("resnet", embedding_size=4, hidden_sizes=[4, 6, 8, 10], depths=[1] * 4)
    assert with_head(config).map_channels == [4, 6, 8, 10]
    assert with_head(config).backbone_config.out_features == ["stage1", "stage2", "stage3", "stage4"]
    assert config.out_features == ["stage4"], "the configuration that was given stays as it is"


def test_a_model_for_segmentation_stays_what_it_is_and_a_text_model_is_refused() -> None:
    config = SegformerConfig()
    assert with_head(config) is config
    with pytest.raises(ValueError, match="A bert model does not look at images. Use a model for semantic segmentation"):
        with_head(AutoConfig.for_model("bert"))


def test_its_own_loss_does_not_count_ignored_pixels() -> None:
    model = AutoSegmenter.from_config(AutoConfig.for_model("resnet", **CONFIGS["resnet"], **HEAD)).eval()
    labels = torch.randint(0, 3, (2, 24, 16), generator=torch.Generator().manual_seed(1))
    labels[:, :5] = 255
    with torch.no_grad():
        found = model(images(), labels=labels)
    upsampled = F.interpolate(found.logits, size=(24, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found.loss, F.cross_entropy(upsampled, labels, ignore_index=255))
