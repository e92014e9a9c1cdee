"""Texts as tokens: those of which a tokenizer makes none, as GPT-2's does of an empty text, in data and in runs."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

from hf_noise_al.commands.main import main
from hf_noise_al.commands.prepare import prepare
from hf_noise_al.settings.arguments import DataArguments
from hf_noise_al.settings.parsing import parse
from hf_noise_al.tasks import TASKS, Prepared
from hf_noise_al.tasks.token_batches import padding_collator

END = "<|endoftext|>"
ALPHABET = {symbol: number for number, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def bytes_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes that adds no token of its own, as GPT-2's does."""
    vocabulary = {**ALPHABET, END: 256, "<pad>": 257, "<unk>": 258, "<s>": 259}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def words_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of words, to which spaces are nothing."""
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "dog": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def read(tokenizer: PreTrainedTokenizerFast, texts: list[str], pairs: list[str] | None = None) -> Prepared:
    columns = {"text": texts} if pairs is None else {"sentence1": texts, "sentence2": pairs}
    pool = Dataset.from_dict({**columns, "label": [row % 2 for row in range(len(texts))]})
    return TASKS["text_classification"].prepare(pool, pool, tokenizer, DataArguments(dataset_name="x"))


@pytest.mark.parametrize(
    ("special", "token"),
    [
        ({"bos_token": "<s>", "eos_token": END}, 259),
        ({"eos_token": END, "pad_token": "<pad>"}, 256),
        ({"bos_token": END, "eos_token": END, "unk_token": END}, 256),
        ({"bos_token": "<pad>", "eos_token": END, "pad_token": "<pad>"}, 256),  # models look for what is no padding
        ({"eos_token": "<pad>", "pad_token": "<pad>", "unk_token": "<unk>"}, 258),
        ({"pad_token": "<pad>"}, 257),
    ],
)
def test_a_text_without_any_token_gets_one_that_is_attended_to(
    special: dict[str, str], token: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "hf_noise_al"):
        ready = read(bytes_tokenizer(**special), ["ab", "", "c", ""])
    for part in (ready.pool, ready.evaluation[""]):
        assert part["input_ids"][:] == [[ALPHABET["a"], ALPHABET["b"]], [token], [ALPHABET["c"]], [token]]
        assert part["attention_mask"][:] == [[1, 1], [1], [1], [1]]
    assert caplog.text.count("2 of 4 rows hold no token, as row 1 does: each gets one, ") == 2


def test_texts_of_spaces_alone_and_pairs_get_a_token_where_they_have_none() -> None:
    ready = read(words_tokenizer(), ["dog", "", "  \n", "\t"])
    assert ready.pool["input_ids"][:] == [[2], [1], [1], [1]]
    assert all(len(ids) == len(kinds) for ids, kinds in zip(ready.pool["input_ids"], _kinds(ready.pool), strict=True))
    pairs = read(words_tokenizer(), ["dog", "", " ", "dog"], ["", "", "dog", "dog"])
    assert pairs.pool["input_ids"][:] == [[2], [1], [2], [2, 2]]
    assert [len(row) for row in _kinds(pairs.pool)] == [1, 1, 1, 2]


def _kinds(part: Dataset) -> list[Any]:
    return list(part["token_type_ids" if "token_type_ids" in part.column_names else "attention_mask"])


def test_a_tokenizer_without_any_token_to_put_there_refuses_the_row() -> None:
    with pytest.raises(
        ValueError, match="In the pool: Column `text`, row 2: the tokenizer makes no token of ''.*Fill or remove"
    ):
        read(bytes_tokenizer(), ["a", "b", ""])


# ---- runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe for a GPT-2 of a few kilobytes on texts of which two thirds are empty."""
    tokenizer = bytes_tokenizer(bos_token=END, eos_token=END, unk_token=END)
    tokenizer.save_pretrained(tmp_path / "model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 32, "vocab_size": 260}
        config = GPT2Config(**sizes, num_labels=2, pad_token_id=256, bos_token_id=256, eos_token_id=256)
        GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "model")
    texts = [f"text {row}" if row % 3 == 0 else "" for row in range(36)]
    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"])})
    rows = Dataset.from_dict({"text": texts, "label": [row % 2 for row in range(36)]}, features=kinds)
    rows.to_parquet(tmp_path / "texts.parquet")
    settings = [
        *(f"dataset_name: {tmp_path}/texts.parquet", f"model_name_or_path: {tmp_path}/model", "num_rounds: 2"),
        *("initial_size: 4", "query_size: 4", "acquisition_kwargs: {num_perturbations: 2}", "max_steps: 1"),
        *("per_device_eval_batch_size: 2", "use_cpu: true", "disable_tqdm: true", "report_to: none"),
        *("save_strategy: 'no'", f"output_dir: {tmp_path}/run"),
    ]
    (tmp_path / "recipe.yaml").write_text("\n".join(settings))
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize("method", ["finite_difference", "gradient_sketch"])
def test_queries_look_at_batches_of_empty_texts_alone(method: str, recipe: Path, tmp_path: Path) -> None:
    trainer = prepare(*parse(recipe, [f'--acquisition_kwargs={{"estimator": "{method}"}}'])).trainer
    trainer.train()
    assert [record.num_labeled for record in trainer.history] == [4, 8]
    assert all(torch.isfinite(torch.tensor(list(record.metrics.values()))).all() for record in trainer.history)


def test_an_empty_text_looks_the_same_beside_any_other(recipe: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(recipe.parent / "model")
    collate, rows = padding_collator(tokenizer), list(read(tokenizer, ["some text", ""]).pool.remove_columns("text"))
    model = GPT2ForSequenceClassification.from_pretrained(recipe.parent / "model").eval()
    with torch.no_grad():
        alone, beside = model(**collate(rows[1:])).logits[0], model(**collate(rows)).logits[1]
    torch.testing.assert_close(alone, beside)


def test_a_trained_model_is_asked_about_empty_texts(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n' * 7)
    words = ["query", str(recipe), "--dataset_name", str(tmp_path / "empty.jsonl"), "--initial_size", "1"]
    assert main([*words, "--query_size", "2"]) == 0
    found = capsys.readouterr()
    assert "2 of 7 rows, best first" in found.out
    assert f"7 of 7 rows hold no token, as row 0 does: each gets one, {END}" in found.err
