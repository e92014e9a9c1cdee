"""Segmentation from a folder of data to a trained model: any model, images of any sizes, memory that does not grow."""

import copy
import dataclasses
import gc
import json
import logging
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tiny_tasks
import torch
from datasets import Dataset, DatasetDict, Features, Image
from segmentation_data import CONFIGS, NAMES, SIZES, VALUE_OF_VOID, make_folder, make_scenes
from tiny_run import read_state
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForSemanticSegmentation

import hf_noise_al.observing.collated_batches
from hf_noise_al import ActiveTrainer, NoiseStability
from hf_noise_al.commands.main import main
from hf_noise_al.commands.prepare import prepare
from hf_noise_al.commands.run import train
from hf_noise_al.observables.pixels import segmentation_map
from hf_noise_al.settings.arguments import DataArguments, ModelArguments
from hf_noise_al.settings.parsing import parse
from hf_noise_al.settings.recipe import InvalidArgument
from hf_noise_al.tasks import TASKS
from hf_noise_al.tasks.masks.mask_arrays import decode_mask

SETTINGS: dict[str, Any] = {
    **{"task": "segmentation", "label_column": "mask", "void_label": VALUE_OF_VOID, "image_size": 16},
    **{"num_rounds": 2, "initial_size": 4, "query_size": 2, "max_steps": 2, "per_device_train_batch_size": 2},
    **{"per_device_eval_batch_size": 4, "use_cpu": "true", "save_strategy": "no", "report_to": "none"},
    **{"disable_tqdm": "true", "logging_strategy": "no"},
}


def flags(**settings: Any) -> list[str]:
    return tiny_tasks.flags({**SETTINGS, "class_names": NAMES, **settings})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    DatasetDict({"train": make_scenes(12), "validation": make_scenes(5, start=50)}).save_to_disk(folder)
    return folder


def make_trainer(data: Path, output: Path, model_type: str = "segformer", **settings: Any) -> ActiveTrainer:
    model = {"model_config": {"model_type": model_type, **CONFIGS[model_type]}}
    if "model_name_or_path" in settings:
        model = {}
    words = flags(dataset_name=data, output_dir=output, **model, **settings)
    return prepare(*parse(None, words)).trainer


# ---- whole runs ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["mobilenet_v2", "dpt", "upernet", "resnet"])
def test_a_model_in_a_local_folder_runs_and_is_loaded_bit_for_bit(model_type: str, data: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pretrained", model_type)
    words = flags(dataset_name=data, model_name_or_path=folder, output_dir=tmp_path / "run")
    job = prepare(*parse(None, words))
    assert "eval_mean_iou" in train(job)
    assert [record.num_labeled for record in job.trainer.history] == [4, 6]
    metrics = job.trainer.history[-1].metrics
    assert {"eval_mean_iou", "eval_mean_accuracy", "eval_overall_accuracy", "eval_iou_red"} <= set(metrics)
    assert 0 < metrics["eval_overall_accuracy"] <= 1

    loaded = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "run").eval()
    # convolutions round by where weights lie in memory: both are compared in memory of their own
    trained = AutoModelForSemanticSegmentation.from_config(job.trainer.model.config).eval()
    trained.load_state_dict(job.trainer.model.state_dict())
    loaded = copy.deepcopy(loaded)
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(pixels).logits, trained(pixels).logits)

    asked = flags(dataset_name=data, model_name_or_path=tmp_path / "run", output_dir=tmp_path / "next")
    assert main(["query", str(write_recipe(tmp_path)), *asked]) == 0
    lines = (tmp_path / "next" / "queries" / "round-00.jsonl").read_text().splitlines()
    known = {annotation.row for annotation in job.trainer.pool.annotations}
    rows = {json.loads(line)["row"] for line in lines}
    assert len(rows) == 2 and not rows & known


def test_label_smoothing_is_refused_as_the_loss_knows_none(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="`label_smoothing_factor` is 0.1: it has no effect on segmentation"):
        make_trainer(data, tmp_path, label_smoothing_factor=0.1)


def write_recipe(folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text("task: segmentation\n")
    return path


def test_masks_are_held_out_and_the_state_keeps_them_as_text(data: Path, tmp_path: Path) -> None:
    trainer = make_trainer(data, tmp_path)
    assert "labels" not in trainer.data.inputs.column_names and "mask" not in trainer.data.inputs.column_names
    trainer.train()
    state = read_state(tmp_path)
    kept = {entry["row"]: entry["label"] for entry in state["annotations"]}
    assert len(kept) == 6
    scenes = make_scenes(12)
    for row, text in kept.items():
        mask = np.asarray(scenes[row]["mask"])
        np.testing.assert_array_equal(decode_mask(text)[1:], mask[1:])
        assert len(text) < 2 * mask.size
    split = trainer.train_dataset
    assert split.column_names == ["pixel_values", "labels"] and len(split) == 6


def test_people_answer_with_paths_of_pictures_and_the_run_goes_on(data: Path, tmp_path: Path) -> None:
    scenes = make_scenes(12)
    unlabeled = scenes.map(lambda row, n: {"mask": row["mask"] if n < 3 else None}, with_indices=True)
    assert isinstance(unlabeled.features["mask"], Image)
    folder = tmp_path / "data"
    DatasetDict({"train": unlabeled, "validation": make_scenes(3, start=50)}).save_to_disk(folder)
    run, queries = tmp_path / "run", tmp_path / "run" / "queries"
    words = ["run", str(write_recipe(tmp_path))]
    words += flags(
        **{"dataset_name": folder, "output_dir": run, "label_file": queries},
        model_config={"model_type": "resnet", **CONFIGS["resnet"]},
    )
    assert main(words) == 2, "it waits for answers"
    file = queries / "round-01.jsonl"
    asked = [json.loads(line) for line in file.read_text().splitlines()]
    for entry in asked:
        scenes[entry["row"]]["mask"].save(queries / f"{entry['row']}.png")
        entry["label"] = f"{entry['row']}.png"
    file.write_text("\n".join(map(json.dumps, asked)))
    assert main([*words, "--resume_from_checkpoint", "true"]) == 0
    state = read_state(run)
    assert [entry["row"] for entry in state["annotations"]][3:] == [entry["row"] for entry in asked]
    PIL.Image.new("L", (3, 3)).save(queries / f"{asked[0]['row']}.png")


# ---- queries -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["segformer", "resnet"])
def test_both_estimators_see_the_same_and_leave_the_weights(model_type: str, data: Path, tmp_path: Path) -> None:
    trainer = make_trainer(data, tmp_path, model_type)
    with torch.no_grad():  # small initial weights would leave every image with the same output
        for parameter in trainer.model.parameters():
            parameter.mul_(4) if parameter.ndim > 1 else None
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    candidates = trainer._looking.candidates(list(range(12)))
    assert candidates.observable is segmentation_map
    rows = {}
    for estimator, settings in (
        ("finite_difference", {"num_perturbations": 30, "max_feature_dim": 4096}),
        ("gradient_sketch", {"num_projections": 512, "num_output_projections": 16}),
    ):
        method = NoiseStability(estimator=estimator, **settings)  # type: ignore[arg-type]
        quick = dataclasses.replace(method, num_perturbations=2)
        query = quick.select(candidates, 5, torch.Generator().manual_seed(0))
        assert len(set(query.indices.tolist())) == 5
        rows[estimator] = method.deviations(candidates, torch.Generator().manual_seed(1))
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    products = [(each @ each.T / each.square().sum()).flatten() for each in rows.values()]
    correlation = float(torch.corrcoef(torch.stack(products))[0, 1])
    assert correlation > 0.7, correlation


def test_where_the_sketch_has_no_rule_auto_says_so_and_takes_finite_differences(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"acquisition_kwargs": {"num_perturbations": 9}}
    trainer = make_trainer(data, tmp_path, "dpt", log_level="info", **settings)
    with caplog.at_level(logging.INFO, "hf_noise_al"):
        found = trainer.query()
    assert (
        "finite differences: the gradient sketch has no rule for " in caplog.text and "ConvTranspose2d" in caplog.text
    )
    assert len(set(found.indices.tolist())) == 2


@pytest.mark.parametrize("acquisition", ["entropy", "margin", "least_confidence", "core_set", "random"])
def test_other_acquisitions_choose_images(acquisition: str, data: Path, tmp_path: Path) -> None:
    trainer = make_trainer(data, tmp_path, acquisition=acquisition)
    found = trainer.query()
    assert len(set(found.indices.tolist())) == 2 and bool(torch.isfinite(found.scores).all())


def test_uncertainty_of_an_image_is_the_mean_over_its_pixels(data: Path, tmp_path: Path) -> None:
    trainer = make_trainer(data, tmp_path, acquisition="entropy")
    rows = list(range(12))
    query = trainer.acquisition.select(trainer._looking.candidates(rows), 1, torch.Generator())
    batch = trainer.data_collator([trainer.data.inputs[row] for row in rows])
    with torch.no_grad():
        chances = trainer.model.eval()(**batch).logits.softmax(dim=1)
    expected = -(chances * chances.log()).sum(dim=1).mean(dim=(1, 2))
    torch.testing.assert_close(query.scores, expected)


@pytest.mark.parametrize("settings", [{"acquisition": "badge"}, {"acquisition": "bald"}])
def test_acquisitions_for_one_class_each_are_refused_before_training(
    settings: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    name = settings["acquisition"]
    with pytest.raises(InvalidArgument, match=f"The acquisition {name} cannot work on segmentation: .* Use core_set,"):
        make_trainer(data, tmp_path, **settings)
    words = flags(dataset_name=data, output_dir=tmp_path / "run", model_config={"model_type": "resnet"})
    assert main(["run", str(write_recipe(tmp_path)), *words, "--baselines", name]) == 2
    assert not (tmp_path / "run").exists(), "no part of it was trained"


# ---- images --------------------------------------------------------------------------------------------------------


def prepared(rows: Dataset, **settings: Any) -> Any:
    arguments = DataArguments(dataset_name="x", task="segmentation", void_label=[VALUE_OF_VOID], **settings)
    model = ModelArguments(model_config={"model_type": "resnet", **CONFIGS["resnet"]})
    task = TASKS["segmentation"]
    processor = task.load_processor(model, arguments, rows)
    return task.prepare(rows, rows, processor, arguments, "mask"), task.collator(processor)


def test_what_a_row_becomes_depends_on_no_other_row() -> None:
    ready, collate = prepared(make_scenes(4), image_size=16)
    batch = collate([ready.pool[row] for row in range(4)])
    assert batch["pixel_values"].shape == (4, 3, 16, 16)
    assert [tuple(row[:2].tolist()) for row in batch["labels"]] == [SIZES[0], SIZES[1]] * 2
    for row in range(4):
        assert torch.equal(collate([ready.pool[row]])["pixel_values"][0], batch["pixel_values"][row])


def test_sixteen_bits_of_gray_do_not_become_white() -> None:
    gray = [PIL.Image.fromarray(np.full((12, 20), value, dtype=np.uint16)) for value in (0x4000, 0xC000)]
    masks = make_scenes(2, sizes=[(12, 20)])["mask"][:]
    rows = Dataset.from_dict({"image": gray, "mask": masks}, features=Features({"image": Image(), "mask": Image()}))
    ready, collate = prepared(rows)
    pixels = collate([ready.pool[row] for row in range(2)])["pixel_values"]
    assert pixels.unique().tolist() == pytest.approx([0x40 / 255, 0xC0 / 255])


def test_images_of_one_size_keep_it_and_others_need_a_size() -> None:
    ready, collate = prepared(make_scenes(2, sizes=[(12, 20)]))
    pixels = collate([ready.pool[0]])["pixel_values"]
    assert pixels.shape == (1, 3, 12, 20)
    expected = np.asarray(make_scenes(1, sizes=[(12, 20)])[0]["image"]) / 255
    np.testing.assert_allclose(pixels[0].permute(1, 2, 0), expected, atol=1e-6)
    with pytest.raises(ValueError, match="The images of the pool differ in size.* Set `image_size`, such as 256"):
        prepared(make_scenes(2))


@pytest.mark.parametrize("model_type", ["mobilenet_v2", "resnet"])
def test_the_models_own_processor_gives_size_and_scale_and_cuts_nothing_off(model_type: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path, model_type)
    arguments = DataArguments(dataset_name="x", task="segmentation")
    processor = TASKS["segmentation"].load_processor(
        ModelArguments(model_name_or_path=str(folder)), arguments, make_scenes(2)
    )
    batch = TASKS["segmentation"].collator(processor)([{"pixel_values": row["image"]} for row in make_scenes(2)])
    assert batch["pixel_values"].shape == (2, 3, 16, 16)
    assert float(batch["pixel_values"].min()) < -0.9, "normalized as the model's images are"


def test_an_image_that_does_not_decode_is_refused_with_its_file(tmp_path: Path) -> None:
    rows = make_scenes(3)
    for number, row in enumerate(rows):
        row["image"].save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:-60])
    pool = Dataset.from_dict({"image": [str(tmp_path / f"{n}.png") for n in range(3)], "mask": rows["mask"]})
    pool = pool.cast_column("image", Image())
    with pytest.raises(ValueError, match=r"Column `image` of the pool, row 1 \(.*1.png\): the image does not decode"):
        prepared(pool, image_size=16)


@pytest.mark.parametrize(("column", "what"), [("image", "an array"), ("mask", "float64 numbers")])
def test_images_and_masks_without_pixels_are_refused_with_their_row(column: str, what: str) -> None:
    scenes = make_scenes(2, sizes=[(12, 20)])
    good = {name: [np.asarray(row[name]).tolist() for row in scenes] for name in ("image", "mask")}
    pool, bad = (Dataset.from_dict(rows) for rows in (good, {**good, column: [good[column][0], [[], []]]}))
    task, arguments = TASKS["segmentation"], DataArguments(dataset_name="x", void_label=[VALUE_OF_VOID])
    model = ModelArguments(model_config={"model_type": "resnet", **CONFIGS["resnet"]})
    processor = task.load_processor(model, arguments, pool)
    for place, parts in {"the pool": (bad, pool), "the evaluation set": (pool, bad)}.items():
        with pytest.raises(ValueError, match=rf"`{column}` of {place}, row 1 is no .*: .*{what} of shape \(2, 0"):
            task.prepare(*parts, processor, arguments, "mask")


def test_images_and_masks_may_be_arrays() -> None:
    scenes = make_scenes(2, sizes=[(12, 20)])
    arrays = {name: [np.asarray(row[name]).tolist() for row in scenes] for name in ("image", "mask")}
    batches = []
    for rows in (scenes, Dataset.from_dict(arrays)):
        ready, collate = prepared(rows)
        batches.append(collate([ready.pool[0], ready.pool[1]]))
    for name in ("pixel_values", "labels"):
        assert torch.equal(batches[0][name], batches[1][name])


# ---- memory --------------------------------------------------------------------------------------------------------


class LiveBytes(TorchDispatchMode):
    """Count the bytes of all tensors that are alive at once, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.total = self.peak = self.alive = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                _, before = self.storages.get(storage._cdata, (None, 0))
                self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                self.total += storage.nbytes() - before
        # only then can those that are still alive be more than ever; and what counts is not to grow itself
        if self.total > self.peak or len(self.storages) > 2 * self.alive + 16:
            self.storages = {key: kept for key, kept in self.storages.items() if not kept[0].expired()}
            self.total, self.alive = sum(nbytes for _, nbytes in self.storages.values()), len(self.storages)
            self.peak = max(self.peak, self.total)
        return found


@pytest.fixture
def without_kept_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep no collated batches between passes; a query keeps 2 GiB of them, whatever the number of images."""
    monkeypatch.setattr(hf_noise_al.observing.collated_batches, "CACHE_BYTES", 0)
    yield


def peaks(work: Any) -> tuple[int, int]:
    """Return the most bytes of tensors, and of Python and NumPy objects, while `work` runs.

    The less of two runs: what is made once and kept, such as the lines of a source for a warning, counts in one.
    """
    gc.collect()
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(50, 2, 2)  # cycles are not to be mistaken for what is kept
    found = []
    try:
        for _ in range(2):
            tracemalloc.start()
            with LiveBytes() as live:
                work()
            found.append((live.peak, tracemalloc.get_traced_memory()[1]))
            tracemalloc.stop()
    finally:
        tracemalloc.stop()
        gc.set_threshold(*thresholds)
    return min(tensors for tensors, _ in found), min(objects for _, objects in found)


@pytest.mark.slow
@pytest.mark.parametrize("work", ["evaluate", "finite_difference", "gradient_sketch"])
def test_memory_of_evaluating_and_querying_does_not_grow_with_the_number_of_images(
    work: str, tmp_path: Path, without_kept_batches: None
) -> None:
    few, many, size = 8, 24, (32, 32)  # below eight images, even what is not kept is more with each
    found = []
    for number in (few, many):
        folder = tmp_path / f"{number}"
        scenes = make_scenes(number, sizes=[size])
        DatasetDict({"train": scenes, "validation": scenes}).save_to_disk(folder / "data")
        trainer = make_trainer(folder / "data", folder, image_size=32, per_device_eval_batch_size=2)
        method = NoiseStability(
            estimator="finite_difference" if work == "evaluate" else work,  # type: ignore[arg-type]
            **{"num_perturbations": 2, "max_feature_dim": 16, "num_projections": 16, "num_output_projections": 1},
        )

        def query(trainer: Any = trainer, number: int = number, method: Any = method) -> None:
            method.select(trainer._looking.candidates(list(range(number))), 2, torch.Generator().manual_seed(0))

        found.append(peaks(trainer.evaluate if work == "evaluate" else query))
    pixels, outputs = 3 * 32 * 32 * 4, 3 * 16 * 16 * 4  # float32 numbers of one image, and of what is observed of it
    tensors, objects = ((after - before) / (many - few) for before, after in zip(*found, strict=True))
    assert tensors < min(pixels, outputs) / 5, f"{tensors:.0f} bytes of tensors for each further image"
    assert objects < pixels / 2, f"{objects:.0f} bytes of objects for each further image"
