"""Words with one tag each: labels by word, tags on the first token of a word, refusals before training, whole runs."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Sequence as SequenceFeature
from tiny_run import read_state
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForTokenClassification,
    BertConfig,
    BertForTokenClassification,
    GPT2TokenizerFast,
    PreTrainedTokenizerFast,
)

from hf_noise_al import ActiveTrainer, ActiveTrainingArguments, LabelFile
from hf_noise_al.commands.main import main
from hf_noise_al.experiments.learning_curve import LearningCurve
from hf_noise_al.loading.models import model_factory
from hf_noise_al.pool.label_reader import parse_tags
from hf_noise_al.pool.pool_dataset import PoolDataset
from hf_noise_al.settings.arguments import DataArguments, ModelArguments
from hf_noise_al.tasks import TASKS, Prepared
from hf_noise_al.tasks.words.tags import TAGS, TagTargets
from hf_noise_al.tasks.words.word_tokens import word_processor, word_starts

TASK = TASKS["token_classification"]
NAMES = ["O", "B-PER", "I-PER", "B-LOC"]
TAG_LISTS = SequenceFeature(ClassLabel(names=NAMES))
SENTENCES = [["the", "dog", "rex", "was", "good"], ["a", "film"], ["paris", "is", "fine"], ["bad", "cat", "tom"]]
TAGGED = [[0, 0, 1, 0, 0], [0, 0], [3, 0, 0], [0, 0, 1]]


def rows_of(tags: list[Any], words: list[Any] | None = None, kind: Any = TAG_LISTS, column: str = "tags") -> Dataset:
    words = [SENTENCES[row % 4] for row in range(len(tags))] if words is None else words
    types = Features({"tokens": SequenceFeature(Value("string")), column: kind}) if kind is not None else None
    return Dataset.from_dict({"tokens": words, column: tags}, features=types)


def prepare(
    tokenizer: PreTrainedTokenizerFast, tags: list[Any], evaluation: Dataset | None = None, **settings: Any
) -> Prepared:
    options = {name: settings.pop(name) for name in ("words", "kind") if name in settings}
    return TASK.prepare(
        rows_of(tags, **options),
        rows_of(TAGGED) if evaluation is None else evaluation,
        tokenizer,
        DataArguments(dataset_name="x", **settings),
    )


# ---- labels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "kind", "names"),
    [
        (TAGGED, SequenceFeature(ClassLabel(names=NAMES)), NAMES),
        ([[NAMES[tag] for tag in row] for row in TAGGED], None, ["B-LOC", "B-PER", "O"]),
    ],
)
def test_the_label_of_a_row_is_one_class_number_for_each_word(
    tiny_tokenizer: PreTrainedTokenizerFast, tags: list[Any], kind: Any, names: list[str]
) -> None:
    evaluation = rows_of(tags, kind=kind)
    ready = prepare(tiny_tokenizer, [*tags, None], evaluation, kind=kind)
    assert isinstance(ready.targets, TagTargets) and ready.targets.problem_type == TAGS
    assert list(ready.targets.class_names) == names
    expected = [[names.index(NAMES[tag]) for tag in row] for row in TAGGED]
    assert ready.pool["labels"][:] == [*expected, None]
    assert ready.evaluation[""]["labels"][:] == expected
    assert ready.pool.features["labels"] == SequenceFeature(ClassLabel(names=names))
    head = ready.targets.head()
    assert head["problem_type"] is None and head["id2label"][0] == names[0] and head["num_labels"] == len(names)


def test_numbers_index_the_classes_that_are_named(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    plain = SequenceFeature(Value("int64"))
    ready = prepare(tiny_tokenizer, TAGGED, rows_of(TAGGED, kind=plain), kind=plain, class_names=NAMES)
    assert (list(ready.targets.class_names), ready.pool["labels"][:]) == (NAMES, TAGGED)
    unnamed = prepare(tiny_tokenizer, TAGGED, rows_of(TAGGED, kind=plain), kind=plain)
    assert list(unnamed.targets.class_names) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("missing", [None, [], [-100, -100], [-1, -1]])
def test_a_sentence_without_tags_stays_unlabeled(
    tiny_tokenizer: PreTrainedTokenizerFast, missing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "hf_noise_al"):
        ready = prepare(tiny_tokenizer, [TAGGED[0], missing])
    assert ready.pool["labels"][:] == [TAGGED[0], None]
    assert "1 of 2 rows of the pool have no tags yet" in caplog.text
    assert PoolDataset(ready.pool).labels == [TAGGED[0], None]


@pytest.mark.parametrize(
    ("column", "tags"), [("ner_tags", "tags"), ("tags", "labels"), ("labels", "label")], ids=lambda name: name
)
def test_the_label_column_is_found_by_its_name(tiny_tokenizer: PreTrainedTokenizerFast, column: str, tags: str) -> None:
    rows = rows_of(TAGGED, column=column).add_column(tags, [[9]] * 4)
    ready = TASK.prepare(rows, rows, tiny_tokenizer, DataArguments(dataset_name="x"))
    assert ready.pool["labels"][:] == TAGGED


@pytest.mark.parametrize(
    ("tags", "settings", "message"),
    [
        ([[0, 0], [0, 0]], {}, "Row 0 of the pool has 2 tags for the 5 words of `tokens`. Give one tag for each word"),
        (
            [TAGGED[0], [0, 9]],
            {"kind": SequenceFeature(Value("int64")), "class_names": NAMES},
            "row 1: the tag of word 1: 9 is not a known class",
        ),
        ([TAGGED[0], [0, None]], {}, "row 1: the tag of word 1: None stands for a missing label"),
        ([[0, 1, -100, 0, 0]], {}, "row 0: the tag of word 2: -100 stands for a missing label"),
        (
            [["O", "O", "B-PRE", "O", "O"]],
            {"kind": None, "class_names": NAMES},
            r"`tags` of the pool, row 0: the tag of word 2: 'B-PRE' is not a known class. Did you mean 'B-PER'\?",
        ),
        ([1, 2], {"kind": None}, "row 0: found 1, not a list of tags. Store a list with one tag for each word"),
        ([[]], {"words": [[]]}, "Column `tokens` of the pool is not a list of words in row 0: found no words"),
        ([[0], [0]], {"words": [["a"], None]}, "is not a list of words in row 1: found no words. Split texts"),
        (TAGGED, {"text_column": "tags"}, "Column `tags` of the pool is not a list of words in row 0: found"),
        ([[0, 1]], {"words": [["\u200b", ""]]}, "finds nothing in row 0: none of its words in `tokens` has a token"),
    ],
)
def test_what_cannot_be_tagged_is_refused_with_its_row(
    tiny_tokenizer: PreTrainedTokenizerFast, tags: list[Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(tiny_tokenizer, tags, **settings)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([["a"], []], "Column `tokens` of {place} is not a list of words in row 1: found no words"),
        ([["a"], ["", ""]], "In {place}: The tokenizer finds nothing in row 1: none of its words in `tokens` has a"),
    ],
)
def test_rows_without_words_are_refused_wherever_they_are(
    tiny_tokenizer: PreTrainedTokenizerFast, words: list[Any], message: str
) -> None:
    bad = rows_of([[0], [0] * len(words[1])], words)
    with pytest.raises(ValueError, match=message.format(place="the evaluation set")):
        prepare(tiny_tokenizer, TAGGED, bad)
    config = BertConfig(num_labels=4, id2label=dict(enumerate(NAMES)))
    with pytest.raises(ValueError, match=message.format(place="the pool")):
        TASK.prepare_query(bad, tiny_tokenizer, DataArguments(dataset_name="x"), config)


def test_texts_that_are_not_split_are_refused(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_dict({"tokens": ["the dog", "a cat"], "tags": [[0, 1], [0, 1]]})
    with pytest.raises(ValueError, match="not a list of words in row 0: found 'the dog'. Split texts into words"):
        TASK.prepare(rows, rows, tiny_tokenizer, DataArguments(dataset_name="x"))
    two = Dataset.from_dict({"left": SENTENCES, "right": SENTENCES, "tags": TAGGED})
    with pytest.raises(ValueError, match="which column has the words of a sentence. Set `text_column` to one of: left"):
        TASK.prepare(two, two, tiny_tokenizer, DataArguments(dataset_name="x"))


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([TAGGED[0], None], "the evaluation set has no tags in row 1 .*name another `eval_split`"),
        ([[0, 0, 0]], "Row 0 of the evaluation set has 3 tags for the 5 words"),
    ],
)
def test_evaluation_rows_are_checked_too(
    tiny_tokenizer: PreTrainedTokenizerFast, tags: list[Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(tiny_tokenizer, TAGGED, rows_of(tags))


def test_one_class_is_nothing_to_tell_apart(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rows = rows_of([["O"] * 5], kind=None)
    with pytest.raises(ValueError, match=r"has 1 class of tags \(O\): nothing to tell apart"):
        TASK.prepare(rows, rows, tiny_tokenizer, DataArguments(dataset_name="x"))


# ---- what annotators give --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([0, 1], [0, 1]),
        (["O", "B-LOC"], [0, 3]),
        (["O", 2], [0, 2]),
        (np.array([0, 1]), [0, 1]),
        ((0.0, 3.0), [0, 3]),
    ],
)
def test_annotators_give_numbers_or_names_and_the_state_keeps_numbers(
    tiny_tokenizer: PreTrainedTokenizerFast, given: Any, kept: list[int]
) -> None:
    data = PoolDataset(prepare(tiny_tokenizer, [None] * 4).pool)
    assert data.parse_labels([1], [given], 4) == [kept]
    assert json.dumps(data.parse_labels([1], [given], 4)) == json.dumps([kept])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([0], "Cannot label row 1: found 1 tags for 2 words. Give one tag for each word."),
        ([], "Cannot label row 1: found 0 tags for 2 words"),
        ("B-PER", "Cannot label row 1: 'B-PER' is not a list of tags"),
        (1, "Cannot label row 1: 1 is not a list of tags"),
        ([0, 4], "Cannot label row 1: the tag of word 1: 4 is not a known class. Classes are O, B-PER"),
        ([0, 0.5], "the tag of word 1: 0.5 is not a known class"),
        ([True, 0], "the tag of word 0: True is not a known class"),
        (["O", "PER"], "the tag of word 1: 'PER' is not a known class. Did you mean 'I-PER'"),
        ([0, None], "the tag of word 1: None stands for a missing label"),
        ([0, float("nan")], "the tag of word 1: nan stands for a missing label"),
    ],
)
def test_what_annotators_may_not_give_is_refused_with_the_row(
    tiny_tokenizer: PreTrainedTokenizerFast, given: Any, message: str
) -> None:
    data = PoolDataset(prepare(tiny_tokenizer, [None] * 4).pool)
    with pytest.raises(ValueError, match=message):
        data.parse_labels([1], [given], 4)


def test_a_row_that_is_not_in_the_pool_is_refused_as_such(
    tiny_ner_folder: Path, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    trainer = trainer_of(tiny_ner_folder, tmp_path, tiny_tokenizer, ready_of(tiny_tokenizer, pool_of(4)))
    with pytest.raises(ValueError, match="Cannot label row 9: rows of this pool are the integers 0 to 3"):
        trainer.annotate([9], [[0, 1]])


def test_tags_without_known_length_are_taken_as_they_are() -> None:
    assert parse_tags(["b"], ["a", "b"], None) == [1]


# ---- tokens --------------------------------------------------------------------------------------------------------


def test_a_word_begins_at_its_first_token() -> None:
    assert word_starts([None, 0, 0, 1, 2, 2, None]) == [-1, 0, -1, 1, 2, -1, -1]
    assert word_starts([]) == []


def test_the_first_token_of_a_word_gets_its_tag(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ready = prepare(tiny_tokenizer, TAGGED)
    row = ready.pool[0]
    assert tiny_tokenizer.convert_ids_to_tokens(row["input_ids"]) == "[CLS] the dog r ##e ##x was good [SEP]".split()
    assert row["word_starts"] == [-1, 0, 1, 2, -1, -1, 3, 4, -1]
    assert row["num_words"] == 5
    batch = TASK.collator(tiny_tokenizer)(model_rows(ready.pool.select([0, 1])))
    assert batch["labels"].tolist() == [
        [-100, 0, 0, 1, -100, -100, 0, 0, -100],
        [-100, 0, 0, -100, -100, -100, -100, -100, -100],
    ]
    assert set(batch) == {"input_ids", "token_type_ids", "attention_mask", "labels"}


def model_rows(rows: Dataset, *without: str) -> list[dict[str, Any]]:
    return list(rows.remove_columns(["tokens", "num_words", *without]))


def test_rows_of_a_query_say_where_words_begin_and_nothing_about_tags(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ready = prepare(tiny_tokenizer, TAGGED)
    batch = TASK.collator(tiny_tokenizer)(model_rows(ready.pool.select([0, 1]), "labels"))
    assert batch["word_starts"].tolist()[1] == [-1, 0, 1, -1, -1, -1, -1, -1, -1]
    other = prepare(tiny_tokenizer, [[3] * 5, [3] * 2])
    again = TASK.collator(tiny_tokenizer)(model_rows(other.pool, "labels"))
    assert all(torch.equal(batch[name], again[name]) for name in batch) and "labels" not in batch


def test_padding_on_the_left_keeps_tags_with_their_tokens(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ready = prepare(tiny_tokenizer, TAGGED)
    left = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer.backend_tokenizer, pad_token="[PAD]", padding_side="left"
    )
    batch = TASK.collator(left)(model_rows(ready.pool.select([0, 1])))
    assert batch["labels"].tolist()[1] == [-100] * 6 + [0, 0, -100]
    assert batch["attention_mask"].tolist()[1] == [0] * 5 + [1] * 4


def test_words_beyond_the_length_are_left_out_and_told(
    tiny_tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "hf_noise_al"):
        ready = prepare(tiny_tokenizer, TAGGED, max_seq_length=4)
    assert ready.pool[0]["word_starts"] == [-1, 0, 1, -1] and ready.pool[0]["num_words"] == 5
    assert "of 13 words, in " in caplog.text and "neither learned nor measured" in caplog.text
    batch = TASK.collator(tiny_tokenizer)(model_rows(ready.pool))
    assert batch["labels"][0].tolist() == [-100, 0, 0, -100]


def test_rows_without_word_starts_are_refused(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="Rows have no column `word_starts`, only input_ids. Prepare the data"):
        TASK.collator(tiny_tokenizer)([{"input_ids": [1, 2]}])


def test_byte_level_tokenizers_see_words_with_the_space_in_front(tmp_path: Path) -> None:
    letters = [*"abcdefgh", "\u0120"]
    vocabulary = {piece: number for number, piece in enumerate([*letters, "\u0120a", "<|endoftext|>"])}
    backend = Tokenizer(models.BPE(vocabulary, [("\u0120", "a")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    GPT2TokenizerFast(tokenizer_object=backend, vocab=vocabulary, merges=[("\u0120", "a")]).save_pretrained(tmp_path)
    model = ModelArguments(model_name_or_path=str(tmp_path))
    tokenizer = word_processor(model, DataArguments(dataset_name="x"), rows_of(TAGGED))
    found = tokenizer([["a", "b"]], is_split_into_words=True)
    assert tokenizer.convert_ids_to_tokens(found["input_ids"][0]) == ["\u0120a", "\u0120", "b"]
    assert word_starts(found.word_ids(0)) == [0, 1, -1]


def test_a_tokenizer_that_does_not_know_words_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        is_fast = False

    monkeypatch.setattr("hf_noise_al.tasks.words.word_tokens.load_tokenizer", lambda model: Slow())
    with pytest.raises(ValueError, match="Slow cannot tell which tokens belong to a word. Name a model with a fast"):
        word_processor(ModelArguments(model_name_or_path="x"), DataArguments(dataset_name="x"), rows_of(TAGGED))


# ---- with the trainer ----------------------------------------------------------------------------------------------


def pool_of(size: int, seed: int = 0) -> Dataset:
    """Return sentences in which the name after `the` is a person, unlike in length."""
    generator = np.random.default_rng(seed)
    words, tags = [], []
    for _ in range(size):
        before, after = generator.choice(["dog", "cat", "film", "good", "was"], (2, int(generator.integers(1, 6))))
        words.append([*before, "the", *generator.choice(["tom", "rex", "ann"], 1), *after])
        tags.append([0] * len(before) + [0, 1] + [0] * len(after))
    return rows_of([[int(t) for t in row] for row in tags], [list(map(str, row)) for row in words])


@pytest.fixture(scope="module")
def tiny_ner_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("tiny-ner")
    config = BertConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        problem_type="multi_label_classification",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForTokenClassification(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def trainer_of(
    folder: Path,
    output: Path,
    tokenizer: PreTrainedTokenizerFast,
    ready: Prepared,
    annotator: Any = None,
    **arguments: Any,
) -> ActiveTrainer:
    make = model_factory(
        ModelArguments(model_name_or_path=str(folder)), AutoModelForTokenClassification, ready.targets.head()
    )
    settings = {"num_rounds": 2, "initial_size": 4, "query_size": 3, "max_steps": 2, "save_strategy": "no"}
    return ActiveTrainer(
        model_init=make,
        args=ActiveTrainingArguments(str(output), use_cpu=True, disable_tqdm=True, **{**settings, **arguments}),
        train_dataset=ready.pool,
        eval_dataset=ready.eval_dataset,
        data_collator=TASK.collator(tokenizer),
        observable=TASK.observable,
        compute_metrics=TASK.load_metrics(["seqeval"], ready.targets),
        preprocess_logits_for_metrics=TASK.preprocess_logits,
        annotator=annotator,
    )


def ready_of(tokenizer: PreTrainedTokenizerFast, pool: Dataset) -> Prepared:
    return TASK.prepare(pool, pool_of(6, seed=1), tokenizer, DataArguments(dataset_name="x"))


def test_tags_are_revealed_by_queries_and_kept_word_by_word(
    tiny_ner_folder: Path, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    pool = pool_of(14)
    trainer = trainer_of(tiny_ner_folder, tmp_path, tiny_tokenizer, ready_of(tiny_tokenizer, pool))
    trainer.train()
    assert [record.num_labeled for record in trainer.history] == [4, 7]
    assert set(trainer.history[1].metrics) == {"eval_f1", "eval_precision", "eval_recall", "eval_accuracy", "eval_loss"}
    state = read_state(tmp_path)
    kept = {entry["row"]: entry["label"] for entry in state["annotations"]}
    assert kept == {row: pool["tags"][row] for row in kept} and len(kept) == 7
    line = json.loads((tmp_path / "queries" / "round-01.jsonl").read_text().splitlines()[0])
    assert line["tokens"] == pool["tokens"][line["row"]] and line["label"] == [
        NAMES[tag] for tag in pool["tags"][line["row"]]
    ]
    trainer.save_model(str(tmp_path / "saved"))
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path / "saved").eval()
    assert loaded.config.problem_type is None and loaded.config.id2label == dict(enumerate(NAMES))
    inputs = tiny_tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, trainer.model.eval()(**inputs).logits)


def test_a_query_never_sees_tags(
    tiny_ner_folder: Path, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """The same picks and scores, whatever the tags of unlabeled rows are."""
    pool = pool_of(14)
    other = rows_of([[3] * len(row) for row in pool["tags"]], pool["tokens"][:])
    found = []
    for number, rows in enumerate((pool, other)):
        ready = TASK.prepare(rows, pool_of(6, 1), tiny_tokenizer, DataArguments(dataset_name="x"))
        trainer = trainer_of(tiny_ner_folder, tmp_path / str(number), tiny_tokenizer, ready)
        found.append(trainer.query(5))
    assert torch.equal(found[0].indices, found[1].indices) and torch.equal(found[0].scores, found[1].scores)


def test_people_fill_in_names_of_tags_and_mistakes_are_refused_with_the_row(
    tiny_ner_folder: Path, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    pool = pool_of(10)
    hidden = rows_of([None] * 10, pool["tokens"][:])
    answers = [[NAMES[tag] for tag in row] for row in pool["tags"]]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"row": r, "label": [*row, "O"]}) + "\n" for r, row in enumerate(answers)))
    ready = ready_of(tiny_tokenizer, hidden)
    trainer = trainer_of(tiny_ner_folder, tmp_path / "run", tiny_tokenizer, ready, LabelFile(path))
    with pytest.raises(ValueError, match=r"Cannot label row \d+: found \d+ tags for \d+ words"):
        trainer.train()
    path.write_text("".join(json.dumps({"row": r, "label": row}) + "\n" for r, row in enumerate(answers)))
    trainer.train(resume_from_checkpoint=True)
    assert all(annotation.label == pool["tags"][annotation.row] for annotation in trainer.pool.annotations)
    assert trainer.pool.num_labeled == 7


def test_rows_can_be_predicted_without_their_tags(
    tiny_ner_folder: Path, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    ready = ready_of(tiny_tokenizer, pool_of(10))
    trainer = trainer_of(tiny_ner_folder, tmp_path, tiny_tokenizer, ready)
    labeled = trainer.predict(ready.evaluation[""])
    bare = trainer.predict(ready.evaluation[""].remove_columns("labels"))
    there = labeled.label_ids != -100
    assert np.array_equal(labeled.predictions[there], bare.predictions[there])


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command_trains_in_rounds_and_queries_with_what_it_trained(
    tiny_ner_folder: Path, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {name: pool_of(size, seed).rename_column("tags", "ner_tags") for seed, (name, size) in enumerate(SPLITS)}
    DatasetDict(data).save_to_disk(tmp_path / "data")
    recipe = tmp_path / "ner.yaml"
    recipe.write_text(
        f"task: token_classification\ndataset_name: {tmp_path}/data\nmodel_name_or_path: {tiny_ner_folder}\n"
        f"output_dir: {tmp_path}/run\nnum_rounds: 2\ninitial_size: 4\nquery_size: 3\nmax_steps: 2\nuse_cpu: true\n"
        "save_strategy: 'no'\nreport_to: none\ndisable_tqdm: true\n"
    )
    assert main(["run", str(recipe)]) == 0
    curve = LearningCurve.load(tmp_path / "run")
    assert (curve.metric, curve.num_labeled) == ("eval_f1", (4, 7))
    assert "pipeline_tag: token-classification" in (tmp_path / "run" / "README.md").read_text()

    asked = ["query", str(recipe), "--model_name_or_path", f"{tmp_path}/run", "--output_dir", f"{tmp_path}/next"]
    assert main(asked) == 0
    lines = [json.loads(line) for line in (tmp_path / "next" / "queries" / "round-00.jsonl").read_text().splitlines()]
    known = {a["row"] for a in read_state(tmp_path / "run")["annotations"]}
    assert len(lines) == 3 and not known & {line["row"] for line in lines}
    assert all(line["label"] is None and line["tokens"] for line in lines)


SPLITS = (("train", 16), ("validation", 6))


def test_a_pool_without_any_tags_is_queried_by_a_trained_model(
    tiny_ner_folder: Path, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    ready = ready_of(tiny_tokenizer, pool_of(8))
    trainer = trainer_of(tiny_ner_folder, tmp_path, tiny_tokenizer, ready)
    bare = pool_of(8).remove_columns("tags")
    config = trainer.model.config
    found = TASK.prepare_query(bare, tiny_tokenizer, DataArguments(dataset_name="x"), config)
    assert (list(found.targets.class_names), found.pool["labels"][:]) == (NAMES, [None] * 8)
    named = TASK.prepare_query(
        rows_of([["B-X", "O"]], [["a", "b"]], None), tiny_tokenizer, DataArguments(dataset_name="x"), config
    )
    assert named.targets.class_names == ("B-X", "O")


def test_what_stands_for_a_missing_tag_is_no_class(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    for missing in ("-100", " ", "-1"):
        tags = [["O", missing, "B-PER", "O", "O"], ["O", "O"]]
        with pytest.raises(ValueError, match=f"row 0: the tag of word 1: '{missing}' stands for a missing label"):
            prepare(tiny_tokenizer, tags, kind=None)
