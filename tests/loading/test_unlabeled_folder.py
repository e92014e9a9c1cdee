"""A folder `unlabeled` among the folders of classes: images without a label, and no class."""

import logging
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from tiny_images import make_pixels

from hf_noise_al.loading.data import load_data, load_pool
from hf_noise_al.loading.processors import load_image_processor
from hf_noise_al.settings.arguments import DataArguments, ModelArguments
from hf_noise_al.tasks import TASKS

GRAY = np.random.default_rng(0)


def write_images(root: Path, **folders: int) -> None:
    """Write as many images as asked into folders, named with a double underscore for each slash."""
    for name, count in folders.items():
        folder = root / name.replace("__", "/")
        folder.mkdir(parents=True)
        for number in range(count):
            PIL.Image.fromarray(make_pixels(number, 8, GRAY)).save(folder / f"{number}.png")


def named(rows: object) -> list[str | None]:
    names = rows.features["label"].names
    return [None if label is None else names[label] for label in rows["label"]]


def test_images_of_the_folder_have_no_label_and_it_is_no_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path, train__cat=2, train__dog=1, train__unlabeled=3, validation__cat=1, validation__dog=1)
    with caplog.at_level(logging.INFO, "hf_noise_al"):
        loaded = load_data(DataArguments(dataset_name=str(tmp_path)))
        pool, evaluation = loaded.pool, loaded.evaluation
    assert named(pool) == ["cat", "cat", "dog", None, None, None]
    assert named(evaluation[""]) == ["cat", "dog"]
    assert pool.features == evaluation[""].features and pool.features["label"].names == ["cat", "dog"]
    assert pool.column_names == ["image", "label"] and pool[5]["image"].size == (8, 8)
    assert f"3 files of {tmp_path} are in folders `unlabeled`: they have no label" in caplog.text


def test_without_splits_rows_to_measure_with_are_labeled_ones(tmp_path: Path) -> None:
    write_images(tmp_path, cat=3, dog=3, unlabeled=4)
    loaded = load_data(DataArguments(dataset_name=str(tmp_path), validation_fraction=0.34))
    pool, evaluation = loaded.pool, loaded.evaluation
    assert len(evaluation[""]) == 2 and None not in named(evaluation[""])
    assert named(pool).count(None) == 4


def test_folders_inside_it_are_no_classes_either(tmp_path: Path) -> None:
    root = tmp_path / "unlabeled" / "data"  # what is above the data has no say
    write_images(root, train__pets__cat=1, train__pets__dog=1, train__unlabeled__monday=1, train__unlabeled__cat=1)
    pool = load_pool(DataArguments(dataset_name=str(root))).pool
    assert sorted(named(pool), key=str) == [None, None, "cat", "dog"]
    assert pool.features["label"].names == ["cat", "dog"]


def test_the_folder_may_have_another_name_or_be_a_class(tmp_path: Path) -> None:
    write_images(tmp_path, train__cat=1, train__new=1, train__unlabeled=1)

    def labels(**settings: object) -> list[str | None]:
        return named(load_pool(DataArguments(dataset_name=str(tmp_path), **settings)).pool)

    assert labels(unlabeled_folder="new") == ["cat", None, "unlabeled"]
    assert labels(unlabeled_folder="") == ["cat", "new", "unlabeled"]
    assert labels(class_names=["cat", "new", "unlabeled"]) == ["cat", "new", "unlabeled"]
    message = (
        f"{tmp_path} has no images in a folder `nw` (`unlabeled_folder`). Did you mean `new`? Its folders are: cat,"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        labels(unlabeled_folder="nw")


def test_a_class_of_a_table_may_be_called_so(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,unlabeled\nb,c\n")
    assert load_pool(DataArguments(dataset_name=str(tmp_path / "rows.csv"))).pool["label"][:] == ["unlabeled", "c"]


def test_such_images_cannot_measure(tmp_path: Path) -> None:
    write_images(tmp_path, train__cat=1, train__dog=1, validation__cat=1, validation__dog=1, validation__unlabeled=1)
    arguments = DataArguments(dataset_name=str(tmp_path), task="image_classification", image_size=8)
    loaded = load_data(arguments)
    pool, evaluation = loaded.pool, loaded.evaluation
    task = TASKS["image_classification"]
    processor = load_image_processor(ModelArguments(model_config={"model_type": "small_cnn"}), 8)
    with pytest.raises(ValueError, match=r"Column `label` of the evaluation set has no label in row 2 \(1 such rows"):
        task.prepare(pool, evaluation, processor, arguments)
