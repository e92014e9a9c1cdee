"""Loading: every kind of source, and a clear refusal of what is not there."""

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, set_seed

from hf_noise_al.loading.data import load_data
from hf_noise_al.loading.models import load_model_config, model_factory
from hf_noise_al.loading.processors import load_image_processor, load_tokenizer
from hf_noise_al.loading.splits import load_digits_images
from hf_noise_al.loading.validation_rows import _measuring_rows
from hf_noise_al.settings.arguments import DataArguments, ModelArguments

RESNET = {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [4], "depths": [1], "layer_type": "basic"}
HEAD = {"num_labels": 2, "id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}


@pytest.fixture
def rows() -> Dataset:
    return Dataset.from_dict({"text": [f"text {n}" for n in range(20)], "label": [n % 2 for n in range(20)]})


def data(name: object, **settings: object) -> DataArguments:
    return DataArguments(dataset_name=str(name), **settings)


# ---- data ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet"])
def test_a_file_is_split_where_it_is_all_there_is(
    tmp_path: Path, rows: Dataset, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"rows.{kind}"
    {"csv": rows.to_csv, "json": rows.to_json, "jsonl": rows.to_json, "parquet": rows.to_parquet}[kind](str(path))
    with caplog.at_level(logging.INFO, "hf_noise_al"):
        loaded = load_data(data(path, validation_fraction=0.25))
    assert loaded.pool["text"] == rows["text"], "rows keep their place"
    assert len(loaded.set_aside) == 5 and sorted(row // 4 for row in loaded.set_aside) == [0, 1, 2, 3, 4]
    assert loaded.evaluation[""]["text"][:] == [f"text {row}" for row in loaded.set_aside]
    assert "5 of its 20 labeled rows are set aside" in caplog.text


def test_the_part_set_aside_is_the_same_every_time_and_another_with_another_seed(tmp_path: Path, rows: Dataset) -> None:
    path = tmp_path / "rows.csv"
    rows.to_csv(str(path))
    first, again, other = (load_data(data(path, split_seed=seed)).evaluation[""]["text"][:] for seed in (0, 0, 1))
    assert first == again != other


def test_no_rows_are_set_aside_where_none_are_asked_for(tmp_path: Path, rows: Dataset) -> None:
    rows.to_csv(str(tmp_path / "rows.csv"))
    loaded = load_data(data(tmp_path / "rows.csv", validation_fraction=0))
    pool, evaluation = loaded.pool, loaded.evaluation
    assert evaluation == {} and pool["text"][:] == rows["text"][:]


def test_rows_are_set_aside_by_the_first_label_column_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    Dataset.from_list([{"id": row, "label": row % 2, "tags": [0] if row < 4 else None} for row in range(20)]).to_json(
        str(path)
    )
    arguments = data(path, validation_fraction=0.5)
    assert len(load_data(arguments).evaluation[""]) == 10, "what is not the task's has no say"
    tagged = load_data(arguments, ["ner_tags", "tags", "label"]).evaluation[""]["id"][:]
    assert len(tagged) == 2 and set(tagged) <= {0, 1, 2, 3}
    assert len(load_data(arguments, ["nothing"]).evaluation[""]) == 10, (
        "that there is none is said when labels are read"
    )


def test_a_folder_of_files_has_their_splits_and_ignores_the_config_name(
    tmp_path: Path, rows: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    rows.to_parquet(str(tmp_path / "train.parquet"))
    rows.select(range(4)).to_parquet(str(tmp_path / "validation.parquet"))
    with caplog.at_level(logging.INFO, "hf_noise_al"):
        loaded = load_data(data(tmp_path, dataset_config_name="mrpc"))
    assert (len(loaded.pool), len(loaded.evaluation[""]), loaded.set_aside) == (20, 4, ())
    assert "`dataset_config_name: mrpc` does not select data" in caplog.text


def test_a_folder_written_by_save_to_disk_is_read(tmp_path: Path, rows: Dataset) -> None:
    DatasetDict({"train": rows, "test": rows.select([1])}).save_to_disk(tmp_path / "several")
    rows.save_to_disk(tmp_path / "one")
    assert len(load_data(data(tmp_path / "several", eval_split=["test"])).evaluation[""]) == 1
    assert len(load_data(data(tmp_path / "one")).set_aside) == 2


def test_several_evaluation_splits_are_named_by_what_tells_them_apart(tmp_path: Path, rows: Dataset) -> None:
    splits = ["validation_matched", "validation_mismatched"]
    DatasetDict({"train": rows, **dict.fromkeys(splits, rows)}).save_to_disk(tmp_path / "mnli")
    assert list(load_data(data(tmp_path / "mnli", eval_split=splits)).evaluation) == ["matched", "mismatched"]
    assert list(load_data(data(tmp_path / "mnli", eval_split=["train", splits[0]])).evaluation) == ["train", splits[0]]


def test_only_the_first_rows_are_kept_where_asked(tmp_path: Path, rows: Dataset) -> None:
    DatasetDict({"train": rows, "validation": rows}).save_to_disk(tmp_path / "rows")
    loaded = load_data(data(tmp_path / "rows", max_train_samples=3, max_eval_samples=2))
    assert loaded.pool["text"][:] == ["text 0", "text 1", "text 2"]
    assert len(loaded.evaluation[""]) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"eval_split": ["validaton"]},
            r"no split `validaton`\. Did you mean `validation`\? Set `eval_split` to one of",
        ),
        ({"train_split": "training"}, r"no split `training`.*Set `train_split` to one of: train, validation, test"),
        ({"train_split": "test"}, "The split `test` of .* is empty"),
        ({"eval_split": ["test"]}, "The evaluation split of .* is empty"),
        ({"eval_split": ["train", "train"]}, "names a split twice"),
    ],
)
def test_splits_that_cannot_be_used_are_refused(
    tmp_path: Path, rows: Dataset, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], message: str
) -> None:
    DatasetDict({"train": rows}).save_to_disk(tmp_path)
    splits = DatasetDict({"train": rows, "validation": rows, "test": rows.select([])})  # datasets writes no empty one
    monkeypatch.setattr("hf_noise_al.loading.splits.load_from_disk", lambda path: splits)
    with pytest.raises(ValueError, match=message):
        load_data(data(tmp_path, **settings))


def test_data_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no file or folder .*nothing\.csv"):
        load_data(data(tmp_path / "nothing.csv"))
    with pytest.raises(ValueError, match="Unknown bundled data sklearn:iris"):
        load_data(data("sklearn:iris"))
    with pytest.raises(ValueError, match=r"Cannot load the data set some/data: .* Is the Hub reachable"):
        load_data(data("some/data"))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"`\.txt` is none of \.csv, \.json"):
        load_data(data(tmp_path / "notes.txt"))


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("rows.csv", "", "the file is empty. Name another, or look at the file"),
        ("rows.jsonl", "", "the file is empty. Name another, or look at the file"),
        ("rows.csv", "text,label\n", "it has no rows. Name another, or look at the file"),
        ("rows.json", "[]", "it has no rows. Name another, or look at the file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, file: str, text: str, reason: str
) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=rf"Cannot load the data set .*{re.escape(file)}: {reason}"):
        load_data(data(tmp_path / file))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("rows.json", '{"text": ', "line 1: this is not JSON (Expecting value). Correct the line; a file has one"),
        ("rows.jsonl", '{"text": "a"}\n\n{"text": "b}\n', "line 3: this is not JSON (Unterminated string"),
        ("rows.jsonl", '{"text": "a"}\n4\n', "line 2: found 4 where a row, an object"),
        ("rows.csv", "text,label\na,0\na,0,1\n", "line 3: found 3 cells, and the header has 2 (text, label)"),
    ],
)
def test_a_broken_line_is_refused_with_its_number(tmp_path: Path, file: str, text: str, message: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / file}, {message}")):
        load_data(data(tmp_path / file))


def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"not parquet")
    with pytest.raises(ValueError, match=r"Cannot load the data set .*rows\.parquet"):
        load_data(data(tmp_path / "rows.parquet"))


def test_digits_are_images_in_a_fixed_stratified_split() -> None:
    splits = load_digits_images()
    assert {name: len(part) for name, part in splits.items()} == {"train": 1198, "validation": 599}
    assert isinstance(splits["train"].features["label"], ClassLabel)
    counts = np.bincount(splits["validation"]["label"][:])
    assert counts.min() > 55 and counts.max() < 65
    image = splits["train"][0]["image"]
    assert (image.size, image.mode) == ((8, 8), "L")
    assert max(np.asarray(row["image"]).max() for row in splits["train"].select(range(20))) == 255


# ---- processors ----------------------------------------------------------------------------------------------------


def test_the_tokenizer_is_the_models_or_the_one_named(tiny_bert_folder: Path) -> None:
    named = ModelArguments(model_config={"model_type": "bert"}, processor_name_or_path=str(tiny_bert_folder))
    own = ModelArguments(model_name_or_path=str(tiny_bert_folder))
    assert load_tokenizer(own)("the film").input_ids == load_tokenizer(named)("the film").input_ids
    with pytest.raises(ValueError, match="has no tokenizer. Name one with `processor_name_or_path`"):
        load_tokenizer(ModelArguments(model_config={"model_type": "bert"}))
    with pytest.raises(ValueError, match="Cannot load the tokenizer of some/model"):
        load_tokenizer(ModelArguments(model_name_or_path="some/model"))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_without_image_processor_gets_one_that_scales_to_one(channels: int) -> None:
    processor = load_image_processor(ModelArguments(model_config={**RESNET, "num_channels": channels}), image_size=16)
    assert processor.do_convert_rgb is (channels == 3)
    white = np.full((8, 8, channels), 255, dtype=np.uint8)
    pixels = processor([white], return_tensors="np")["pixel_values"]
    assert pixels.shape == (1, channels, 16, 16)
    np.testing.assert_allclose(pixels, 1.0)


def test_the_image_processor_saved_with_a_model_is_found_again(tmp_path: Path) -> None:
    made = ModelArguments(model_config={**RESNET, "num_channels": 1})
    load_image_processor(made, image_size=16).save_pretrained(tmp_path)
    load_model_config(made, {}).save_pretrained(tmp_path)
    processor = load_image_processor(ModelArguments(model_name_or_path=str(tmp_path)))
    assert processor.do_convert_rgb is False
    gray = np.zeros((8, 8, 1), dtype=np.uint8)
    assert processor([gray], return_tensors="np")["pixel_values"].shape == (1, 1, 16, 16)


def test_without_image_processor_the_size_must_be_named() -> None:
    with pytest.raises(ValueError, match="Set `image_size`"):
        load_image_processor(ModelArguments(model_config=RESNET))


# ---- models --------------------------------------------------------------------------------------------------------


def test_a_model_is_made_from_a_configuration_equal_for_equal_seeds() -> None:
    make = model_factory(ModelArguments(model_config=RESNET), AutoModelForImageClassification, HEAD)
    models = []
    for seed in (0, 0, 1):
        set_seed(seed)
        models.append(make())
    first, again, other = (model.classifier[1].weight for model in models)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert models[0].config.id2label == {0: "no", 1: "yes"}


def test_a_new_head_is_made_and_told_once(tiny_bert_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    head = {"num_labels": 5, "problem_type": "single_label_classification"}
    make = model_factory(
        ModelArguments(model_name_or_path=str(tiny_bert_folder)), AutoModelForSequenceClassification, head
    )
    with caplog.at_level(logging.INFO, "hf_noise_al"):
        model, again = make(), make()
    assert (model.classifier.out_features, model.config.problem_type) == (5, "single_label_classification")
    assert torch.equal(model.bert.pooler.dense.weight, again.bert.pooler.dense.weight)
    told = [record.getMessage() for record in caplog.records if "made new" in record.getMessage()]
    assert len(told) == 1 and "classifier.weight" in told[0]


def test_a_query_is_refused_with_a_new_head(tiny_bert_folder: Path) -> None:
    arguments = ModelArguments(model_name_or_path=str(tiny_bert_folder))
    trained = model_factory(arguments, AutoModelForSequenceClassification, HEAD, trained_head=True)
    assert trained().config.num_labels == 2
    new = model_factory(arguments, AutoModelForSequenceClassification, {"num_labels": 3}, trained_head=True)
    with pytest.raises(ValueError, match=r"has no trained weights for this task: .*classifier\.weight.* \(3 outputs\)"):
        new()
    with pytest.raises(ValueError, match="A query needs a trained model"):
        model_factory(ModelArguments(model_config=RESNET), AutoModelForImageClassification, HEAD, trained_head=True)


def test_weights_are_float32_whatever_the_checkpoint_is(tiny_bert_folder: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert_folder)
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    make = model_factory(ModelArguments(model_name_or_path=str(tmp_path)), AutoModelForSequenceClassification, HEAD)
    assert {parameter.dtype for parameter in make().parameters()} == {torch.float32}


def test_a_model_without_padding_token_gets_that_of_its_tokenizer() -> None:
    tiny = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 10}
    arguments = ModelArguments(model_config=tiny)
    assert model_factory(arguments, AutoModelForSequenceClassification, HEAD, 7)().config.pad_token_id == 7


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "resnett"}, r"Unknown `model_type` resnett in `model_config`\. Did you mean `resnet`\?"),
        ({**RESNET, "hiden_sizes": [4]}, "has `hiden_sizes`, which .* does not have. Did you mean `hidden_sizes`?"),
        ({**RESNET, "layer_type": "basick"}, "Cannot use `model_config`: layer_type=basick"),
    ],
)
def test_a_wrong_configuration_is_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_model_config(ModelArguments(model_config=config), HEAD)


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"no": "model"}))
    with pytest.raises(ValueError, match=f"Cannot load the model {tmp_path}"):
        load_model_config(ModelArguments(model_name_or_path=str(tmp_path)), HEAD)


@pytest.mark.parametrize(("fraction", "count"), [(0.1, 100), (0.25, 250), (0.5, 500), (0.75, 750), (0.9, 900)])
def test_the_share_that_is_set_aside_is_the_one_asked_for_and_grows_with_the_file(fraction: float, count: int) -> None:
    whole = _measuring_rows(range(1000), 1000, fraction, seed=3)
    assert abs(len(whole) - count) <= 1 and whole == sorted(set(whole))
    few = _measuring_rows(range(0, 600, 2), 600, fraction, seed=3)
    assert set(few) <= set(whole) and abs(len(few) - fraction * 300) < 40
    assert _measuring_rows(range(600), 600, fraction, seed=4) != _measuring_rows(range(600), 600, fraction, seed=3)


def test_one_row_measures_where_it_is_the_turn_of_none_and_one_is_left() -> None:
    assert _measuring_rows([5], 1000, 0.01, seed=0) == [5]
    assert len(_measuring_rows([0, 1], 2, 0.9, seed=0)) == 1
