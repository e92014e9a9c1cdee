"""A trained model goes on with the classes that its outputs stand for, in every task that has classes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_tasks
import torch
from datasets import ClassLabel, Dataset, DatasetDict
from tiny_run import make_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_noise_al import ActiveTrainer
from hf_noise_al.commands.prepare import prepare
from hf_noise_al.pool.pool_dataset import PoolDataset
from hf_noise_al.settings.parsing import parse
from hf_noise_al.tasks.label_column import with_targets
from hf_noise_al.tasks.label_kinds import read_classes
from hf_noise_al.tasks.masks.mask_targets import MaskTargets
from hf_noise_al.tasks.words.tags import TAGS, TagTargets, with_tags

ONE_ROUND = {"num_rounds": 1, "max_steps": 1}


def save_classes_of_tables(folder: Path) -> dict[str, Any]:
    def split(rows: int) -> Dataset:
        return Dataset.from_dict(
            {"area": [row % 7 for row in range(rows)], "kind": ["ab"[row % 2] for row in range(rows)]}
        )

    DatasetDict({"train": split(tiny_tasks.ROWS), "validation": split(5)}).save_to_disk(folder / "data")
    return {"label_column": "kind", "model_config": {"model_type": "tabular_mlp", "hidden_sizes": [8, 4]}}


SAVE = {
    "image_classification": tiny_tasks.save_images,
    "token_classification": tiny_tasks.save_words,
    "tabular_classification": save_classes_of_tables,
}


def named_labels(trainer: ActiveTrainer) -> list[Any]:
    """Return the labels of all rows by their names."""
    return [trainer.reader.spell(trainer.reader.restore(row, label)) for row, label in enumerate(trainer.data.labels)]


@pytest.mark.parametrize("task", SAVE)
def test_the_order_of_a_checkpoint_is_kept_and_other_classes_get_a_new_head(task: str, tmp_path: Path) -> None:
    folder = tmp_path / task
    folder.mkdir()
    settings = SAVE[task](folder)
    (folder / "settings.json").write_text(json.dumps(settings, default=str))
    first = tiny_tasks.make_trainer(tmp_path, task, tmp_path / "first", **ONE_ROUND)
    names = list(first.reader.names or ())
    turned = [*names[1:], names[0]]
    trained = tiny_tasks.make_trainer(tmp_path, task, tmp_path / "trained", **ONE_ROUND, class_names=turned)
    trained.train()
    trained.save_model()
    settings.pop("model_config", None)
    (folder / "settings.json").write_text(
        json.dumps({**settings, "model_name_or_path": tmp_path / "trained"}, default=str)
    )
    again = tiny_tasks.make_trainer(tmp_path, task, tmp_path / "again", **ONE_ROUND)
    assert list(again.reader.names or ()) == turned
    assert named_labels(again) == named_labels(first)
    state, kept = again.model.state_dict(), trained.model.state_dict()
    assert all(torch.equal(state[name], kept[name]) for name in kept), "the head is that of the checkpoint"


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 1, 2, 0, 1, 2], ["y", "z", "x"]),
        ([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]], ["y", "z", "x"]),
        ([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]], None),
    ],
)
def test_numbers_in_the_data_keep_the_order_in_which_classes_were_listed(labels: list[Any], names: Any) -> None:
    pool = Dataset.from_dict({"text": ["t"] * len(labels), "label": labels})
    targets = read_classes(pool, {}, "label", names)
    found = list(targets.class_names)
    turned = targets.arranged([found[2], found[0], found[1]])
    assert turned.class_names == (found[2], found[0], found[1])
    read = with_targets(pool, "label", turned, "the pool", complete=False)["labels"][:]
    meant = with_targets(pool, "label", targets, "the pool", complete=False)["labels"][:]
    for one, other in zip(read, meant, strict=True):
        assert named(one, turned.class_names) == named(other, found)


def named(label: Any, names: Sequence[str]) -> set[str]:
    return {names[n] for n, bit in enumerate(label) if bit} if isinstance(label, list) else {names[label]}


def test_numbers_of_tags_keep_the_order_in_which_classes_were_listed() -> None:
    pool = Dataset.from_dict({"text": ["t", "u"], "tags": [[0, 1, 2], [2, 2]]})
    targets = TagTargets(TAGS, ("O", "PER", "LOC")).arranged(["LOC", "O", "PER"])
    assert with_tags(pool, "tags", targets, "the pool", False)["labels"][:] == [[1, 2, 0], [0, 0]]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_run_on_a_checkpoint_of_another_order_keeps_what_numbers_mean(
    kind: str, tmp_path: Path, tiny_bert_folder: Path
) -> None:
    names = ["y", "z", "x"]
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_bert_folder, num_labels=3, id2label=dict(enumerate("zxy")), label2id={}, ignore_mismatched_sizes=True
    )
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_bert_folder).save_pretrained(tmp_path / "model")
    rows = [{"text": f"a film {row}", "label": row % 3} for row in range(30)]
    Dataset.from_list(rows).to_csv(str(tmp_path / "rows.csv")) if kind == "csv" else Dataset.from_list(rows).to_json(
        str(tmp_path / "rows.jsonl")
    )
    own = {
        "dataset_name": tmp_path / f"rows.{kind}",
        "model_name_or_path": tmp_path / "model",
        "output_dir": tmp_path / "o",
    }
    quick = {"use_cpu": "true", "num_rounds": 1, "class_names": names, "disable_tqdm": "true"}
    trainer = prepare(*parse(None, tiny_tasks.flags({**own, **quick}))).trainer
    assert trainer.reader.names == ("z", "x", "y")
    assert named_labels(trainer) == [names[row % 3] for row in range(30)]


def test_masks_keep_their_values_where_a_checkpoint_has_another_order() -> None:
    targets = MaskTargets(class_names=("road", "car", "sky"), values=(0, 1, 7), void=(255,))
    arranged = targets.arranged(["sky", "road", "car"])
    assert (arranged.class_names, arranged.values) == (("sky", "road", "car"), (7, 0, 1))
    with pytest.raises(ValueError, match="The class tree has no mask value"):
        targets.arranged(["tree", "road", "car", "sky"])


def test_a_segmenter_with_another_order_of_classes_is_trained_on_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "segmentation"
    folder.mkdir()
    settings = tiny_tasks.save_scenes(folder)
    (folder / "settings.json").write_text(json.dumps(settings, default=str))
    first = tiny_tasks.make_trainer(tmp_path, "segmentation", tmp_path / "first", **ONE_ROUND)
    first.save_model(str(tmp_path / "model"))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    turned = [*tiny_tasks.NAMES[1:], tiny_tasks.NAMES[0]]
    config |= {"id2label": dict(enumerate(turned)), "label2id": {name: number for number, name in enumerate(turned)}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    del settings["model_config"]
    (folder / "settings.json").write_text(
        json.dumps({**settings, "model_name_or_path": tmp_path / "model"}, default=str)
    )
    again = tiny_tasks.make_trainer(tmp_path, "segmentation", tmp_path / "again", **ONE_ROUND)
    assert list(again.reader.names or ()) == turned == list(again.model.config.id2label.values())
    assert again.data.labels[0] != first.data.labels[0], "class numbers are those of the model"


def test_a_data_set_and_a_model_with_another_order_are_refused_in_the_library() -> None:
    rows = Dataset.from_dict({"input_ids": [[1]], "label": [0]})
    data = PoolDataset(rows.cast_column("label", ClassLabel(names=["bad", "good"])))
    model = make_model(id2label={0: "good", 1: "bad"}, label2id={"good": 0, "bad": 1})
    with pytest.raises(
        ValueError, match=r"has the classes bad, good, and the model .* good, bad. Call `dataset.align_"
    ):
        data.reader_for(model)
    assert data.reader_for(make_model()).names == ("bad", "good")
    plain = PoolDataset(rows)
    assert plain.reader_for(model).names == ("good", "bad"), "the model's, where the data names none"
    assert plain.reader_for(make_model()).names is None
