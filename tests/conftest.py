"""What every test stands on: no network, a model of a few kilobytes and texts it can learn."""

import gc
import logging
import os
import tempfile

_HF_HOME = tempfile.TemporaryDirectory(prefix="hf-noise-al-tests-")  # no test reads a cache of this machine
os.environ.update(
    HF_HOME=_HF_HOME.name,
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
)

os.environ.setdefault("OMP_NUM_THREADS", "1")  # these models are too small for a second thread to help
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # where a test asks for two, they must not spin while they wait

from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from datasets import (  # noqa: E402
    ClassLabel,
    Dataset,
    Features,
    Value,
    arrow_dataset,
)
from datasets.fingerprint import generate_random_fingerprint  # noqa: E402
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors  # noqa: E402
from transformers import (  # noqa: E402
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    set_seed,
)

pytest.register_assert_rewrite("hf_noise_al.testing")

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = "a the film book cat dog is was very not fine poor and or bad good".split()

# What costs much in every run of the tests and changes nothing that a test can see. No test pulls the plug, so nothing
# need reach the disk itself; and a data set made in memory is never looked up in a cache by the hash of its rows.
os.fsync = lambda _: None
arrow_dataset.generate_fingerprint = lambda _: generate_random_fingerprint()


LONG_FILES = (
    "distributed/test_processes.py",
    "distributed/test_sharded.py",
    "trainer/test_resume.py",
    "trainer/test_trainer.py",
    "test_notebooks.py",
    "test_readme.py",
    "recipes/test_benchmarks.py",
    "tasks/test_segmentation.py",
    "recipes/test_recipes.py",
    "rounds/test_every_setting.py",
    "distributed/test_tasks_on_processes.py",
    "distributed/test_shards.py",
)
"""Files of ten seconds and more, the longest first: begun at the end, they would keep one process waiting."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of long files first; those of one file stay together, in their order."""
    tests = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(tests).as_posix() if item.path.is_relative_to(tests) else ""
        return LONG_FILES.index(name) if name in LONG_FILES else len(LONG_FILES)

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Let no garbage collection, of which accelerate asks for one at each training, walk through all the modules."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def own_garbage() -> None:
    """Let none walk through what the test files before have imported, either."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_precision() -> Iterator[None]:
    """Let no test's precision reach the next: transformers 4.57 leaves a run's `bf16` in the environment."""
    yield
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)


@pytest.fixture(autouse=True)
def own_log_level() -> None:
    """Let each test see warnings and no less, whatever log level the trainer of the test before was made with."""
    logging.getLogger("hf_noise_al").setLevel(logging.NOTSET)
    logging.getLogger("transformers").setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A BERT-like WordPiece tokenizer whose vocabulary is `WORDS`, the letters and their continuations."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [*SPECIAL_TOKENS, *WORDS, *(piece for letter in letters for piece in (letter, f"##{letter}"))]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@pytest.fixture(scope="session")
def tiny_bert_config(tiny_tokenizer: PreTrainedTokenizerFast) -> BertConfig:
    """Two layers of sixteen numbers, without dropout."""
    return BertConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tiny_tokenizer.pad_token_id,
    )


@pytest.fixture(scope="session")
def tiny_bert_folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast, tiny_bert_config: BertConfig
) -> Path:
    """A folder as `save_pretrained` leaves it: a BERT of a few kilobytes with its tokenizer, always the same."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    with torch.random.fork_rng():
        set_seed(0)
        BertForSequenceClassification(tiny_bert_config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_texts() -> Callable[..., Dataset]:
    """Return a factory of data sets with the columns `text` and `label` (a ClassLabel), learnable and repeatable.

    One word of each text tells its class; texts are unlike in length, so that batches are ragged.
    """

    def make(num_rows: int, num_labels: int = 2, seed: int = 0, label_column: str = "label") -> Dataset:
        generator = np.random.default_rng(seed)
        telling = [WORDS[-1 - label] for label in range(num_labels)]
        fillers = WORDS[: len(WORDS) - num_labels]
        labels = generator.integers(num_labels, size=num_rows).tolist()
        texts = []
        for label in labels:
            words = generator.choice(fillers, size=int(generator.integers(2, 12))).tolist()
            words.insert(int(generator.integers(len(words) + 1)), telling[label])
            texts.append(" ".join(words))
        names = [f"class {label}" for label in range(num_labels)]
        features = Features({"text": Value("string"), label_column: ClassLabel(names=names)})
        return Dataset.from_dict({"text": texts, label_column: labels}, features=features)

    return make
