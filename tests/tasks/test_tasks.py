"""Tasks: labels of every form, rows encoded once, and data that cannot be used refused before training."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import Array2D, ClassLabel, Dataset, Features, Image, Value
from datasets import Sequence as SequenceFeature
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from hf_noise_al import ActiveTrainer, ActiveTrainingArguments, features, probabilities
from hf_noise_al.loading.models import model_factory
from hf_noise_al.loading.processors import load_image_processor
from hf_noise_al.pool.problem_type import MULTI_LABEL, REGRESSION
from hf_noise_al.settings.arguments import DataArguments, ModelArguments
from hf_noise_al.tasks import TASKS, Prepared
from hf_noise_al.tasks.pictures import as_image
from hf_noise_al.tasks.targets import SINGLE_LABEL

TEXTS = ["a good film", "a bad book", "the dog was very good", "poor cat"]
RESNET = {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [4], "depths": [1], "layer_type": "basic"}


def prepare_texts(
    tokenizer: PreTrainedTokenizerFast,
    labels: list[Any],
    kind: Any = None,
    evaluation: list[Any] | None = None,
    task: str = "text_classification",
    **settings: Any,
) -> Prepared:
    def rows(values: list[Any]) -> Dataset:
        texts = [TEXTS[row % len(TEXTS)] for row in range(len(values))]
        features = Features({"text": Value("string"), "label": kind}) if kind is not None else None
        return Dataset.from_dict({"text": texts, "label": values}, features=features)

    arguments = DataArguments(dataset_name="x", **settings)
    held_out = rows([label for label in labels if label is not None] if evaluation is None else evaluation)
    return TASKS[task].prepare(rows(labels), held_out, tokenizer, arguments)


# ---- labels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "kind", "names", "encoded"),
    [
        ([1, 0, 1], ClassLabel(names=["no", "yes"]), ("no", "yes"), [1, 0, 1]),
        ([1, 0, 2], ClassLabel(names=["no", "yes", "maybe"]), ("no", "yes", "maybe"), [1, 0, 2]),
        (["yes", "no", "maybe"], None, ("maybe", "no", "yes"), [2, 1, 0]),
        ([10, 9, 10], None, ("9", "10"), [1, 0, 1]),
        ([10.0, 9.0, 10.0], None, ("9", "10"), [1, 0, 1]),
        ([True, False, True], None, ("False", "True"), [1, 0, 1]),
    ],
)
def test_classes_are_read_from_names_numbers_and_class_labels(
    tiny_tokenizer: PreTrainedTokenizerFast, labels: list[Any], kind: Any, names: tuple[str, ...], encoded: list[int]
) -> None:
    ready = prepare_texts(tiny_tokenizer, labels, kind)
    assert ready.targets.problem_type == SINGLE_LABEL
    assert ready.targets.class_names == names
    assert ready.pool["labels"][:] == encoded
    assert ready.pool.features["labels"] == ClassLabel(names=list(names))
    assert ready.targets.head()["label2id"] == {name: number for number, name in enumerate(names)}


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([1, None, 0, None], None),
        ([1, -1, 0, -100], None),
        ([1, -1, 0, None], ClassLabel(names=["a", "b"])),
        ([1.0, float("nan"), 0.0, None], None),
    ],
)
def test_a_missing_label_leaves_its_row_unlabeled(
    tiny_tokenizer: PreTrainedTokenizerFast, labels: list[Any], kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "hf_noise_al"):
        ready = prepare_texts(tiny_tokenizer, labels, kind, evaluation=[0, 1] if kind else [0, 1, 2])
    assert ready.pool["labels"][:] == [1, None, 0, None]
    assert "2 of 4 rows of the pool have no label yet" in caplog.text


def test_a_pool_without_any_label_takes_its_classes_from_the_evaluation_set_or_from_their_names(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    ready = prepare_texts(tiny_tokenizer, [None, None], Value("string"), evaluation=["b", "a"])
    assert (ready.targets.class_names, ready.pool["labels"][:]) == (("a", "b"), [None, None])
    named = prepare_texts(tiny_tokenizer, [None], Value("string"), evaluation=["a"], class_names=["b", "a", "c"])
    assert named.targets.class_names == ("b", "a", "c")


@pytest.mark.parametrize(
    ("labels", "kind", "names"),
    [
        ([[1, 0, 1], [0, 0, 0]], None, ("0", "1", "2")),
        ([["x", "z"], []], SequenceFeature(Value("string")), ("x", "z")),
        ([[0, 2], []], SequenceFeature(ClassLabel(names=["x", "y", "z"])), ("x", "y", "z")),
    ],
)
def test_lists_of_labels_are_multi_label(
    tiny_tokenizer: PreTrainedTokenizerFast, labels: list[Any], kind: Any, names: tuple[str, ...]
) -> None:
    ready = prepare_texts(tiny_tokenizer, labels, kind)
    assert (ready.targets.problem_type, ready.targets.class_names) == (MULTI_LABEL, names)
    first = [1.0, 1.0] if len(names) == 2 else [1.0, 0.0, 1.0]
    assert ready.pool["labels"][:] == [first, [0.0] * len(names)]


def test_regression_labels_are_floats(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ready = prepare_texts(tiny_tokenizer, [1, None, 3], task="text_regression", evaluation=[2])
    assert (ready.targets.problem_type, ready.targets.num_labels) == (REGRESSION, 1)
    assert ready.pool["labels"][:] == [1.0, None, 3.0]
    assert ready.pool.features["labels"] == Value("float32")
    assert ready.targets.head() == {"num_labels": 1, "problem_type": REGRESSION}


def test_no_second_label_column_reaches_the_model(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_dict({"text": TEXTS, "intent": ["a", "b", "a", "b"], "label": [5, 6, 7, 8]})
    ready = TASKS["text_classification"].prepare(
        rows, rows, tiny_tokenizer, DataArguments(dataset_name="x"), label_column="intent"
    )
    inputs = {"input_ids", "token_type_ids", "attention_mask"}
    assert set(ready.pool.column_names) == {"text", "labels", "label (column)", *inputs}
    assert ready.pool["label (column)"][:] == [5, 6, 7, 8]
    assert ready.pool["labels"][:] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("labels", "evaluation", "kind", "settings", "message"),
    [
        ([0, 1], [0, None], None, {}, "the evaluation set has no label in row 1 .*name another `eval_split`"),
        ([0, 1], [0, -1], ClassLabel(names=["a", "b"]), {}, "the evaluation set has no label in row 1"),
        ([0, 0], [0], None, {}, r"has 1 class \(0\): nothing to tell apart"),
        ([0.5, 1.0], [1.0], None, {}, "0.5 is no class: .*use `task: text_regression`"),
        (["a", "b" * 99], ["a"], None, {"class_names": ["a", "b"]}, r"row 1: 'b{76}\.\.\. is not a known class"),
        (["a", "b\n\x1b[m"], ["a"], None, {"class_names": ["a", "b"]}, r"row 1: 'b\\n\\x1b\[m' is not a known class"),
        (["a", "bb"], ["a"], None, {"class_names": ["a", "b"]}, "row 1: 'bb' is not a known class. .*`class_names`"),
        ([[0, 2], [1, 0]], [[1, 0]], None, {}, "hold neither class names nor only 0 and 1"),
        ([[0, 1], [1]], [[1, 0]], None, {}, r"row 1: found \[1\]\. Write one 0 or 1 for each of the 2 classes"),
        (["a", "b"], [1.0], None, {"task": "text_regression"}, "the pool, row 0: found 'a', which is not a number"),
        (
            [1.0],
            [float("inf")],
            None,
            {"task": "text_regression"},
            "the evaluation set, row 0: found inf, which is not a number",
        ),
        ([1.0], [float("nan")], None, {"task": "text_regression"}, "the evaluation set has no label in row 0"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_with_their_row(
    tiny_tokenizer: PreTrainedTokenizerFast,
    labels: list[Any],
    evaluation: list[Any],
    kind: Any,
    settings: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare_texts(tiny_tokenizer, labels, kind, evaluation, **settings)


def test_a_class_number_beyond_the_class_label_is_refused(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    pool = Dataset.from_dict({"text": TEXTS, "label": [0, 1, 0, 2]})
    pool.info.features["label"] = ClassLabel(names=["a", "b"])  # as a file with wrong metadata would say
    with pytest.raises(ValueError, match="Column `label` of the pool, row 3: the class number 2 is not a known class"):
        TASKS["text_classification"].prepare(pool, pool.select([0, 1]), tiny_tokenizer, DataArguments(dataset_name="x"))


# ---- columns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "settings", "same_as"),
    [
        (["sentence"], {}, ["sentence"]),
        (["premise", "hypothesis"], {}, ["premise", "hypothesis"]),
        (["question", "sentence"], {}, ["question", "sentence"]),
        (["review"], {}, ["review"]),
        (["left", "right"], {"text_column": "right", "text_pair_column": "left"}, ["right", "left"]),
    ],
)
def test_text_columns_are_found_or_named(
    tiny_tokenizer: PreTrainedTokenizerFast, columns: list[str], settings: dict[str, str], same_as: list[str]
) -> None:
    rows = Dataset.from_dict(
        {name: [f"{word} film", f"{word} book"] for name, word in zip(columns, ("good", "bad"), strict=False)}
        | {"label": [0, 1]}
    )
    ready = TASKS["text_classification"].prepare(
        rows, rows, tiny_tokenizer, DataArguments(dataset_name="x", **settings)
    )
    expected = tiny_tokenizer(*(rows[name][:] for name in same_as))["input_ids"]
    assert ready.pool["input_ids"][:] == expected
    assert set(columns) <= set(ready.pool.column_names)  # shown in query files


@pytest.mark.parametrize(
    ("settings", "label", "message"),
    [
        ({"text_column": "txet"}, None, r"no column `txet` \(`text_column`\)\. Did you mean `text`\?"),
        ({"text_pair_column": "text"}, None, "is the second text. Set `text_column`"),
        ({}, "lable", r"no column `lable` \(`label_column`\)\. Did you mean `label`\?"),
        ({"text_column": "label"}, "text", "Column `label` of the pool is not text in row 0: found 0"),
    ],
)
def test_columns_that_are_not_there_are_refused(
    tiny_tokenizer: PreTrainedTokenizerFast, settings: dict[str, str], label: str | None, message: str
) -> None:
    rows = Dataset.from_dict({"text": TEXTS, "label": [0, 1, 0, 1]})
    with pytest.raises(ValueError, match=message):
        TASKS["text_classification"].prepare(
            rows, rows, tiny_tokenizer, DataArguments(dataset_name="x", **settings), label
        )


def test_columns_that_cannot_be_guessed_are_asked_for(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    arguments = DataArguments(dataset_name="x")
    two = Dataset.from_dict({"left": TEXTS, "right": TEXTS, "label": [0, 1, 0, 1]})
    with pytest.raises(ValueError, match=r"Set `text_column` \(and `text_pair_column`\) to one of: left, right"):
        TASKS["text_classification"].prepare(two, two, tiny_tokenizer, arguments)
    with pytest.raises(ValueError, match="Found no label column. Set `label_column` to one of: left, right"):
        TASKS["text_classification"].prepare(
            two.remove_columns("label"), two, tiny_tokenizer, DataArguments(dataset_name="x", text_column="left")
        )
    with pytest.raises(ValueError, match="The column `right` is missing in the evaluation set"):
        TASKS["text_classification"].prepare(
            two,
            two.remove_columns("right"),
            tiny_tokenizer,
            DataArguments(dataset_name="x", text_column="left", text_pair_column="right"),
        )


def test_a_missing_text_is_refused_with_its_row(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_dict({"text": ["a", None, "b"], "label": [0, 1, 0]})
    with pytest.raises(ValueError, match="Column `text` of the pool is not text in row 1: found None"):
        TASKS["text_classification"].prepare(rows, rows, tiny_tokenizer, DataArguments(dataset_name="x"))


def test_empty_splits_are_refused(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_dict({"text": TEXTS, "label": [0, 1, 0, 1]})
    with pytest.raises(ValueError, match="No rows in the evaluation set matched"):
        TASKS["text_classification"].prepare(
            rows, {"matched": rows.select([])}, tiny_tokenizer, DataArguments(dataset_name="x")
        )


# ---- texts ---------------------------------------------------------------------------------------------------------


def test_texts_are_cut_but_not_padded(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ready = prepare_texts(tiny_tokenizer, [0, 1, 0, 1], max_seq_length=6)
    assert [len(tokens) for tokens in ready.pool["input_ids"]] == [5, 5, 6, 4]
    batch = TASKS["text_classification"].collator(tiny_tokenizer)(
        [{name: row[name] for name in ("input_ids", "attention_mask", "labels")} for row in ready.pool]
    )
    assert (batch["input_ids"].shape, batch["labels"].dtype) == ((4, 6), torch.int64)


def test_a_tokenizer_without_padding_token_pads_with_its_end_token(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer.backend_tokenizer, eos_token="[SEP]")
    batch = TASKS["text_classification"].collator(bare)([{"input_ids": [5, 6]}, {"input_ids": [5]}])
    assert batch["input_ids"].tolist() == [[5, 6], [5, bare.convert_tokens_to_ids("[SEP]")]]
    with pytest.raises(ValueError, match="neither padding nor end token"):
        TASKS["text_classification"].collator(
            PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer.backend_tokenizer)
        )


# ---- images --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["image", "bytes", "fractions"])
def test_images_and_arrays_become_pixel_values_of_the_models_channels(channels: int, kind: str) -> None:
    array = (np.arange(64).reshape(8, 8) * 4).astype(np.uint8)
    value = {"image": PIL.Image.fromarray(array), "bytes": array, "fractions": array / 255}[kind]
    column = {"image": Image(), "bytes": Array2D((8, 8), "uint8"), "fractions": Array2D((8, 8), "float64")}[kind]
    rows = Dataset.from_dict(
        {"image": [value] * 3, "label": [0, 1, 0]}, features=Features({"image": column, "label": Value("int64")})
    )
    processor = load_image_processor(ModelArguments(model_config={**RESNET, "num_channels": channels}), image_size=8)
    ready = TASKS["image_classification"].prepare(rows, rows, processor, DataArguments(dataset_name="x"))
    batch = TASKS["image_classification"].collator(processor)([ready.pool[0], ready.pool[1]])
    assert (batch["pixel_values"].shape, batch["labels"].tolist()) == ((2, channels, 8, 8), [0, 1])
    np.testing.assert_allclose(batch["pixel_values"][0, 0], array / 255, atol=1e-6)


def test_images_keep_their_encoding_when_rows_are_selected() -> None:
    rows = Dataset.from_dict({"image": [np.full((4, 4), n) for n in range(3)], "label": [0, 1, None]})
    processor = load_image_processor(ModelArguments(model_config={**RESNET, "num_channels": 1}), image_size=4)
    ready = TASKS["image_classification"].prepare(rows, rows.select([0, 1]), processor, DataArguments(dataset_name="x"))
    row = ready.pool.remove_columns(["labels"]).select([2])[0]
    assert isinstance(row["pixel_values"], np.ndarray)
    np.testing.assert_allclose(row["pixel_values"], 2 / 255)


@pytest.mark.parametrize(
    "value", [np.zeros(4), np.full((4, 4), -1.0), np.full((4, 4), np.nan), "path.png", np.zeros((0, 4))]
)
def test_what_is_no_image_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="Column `image` is no image"):
        as_image(value, "Column `image`")


def test_a_missing_image_is_refused_with_its_row() -> None:
    rows = Dataset.from_dict(
        {"image": [PIL.Image.new("L", (4, 4)), None], "label": [0, 1]},
        features=Features({"image": Image(), "label": Value("int64")}),
    )
    processor = load_image_processor(ModelArguments(model_config=RESNET), image_size=4)
    with pytest.raises(ValueError, match="has no image in row 1"):
        TASKS["image_classification"].prepare(rows, rows, processor, DataArguments(dataset_name="x"))


# ---- with the trainer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "labels", "observable"),
    [
        ("text_classification", ["no", "yes"] * 6, probabilities),
        ("text_classification", [["a"], ["a", "b"]] * 6, probabilities),
        ("text_regression", [0.5, 2.5] * 6, features),
    ],
)
def test_the_trainer_learns_and_queries_what_a_task_prepared(
    tiny_bert_folder: Path,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    task: str,
    labels: Any,
    observable: Any,
) -> None:
    ready = prepare_texts(tiny_tokenizer, labels, task=task)
    assert TASKS[task].observable is observable
    make = model_factory(
        ModelArguments(model_name_or_path=str(tiny_bert_folder)),
        AutoModelForSequenceClassification,
        ready.targets.head(),
    )
    trainer = ActiveTrainer(
        model_init=make,
        args=ActiveTrainingArguments(
            output_dir=str(tmp_path),
            num_rounds=2,
            initial_size=2,
            query_size=3,
            max_steps=1,
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            acquisition_kwargs={"num_perturbations": 2},
        ),
        train_dataset=ready.pool,
        eval_dataset=ready.eval_dataset,
        data_collator=TASKS[task].collator(tiny_tokenizer),
        observable=TASKS[task].observable,
    )
    trainer.train()
    assert [record.num_labeled for record in trainer.history] == [2, 5]
    assert np.isfinite(trainer.history[1].metrics["eval_loss"])
    shown = (tmp_path / "queries" / "round-01.jsonl").read_text()
    assert '"text": "a ' in shown or '"text": "the ' in shown or '"text": "poor ' in shown


def test_what_stands_for_a_missing_class_in_a_list_is_no_class(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="of the pool, row 1: '-100' stands for a missing label"):
        prepare_texts(tiny_tokenizer, [["a", "b"], ["a", "-100"]])


def test_an_input_called_as_labels_are_is_read_and_shown(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_dict({"labels": TEXTS, "label": TEXTS, "label (column)": TEXTS, "kind": ["a", "b", "a", "b"]})
    arguments = DataArguments(dataset_name="x", text_column="labels")
    ready = TASKS["text_classification"].prepare(rows, rows, tiny_tokenizer, arguments, label_column="kind")
    assert ready.pool["labels"][:] == [0, 1, 0, 1]
    assert ready.pool["labels (column)"][:] == ready.pool["label (column) (column)"][:] == TEXTS
    assert ready.pool["input_ids"][0] == tiny_tokenizer(TEXTS[0])["input_ids"]
