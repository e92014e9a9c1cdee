"""Masks as labels: which values are classes, what is refused with row and file, what annotators may answer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from datasets import Sequence as SequenceFeature
from segmentation_data import NAMES, VALUE_OF_VOID, make_scenes
from transformers import PretrainedConfig

from hf_noise_al.settings.arguments import DataArguments
from hf_noise_al.tasks.masks.mask_arrays import VOID, decode_mask, encode_mask
from hf_noise_al.tasks.masks.mask_targets import (
    MaskTargets,
    answers_as_masks,
    read_mask_classes,
    trained_mask_classes,
    with_masks,
)

TARGETS = MaskTargets(class_names=NAMES, values=(0, 1, 2), void=(VALUE_OF_VOID,), image_column="image")


def arguments(**settings: Any) -> DataArguments:
    return DataArguments(dataset_name="x", **{"void_label": [VALUE_OF_VOID], **settings})


def pool_of(*masks: Any, kind: Any = None, size: tuple[int, int] = (2, 2)) -> Dataset:
    rows = {"image": [PIL.Image.new("RGB", size[::-1]) for _ in masks], "mask": list(masks)}
    return Dataset.from_dict(rows, features=Features({"image": Image(), "mask": kind}) if kind is not None else None)


def read(pool: Dataset, **settings: Any) -> MaskTargets:
    return read_mask_classes(pool, {}, "mask", arguments(**settings))


def test_names_stand_for_the_values_that_are_not_void_in_their_order() -> None:
    pool = pool_of([[0, 1], [1, 0]])
    found = read(pool, class_names=["road", "car"])
    assert (found.class_names, found.values, found.void) == (("road", "car"), (0, 1), (VALUE_OF_VOID,))
    assert read(pool, class_names=["wall", "sky", "tree"], void_label=[0, 2]).values == (1, 3, 4)
    assert read(pool, class_names=["a", "b"], void_label=None).void == (255,)
    assert found.head() == {"num_labels": 2, "id2label": {0: "road", 1: "car"}, "label2id": {"road": 0, "car": 1}}


def test_names_are_read_from_a_json_file_by_mask_value_or_in_order(tmp_path: Path) -> None:
    pool, file = pool_of([[0, 1], [1, 0]]), tmp_path / "id2label.json"
    file.write_text(json.dumps({"7": "road", "0": "nothing", "11": "house"}))
    found = read(pool, class_names=[str(file)], void_label=[0])
    assert (found.class_names, found.values) == (("road", "house"), (7, 11))
    file.write_text(json.dumps(["road", "house"]))
    assert read(pool, class_names=[str(file)]).values == (0, 1)
    file.write_text("3")
    with pytest.raises(ValueError, match="Cannot read `class_names` from .*id2label.json.* It should hold a list of"):
        read(pool, class_names=[str(file)])
    with pytest.raises(ValueError, match="Cannot read `class_names` from gone.json"):
        read(pool, class_names=["gone.json"])


def test_names_are_those_that_the_features_declare() -> None:
    kind = SequenceFeature(SequenceFeature(ClassLabel(names=["road", "car"])))
    assert read(pool_of([[0, 1], [1, 0]], kind=kind)).class_names == ("road", "car")


def test_without_names_every_value_that_is_found_is_a_class() -> None:
    pool = pool_of([[0, 7], [7, VALUE_OF_VOID]], None, [[3, 3], [3, 3]])
    found = read(pool)
    assert (found.class_names, found.values) == (("0", "3", "7"), (0, 3, 7))

    assert trained_mask_classes(pool, "mask", PretrainedConfig(**found.head()), arguments()) == found
    with pytest.raises(ValueError, match=r"The masks have 1 class beside void \(9\): nothing to tell apart"):
        read(pool_of([[1, 1], [1, VALUE_OF_VOID]]))


def test_a_trained_model_names_its_classes() -> None:
    config = PretrainedConfig(id2label={0: "road", 1: "car"})
    found = trained_mask_classes(pool_of(None), "mask", config, arguments(void_label=[0]))
    assert (found.class_names, found.values, found.image_column) == (("road", "car"), (1, 2), "image")


def test_masks_become_text_and_a_missing_one_leaves_its_row_unlabeled() -> None:
    scenes = make_scenes(4)
    rows = Dataset.from_list([{**row, "mask": None if n == 2 else row["mask"]} for n, row in enumerate(scenes)])
    rows = rows.cast(scenes.features)
    found = with_masks(rows, "mask", TARGETS, "the pool", complete=False)
    assert found.column_names == ["image", "labels"] and found["labels"][2] is None
    for row in (0, 1, 3):
        values = np.asarray(scenes[row]["mask"]).astype(int)
        expected = np.where(values == VALUE_OF_VOID, VOID, values)
        np.testing.assert_array_equal(decode_mask(found["labels"][row]), expected)
    with pytest.raises(ValueError, match="Column `mask` of the evaluation set has no mask in row 2. .*`eval_split`"):
        with_masks(rows, "mask", TARGETS, "the evaluation set", complete=True)


def test_lists_and_paths_become_the_same_text_as_pictures(tmp_path: Path) -> None:
    numbers = [[0, 1], [2, VALUE_OF_VOID]]
    picture = PIL.Image.fromarray(np.array(numbers, np.uint8))
    picture.save(tmp_path / "7.png")
    forms = [
        pool_of(picture, kind=Image()),
        pool_of(numbers),
        pool_of(str(tmp_path / "7.png")),
        pool_of(encode_mask(np.array([[0, 1], [2, VOID]]))),
    ]
    texts = {with_masks(form, "mask", TARGETS, "the pool", True)["labels"][0] for form in forms}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[0, 1], [4, 1]], r"row 1: the mask value 4 is none of the 3 classes \(0, 1, 2\) and not void \(9\)"),
        ([[0, 10**9], [0, 1]], "row 1: the mask value 1000000000 is none of the 3 classes"),
        ([[0, 1, 1], [0, 1, 1]], r"row 1: the mask has 2 x 3 pixels \(height x width\), its image 2 x 2"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_with_its_row(mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"Column `mask` of the pool, {message}"):
        with_masks(pool_of([[0, 1], [1, 0]], mask), "mask", TARGETS, "the pool", False)


def test_a_mask_that_does_not_fit_is_refused_with_its_file(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.full((2, 2), 5, np.uint8)).save(tmp_path / "7.png")
    pool = pool_of(str(tmp_path / "7.png"), kind=Image())
    with pytest.raises(ValueError, match=r"row 0 \(.*7.png\): the mask value 5 .* list all classes in `class_names`"):
        with_masks(pool, "mask", TARGETS, "the pool", False)
    (tmp_path / "7.png").write_bytes((tmp_path / "7.png").read_bytes()[:30])
    with pytest.raises(ValueError, match=r"row 0 \(.*7.png\): the image does not decode"):
        with_masks(pool, "mask", TARGETS, "the pool", False)


# ---- answers -------------------------------------------------------------------------------------------------------


def test_an_answer_may_be_an_array_a_picture_its_path_or_text(tmp_path: Path) -> None:
    numbers = np.array([[0, 1], [2, VALUE_OF_VOID]], np.uint8)
    PIL.Image.fromarray(numbers).save(tmp_path / "7.png")
    images = pool_of(None).rename_column("image", "pixel_values")
    expected = encode_mask(np.array([[0, 1], [2, VOID]]))
    for source in (tmp_path, tmp_path / "answers.jsonl"):  # a folder of files, or a file beside the masks
        answer = answers_as_masks(images, TARGETS, str(source))
        given = [numbers, numbers.tolist(), PIL.Image.fromarray(numbers), "7.png", str(tmp_path / "7.png"), expected]
        assert [answer(0, each) for each in given] == [expected] * 6


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([[0, 1, 1]], r"the answer: the mask has 1 x 3 pixels \(height x width\), its image 2 x 2"),
        ([[0, 3], [0, 0]], "the answer: the mask value 3 is none of the 3 classes"),
        ("gone.png", "the answer gone.png: there is no file gone.png. Write the path of a PNG"),
        (1, "the answer is no mask"),
        (encode_mask(np.array([[0, 3], [0, 0]])), "the answer: class 3 is outside the 3 classes"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(answer: Any, message: str) -> None:
    images = pool_of(None).rename_column("image", "pixel_values")
    with pytest.raises(ValueError, match=message):
        answers_as_masks(images, TARGETS, None)(0, answer)
