"""The networks for small images: their form, saved and loaded bit for bit, seen alike by both estimators."""

from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_images import SMALL, TASK, make_small
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel

from hf_noise_al.acquisition import Candidates, NoiseStability
from hf_noise_al.loading.models import load_model_config, model_factory
from hf_noise_al.noise.gradient_sketch.followed import unsupported_tensors
from hf_noise_al.observables.base import Observable, features, probabilities
from hf_noise_al.selection.checks import row_norms
from hf_noise_al.settings.arguments import ModelArguments
from hf_noise_al.testing import generator

each_network = pytest.mark.parametrize("model_type", list(SMALL))
CHANNELS = 2


def pictures(rows: int = 6) -> Tensor:
    return torch.randn(rows, CHANNELS, 8, 8, generator=generator(3))


# ---- form ----------------------------------------------------------------------------------------------------------


def made_by_name(model_type: str) -> PreTrainedModel:
    """Return the network that a recipe gets by naming its type alone, without memory for weights."""
    config = load_model_config(ModelArguments(model_config={"model_type": model_type}), {"num_labels": 10})
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForImageClassification.from_config(config)
    return model


@pytest.mark.parametrize(
    ("model_type", "convolutions", "dense", "parameters"),
    [
        # 20 convolutions: the stem, 16 in blocks, 3 shortcuts
        ("small_resnet", 20, 1, 11_173_962),
        ("small_vgg", 13, 3, 15_253_578),
        ("small_cnn", 2, 2, 184_586),
    ],
)
def test_the_defaults_are_the_networks_of_the_papers(
    model_type: str, convolutions: int, dense: int, parameters: int
) -> None:
    model = made_by_name(model_type)
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == convolutions
    assert sum(isinstance(module, nn.Linear) for module in model.modules()) == dense
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_resnet_sees_small_images_at_their_full_size() -> None:
    model = made_by_name("small_resnet")
    images = torch.empty(1, 3, 32, 32, device="meta")
    assert model.resnet.embedder(images).shape == (1, 64, 32, 32)
    assert model.resnet(images).last_hidden_state.shape == (1, 512, 4, 4)


@each_network
def test_the_head_is_outside_the_base_model_and_features_are_its_input(model_type: str) -> None:
    model, images = make_small(model_type, channels=CHANNELS), pictures()
    assert model.base_model is not model
    rows = features(model, {"pixel_values": images})
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    torch.testing.assert_close(head(rows), model(pixel_values=images).logits)
    torch.testing.assert_close(probabilities(model, {"pixel_values": images}).sum(dim=1), torch.ones(6))


@each_network
@pytest.mark.parametrize("multi", [False, True])
def test_the_loss_is_that_of_the_problem(model_type: str, multi: bool) -> None:
    kind = "multi_label_classification" if multi else "single_label_classification"
    model, images = make_small(model_type, channels=CHANNELS, problem_type=kind), pictures(3)
    labels = torch.tensor([0, 2, 1])
    targets = nn.functional.one_hot(labels, 3).float() if multi else labels
    output = model(pixel_values=images, labels=targets)
    loss = nn.functional.binary_cross_entropy_with_logits if multi else nn.functional.cross_entropy
    torch.testing.assert_close(output.loss, loss(output.logits, targets))
    assert model(pixel_values=images).loss is None


# ---- files ---------------------------------------------------------------------------------------------------------


@each_network
def test_a_saved_network_is_loaded_by_its_type_with_the_same_outputs_bit_for_bit(
    model_type: str, tmp_path: Path
) -> None:
    model, images = make_small(model_type, channels=CHANNELS), pictures()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(model) and AutoConfig.from_pretrained(tmp_path).model_type == model_type
    assert torch.equal(loaded(images).logits, model(images).logits)


@each_network
def test_a_new_head_leaves_the_trained_body(model_type: str, tmp_path: Path) -> None:
    model = make_small(model_type, channels=CHANNELS)
    model.save_pretrained(tmp_path)
    arguments = ModelArguments(model_name_or_path=str(tmp_path))
    other = model_factory(arguments, TASK.auto_model, {"num_labels": 5})()
    assert other(pictures()).logits.shape == (6, 5)
    for name, value in model.base_model.state_dict().items():
        assert torch.equal(other.base_model.state_dict()[name], value), name


@pytest.mark.parametrize("model_type", ["small_vgg", "small_cnn"])
def test_images_of_another_size_are_refused_with_both_sizes(model_type: str) -> None:
    model = make_small(model_type)
    with pytest.raises(ValueError, match=r"of \(1, 8, 8\), found \(3, 9, 9\). Set `image_size` and `num_channels`"):
        model(torch.zeros(1, 3, 9, 9))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depths": [1]}, r"`depths` \[1\] must have one number for each stage"),
        ({"image_size": 16}, "Images of 16 x 16 pixels are too small for 5 stages.*Raise `image_size`"),
        ({"hidden_size": [4]}, "has `hidden_size`, which a small_vgg configuration does not have.*`hidden_sizes`"),
    ],
)
def test_configurations_that_make_no_network_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_model_config(ModelArguments(model_config={"model_type": "small_vgg", **fields}), {})


# ---- noise stability -----------------------------------------------------------------------------------------------


def candidates_of(model: nn.Module, images: Tensor, observable: Observable) -> Candidates:
    def observe(looked_at: Observable, description: str = "observe") -> Tensor:
        with torch.no_grad():
            return looked_at(model, {"pixel_values": images})

    return Candidates(model, len(images), observe, observable)


@each_network
@pytest.mark.parametrize("observable", [probabilities, features])
def test_both_estimators_agree_pick_distinct_images_and_leave_the_weights(
    model_type: str, observable: Observable
) -> None:
    model = make_small(model_type, channels=CHANNELS).double()
    assert unsupported_tensors(model) == []
    before = {name: value.clone() for name, value in model.state_dict().items()}
    candidates = candidates_of(model, pictures(24).double(), observable)
    method = partial(NoiseStability, num_perturbations=100, num_projections=1024)
    lengths, distances = [], []
    for estimator in ("finite_difference", "gradient_sketch"):
        acquisition = method(estimator=estimator)
        assert acquisition.select(candidates, 6, generator()).indices.unique().numel() == 6
        rows = acquisition.deviations(candidates, generator()).double()
        lengths.append(row_norms(rows))
        distances.append(torch.pdist(rows))
    assert torch.corrcoef(torch.stack(lengths))[0, 1] > 0.9
    assert torch.corrcoef(torch.stack(distances))[0, 1] > 0.8
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
