"""Image classification: files of every kind are read, bad ones refused with their row, unseen models run unchanged."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from datasets import Dataset, DatasetDict, Features, Image, Value
from tiny_images import TASK, make_images, prepare_images
from tiny_run import read_state
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    DPTConfig,
    DPTForDepthEstimation,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    PreTrainedModel,
    Swinv2Config,
    Swinv2ForImageClassification,
    set_seed,
)

from hf_noise_al.commands.main import main
from hf_noise_al.experiments.learning_curve import LearningCurve
from hf_noise_al.loading.processors import load_image_processor
from hf_noise_al.settings.arguments import DataArguments, ModelArguments

STORED = Features({"image": Image(), "label": Value("int64")})


def run_recipe(verb: str, folder: Path, **settings: Any) -> int:
    """Start the command with a recipe for the data in ``FOLDER/data``; return its exit status."""
    recipe = {"task": "image_classification", "dataset_name": str(folder / "data"), "use_cpu": True, **settings}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    return main([verb, str(folder / "recipe.yaml")])


def png(mode: str = "L", size: int = 8, value: int = 128) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("L", (size, size), value).convert(mode).save(file, format="PNG")
    return file.getvalue()


def stored(*files: Any) -> Dataset:
    """Return rows whose images are files: bytes, or a path."""
    images = [{"bytes": f, "path": None} if isinstance(f, bytes) else {"bytes": None, "path": str(f)} for f in files]
    return Dataset.from_dict({"image": images, "label": [n % 2 for n in range(len(files))]}, features=STORED)


# ---- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_gray_color_palette_and_transparent_images_go_together(channels: int) -> None:
    rows = stored(*(png(mode) for mode in ("RGB", "L", "RGBA", "P", "1", "I;16", "LA")))
    pixels = prepare_images(rows, rows, channels=channels).pool["pixel_values"][:]
    assert pixels.shape == (7, channels, 8, 8)
    for row in (0, 1, 2, 3, 6):
        np.testing.assert_allclose(pixels[row], 128 / 255, atol=1e-6)
    assert set(np.unique(pixels[4])) <= {0.0, 1.0}


def test_sixteen_bits_of_gray_keep_their_shades() -> None:
    file = io.BytesIO()
    PIL.Image.fromarray(np.full((8, 8), 0x4000, dtype=np.uint16)).save(file, format="PNG")
    rows = stored(file.getvalue(), png())
    np.testing.assert_allclose(prepare_images(rows, rows).pool["pixel_values"][0], 64 / 255, atol=1e-6)


@pytest.mark.parametrize("first", [False, True], ids=["later", "first"])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"no image at all", "cannot identify image file"),
        (png()[:-30], "cannot read the image"),
        (b"", "cannot identify image file"),
        (Path("nowhere/cat.png"), "No such file or directory: 'nowhere/cat.png'"),
    ],
)
def test_an_image_that_cannot_be_read_is_refused_with_its_row(bad: Any, reason: str, first: bool) -> None:
    good, files = stored(png(), png()), [png(), png(), png()]
    files[0 if first else 2] = bad
    where = f"Column `image`, row {0 if first else 2}: cannot read the image "
    with pytest.raises(ValueError, match=f"^In the pool: {where}") as caught:
        prepare_images(stored(*files), good)
    assert reason in str(caught.value) and "Remove the row" in str(caught.value)
    with pytest.raises(ValueError, match=f"^In the evaluation set: {where}"):
        prepare_images(good, stored(*files))


@pytest.mark.parametrize(("nothing", "shape"), [([], r"\(0,\)"), ([[], []], r"\(2, 0\)")])
def test_an_array_without_pixels_is_refused_with_its_row(nothing: list[Any], shape: str) -> None:
    array = np.full((8, 8), 100).tolist()
    good, bad = (Dataset.from_dict({"image": [array, image], "label": [0, 1]}) for image in (array, nothing))
    message = f"Column `image`, row 1 is no image: an array of shape {shape}"
    with pytest.raises(ValueError, match=f"^In the pool: {message}"):
        prepare_images(bad, good)
    with pytest.raises(ValueError, match=f"^In the evaluation set: {message}"):
        prepare_images(good, bad)
    processor = load_image_processor(ModelArguments(model_config={"model_type": "small_cnn"}), 8)
    with pytest.raises(ValueError, match=f"^In the pool: {message}"):
        TASK.prepare_query(bad, processor, DataArguments(dataset_name="x"), ConvNextConfig(num_labels=2))


def test_the_command_refuses_it_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DatasetDict({"train": stored(png(), png(), b"broken"), "validation": stored(png())}).save_to_disk(tmp_path / "data")
    small = {"model_type": "small_cnn", "image_size": 16}
    assert run_recipe("run", tmp_path, model_config=small, image_size=16, output_dir=str(tmp_path / "run")) != 0
    assert "In the pool: Column `image`, row 2: cannot read the image" in capsys.readouterr().err
    assert not (tmp_path / "run" / "active_state.json").exists()


def test_a_processor_that_leaves_images_unequal_is_refused_with_the_row() -> None:
    rows = stored(png(size=8), png(size=8), png(size=9))
    processor = load_image_processor(ModelArguments(model_config={"model_type": "small_cnn"}), 8)
    processor.do_resize = False
    message = r"row 2: the image processor makes an array of \(1, 9, 9\) of it, and one of \(1, 8, 8\) of row 0. Use a"
    with pytest.raises(ValueError, match=message):
        TASK.prepare(rows, rows, processor, DataArguments(dataset_name="x"))


def test_a_row_is_prepared_alike_whatever_its_label_and_the_rows_beside_it() -> None:
    rows = make_images(9, size=13, mode="RGB")
    whole = prepare_images(rows, rows).pool["pixel_values"][:]
    relabeled = rows.remove_columns("label").add_column("label", [None] * 8 + [1])
    ready = prepare_images(relabeled.select([4, 8]), rows.select([0, 1]), class_names=["0", "1"])
    alone = ready.pool["pixel_values"][:]
    np.testing.assert_array_equal(alone, whole[[4, 8]])


def test_pillow_prepares_images_also_where_torchvision_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels resized by another library differ a little, and with them every pick."""
    made = ModelArguments(model_config={"model_type": "small_cnn"})
    load_image_processor(made, 8).save_pretrained(tmp_path)
    asked: dict[str, Any] = {}
    original = AutoImageProcessor.from_pretrained

    def watched(source: str, **options: Any) -> Any:
        asked.update(options)
        return original(source, **options)

    monkeypatch.setattr(AutoImageProcessor, "from_pretrained", watched)
    found = load_image_processor(ModelArguments(model_config=made.model_config, processor_name_or_path=str(tmp_path)))
    pillow = {"backend": "pil"} if int(transformers.__version__.split(".")[0]) >= 5 else {"use_fast": False}
    assert pillow.items() <= asked.items()
    assert not type(found).__name__.endswith("Fast")
    assert type(found) is type(load_image_processor(made, 8))


# ---- models that the code has never seen ---------------------------------------------------------------------------


def mobilenet() -> PreTrainedModel:
    config = MobileNetV2Config(
        depth_multiplier=0.1, min_depth=4, depth_divisible_by=4, first_layer_is_expansion=True, finegrained_output=False
    )
    return MobileNetV2ForImageClassification(config)


def convnext() -> PreTrainedModel:
    return ConvNextForImageClassification(ConvNextConfig(hidden_sizes=[4, 6], depths=[1, 1], num_stages=2))


def swin() -> PreTrainedModel:
    config = Swinv2Config(image_size=32, embed_dim=4, depths=[1, 1], num_heads=[1, 1], window_size=4)
    return Swinv2ForImageClassification(config)


def processor_of(name: str) -> Any:
    """Return the image processor of a family, for images of 32 x 32."""
    family = {"mobilenet": "MobileNetV2", "convnext": "ConvNext", "swin": "ViT"}[name]
    made = getattr(transformers, f"{family}ImageProcessorPil", None) or getattr(transformers, f"{family}ImageProcessor")
    square = {"height": 32, "width": 32}
    sizes = {
        "mobilenet": {"size": {"shortest_edge": 36}, "crop_size": square},
        "convnext": {"size": {"shortest_edge": 32}, "crop_pct": 0.875},
        "swin": {"size": square},
    }
    return made(**sizes[name])


@pytest.mark.parametrize("make", [mobilenet, convnext, swin], ids=["mobilenet", "convnext", "swin"])
def test_a_pretrained_vision_model_from_a_folder_runs_unchanged(make: Any, tmp_path: Path) -> None:
    set_seed(0)
    make().save_pretrained(tmp_path / "model")
    processor_of(make.__name__).save_pretrained(tmp_path / "model")
    images = {"train": make_images(24, size=20, mode="RGB", classes=3), "test": make_images(6, size=20, classes=3)}
    DatasetDict(images).save_to_disk(tmp_path / "data")
    few = {"acquisition_kwargs": {"num_perturbations": 2, "num_projections": 8}, "report_to": "none"}
    fast = {"max_steps": 2, "save_strategy": "no", "eval_split": ["test"], "augmentation": ["flip", "crop"]}
    sizes = {"num_rounds": 2, "initial_size": 8, "query_size": 4, "candidate_size": 8}
    run, asked = tmp_path / "run", tmp_path / "asked"
    named = {"model_name_or_path": str(tmp_path / "model"), "output_dir": str(run)}
    assert run_recipe("run", tmp_path, **named, **few, **fast, **sizes) == 0

    assert LearningCurve.load(run).num_labeled == (8, 12)
    trained = AutoModelForImageClassification.from_pretrained(run).eval()
    assert trained.config.num_labels == 3
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    again = AutoModelForImageClassification.from_pretrained(run).eval()
    assert torch.equal(trained(pixels).logits, again(pixels).logits)
    named = {"model_name_or_path": str(run), "output_dir": str(asked)}
    assert run_recipe("query", tmp_path, **named, **few, query_size=3) == 0
    chosen = [json.loads(line)["row"] for line in (asked / "queries" / "round-00.jsonl").read_text().splitlines()]
    known = {note["row"] for note in read_state(run)["annotations"]}
    assert len(set(chosen)) == 3 and not known & set(chosen)


def test_a_model_that_classifies_no_images_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = DPTConfig(
        hidden_size=8,
        num_hidden_layers=4,
        num_attention_heads=1,
        intermediate_size=8,
        image_size=32,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[4, 4, 4, 4],
        fusion_hidden_size=4,
    )
    DPTForDepthEstimation(config).save_pretrained(tmp_path / "model")
    DatasetDict({"train": make_images(8), "validation": make_images(4)}).save_to_disk(tmp_path / "data")
    named = {"model_name_or_path": str(tmp_path / "model"), "output_dir": str(tmp_path / "run")}
    assert run_recipe("run", tmp_path, image_size=32, **named) != 0
    said = capsys.readouterr().err
    assert "DPTConfig" in said and "AutoModelForImageClassification" in said
    assert not (tmp_path / "run" / "active_state.json").exists()
