"""Rows of sentences: one width, the mean over words, the same whatever stands beside the words."""

from collections.abc import Mapping
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForTokenClassification

from hf_noise_al import ActiveTrainingArguments, features, word_probabilities
from hf_noise_al.acquisition import (
    BADGE,
    BALD,
    Acquisition,
    Candidates,
    CoreSet,
    EntropySampling,
    LeastConfidence,
    MarginSampling,
    NoiseStability,
)
from hf_noise_al.acquisition.uncertainty import entropy, least_confidence, margin
from hf_noise_al.observables.base import Observable, mean_where, probabilities
from hf_noise_al.observables.parts import mean_over_parts
from hf_noise_al.observables.words import NUM_SIGNS
from hf_noise_al.run_folder.fingerprint import run_fingerprint
from hf_noise_al.testing import generator

CLASSES, HIDDEN = 3, 16
SIGNS_OF_TOKEN_5 = [1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0]


class Given(nn.Module):
    """A model that looks its probabilities up: the test writes them itself."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return SimpleNamespace(logits=self.table[input_ids].log())


def inputs_of(tokens: list[list[int]], starts: list[list[int]] | None = None) -> dict[str, Tensor]:
    """Pad on the right with token 0."""
    width = max(map(len, tokens))
    starts = [list(range(len(row))) for row in tokens] if starts is None else starts
    return {
        "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in tokens]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in tokens]),
        "word_starts": torch.tensor([row + [-1] * (width - len(row)) for row in starts]),
    }


def table(size: int = 400, seed: int = 0) -> Tensor:
    return torch.rand(size, CLASSES, generator=generator(seed), dtype=torch.float64).softmax(dim=1)


def rows_of(values: Tensor, tokens: list[list[int]], starts: list[list[int]] | None = None) -> Tensor:
    return word_probabilities(Given(values), inputs_of(tokens, starts))


def cosine(a: Tensor, b: Tensor) -> float:
    return float(nn.functional.cosine_similarity(a, b, dim=0))


# ---- the row of a sentence -----------------------------------------------------------------------------------------


def test_every_sentence_has_a_row_of_one_width() -> None:
    for tokens in ([[5]], [[5, 6, 7], [8]], [list(range(5, 60))]):
        rows = rows_of(table(), tokens)
        assert rows.shape == (len(tokens), NUM_SIGNS * CLASSES) and rows.dtype == torch.float64


def test_padding_and_the_rest_of_the_batch_have_no_say() -> None:
    alone = rows_of(table(), [[5, 6, 7]])[0]
    beside = rows_of(table(), [list(range(10, 40)), [5, 6, 7], [9]])[1]
    torch.testing.assert_close(beside, alone)


def test_tokens_that_begin_no_word_have_no_say() -> None:
    tokens, starts = [[1, 5, 11, 6, 7, 2]], [[-1, 0, -1, 1, 2, -1]]
    expected = rows_of(table(), tokens, starts)
    changed = table()
    changed[[1, 2, 11]] = torch.tensor([0.98, 0.01, 0.01]).double()
    assert torch.equal(rows_of(changed, tokens, starts), expected)
    torch.testing.assert_close(rows_of(table(), [[5, 6, 7]]), expected)


def test_the_length_of_a_deviation_is_the_mean_over_words_and_opposite_movements_do_not_cancel() -> None:
    tokens = [[*range(5 + start, 5 + start + 8)] for start in range(0, 320, 8)]
    values, moved = table(), table()
    moved[:, 0] += torch.where(torch.arange(400) % 2 == 0, 1e-3, -1e-3)  # in each sentence as many up as down
    moved[:, 1] -= torch.where(torch.arange(400) % 2 == 0, 1e-3, -1e-3)
    squared = (rows_of(moved, tokens) - rows_of(values, tokens)).square().sum(dim=1)
    assert float(squared.mean()) == pytest.approx(2e-6, rel=0.1)
    assert float(squared.std() / squared.mean()) < 0.3


def test_long_sentences_are_not_favored() -> None:
    values = torch.full((400, CLASSES), 0.05, dtype=torch.float64)
    values[:, 0] = 0.9
    lengths = [
        float(rows_of(values, [list(range(start, start + words))]).norm())
        for words in (1, 4, 16, 64)
        for start in range(5, 300, 70)
    ]
    expected = float(values[0].norm())
    assert all(abs(length / expected - 1) < 0.3 for length in lengths)
    assert abs(sum(lengths) / len(lengths) / expected - 1) < 0.1


def test_sentences_are_alike_where_the_same_words_move_alike_wherever_they_stand() -> None:
    sentence = list(range(20, 32))
    first, later, other = rows_of(table(), [sentence, [300, *sentence], list(range(100, 112))])
    assert cosine(first, later) > 0.8
    assert abs(cosine(first, other)) < 0.4


def test_a_word_that_is_repeated_counts_each_time() -> None:
    values = table()
    repeated, single = rows_of(values, [[7] * 40, [7]])
    assert float(repeated.norm()) == pytest.approx(float(single.norm()), rel=0.3)  # not sqrt(40) times as long


def test_the_signs_are_those_of_the_last_release() -> None:
    """Picks, and with them resumed runs, would change if these did."""
    signs = rows_of(table(), [[5]])[0, ::CLASSES].sign()
    assert signs[:10].tolist() == SIGNS_OF_TOKEN_5
    assert abs(float(signs.mean())) < 0.3


def test_without_word_starts_every_token_that_is_no_padding_counts() -> None:
    inputs = inputs_of([[5, 6, 7], [8]])
    expected = word_probabilities(Given(table()), inputs)
    del inputs["word_starts"]
    torch.testing.assert_close(word_probabilities(Given(table()), inputs), expected)


def test_lower_precision_does_not_reach_the_sum_over_words() -> None:
    inputs = inputs_of([[5, 6, 7]])
    with torch.autocast("cpu", torch.bfloat16):
        found = word_probabilities(Given(table().float()), inputs)
    torch.testing.assert_close(found, word_probabilities(Given(table().float()), inputs))
    assert found.dtype == torch.float32


def test_a_model_that_classifies_whole_rows_is_refused() -> None:
    model = Given(table())
    model.forward = lambda input_ids, attention_mask=None: SimpleNamespace(logits=torch.zeros(2, 3))  # type: ignore[method-assign]
    message = (
        r"need logits of shape \(batch, tokens, classes\) for \(2, 3\) tokens, found \(2, 3\)\. Use a model for token"
    )
    with pytest.raises(ValueError, match=message):
        word_probabilities(model, inputs_of([[5, 6, 7], [8]]))


def test_the_mean_of_a_score_is_over_words() -> None:
    inputs = inputs_of([[1, 5, 6, 2], [7]], [[-1, 0, 1, -1], [0]])
    found = mean_over_parts(word_probabilities, entropy)(Given(table()), inputs)
    expected = torch.stack([entropy(table()[[5, 6]]).mean(), entropy(table()[7])])
    torch.testing.assert_close(found, expected[:, None])


def test_the_mean_where_nothing_is_is_zero() -> None:
    assert mean_where(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)).tolist() == [0, 0]


# ---- acquisitions --------------------------------------------------------------------------------------------------

SIZE = 14


@pytest.fixture(scope="module")
def model() -> BertForTokenClassification:
    """Return a BERT whose outputs differ from word to word; it has dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=60,
            hidden_size=HIDDEN,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=24,
            num_labels=CLASSES,
            initializer_range=0.3,
        )
        return BertForTokenClassification(config).double().eval()


@pytest.fixture(scope="module")
def sentences() -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(1)
    lengths = torch.randint(2, 12, (SIZE,), generator=drawn).tolist()
    tokens = [[1, *torch.randint(5, 60, (length,), generator=drawn).tolist(), 2] for length in lengths]
    starts = [[-1, *[word // 2 if word % 2 == 0 else -1 for word in range(len(row) - 2)], -1] for row in tokens]
    return inputs_of(tokens, starts)


def candidates_of(model: nn.Module, inputs: Mapping[str, Tensor]) -> Candidates:
    def observe(observable: Observable, description: str = "") -> Tensor:
        with torch.no_grad():
            return observable(model, inputs)

    return Candidates(model, len(inputs["input_ids"]), observe, word_probabilities)


SKETCH = NoiseStability(estimator="gradient_sketch", num_projections=2048, num_output_projections=64)
FINITE = NoiseStability(estimator="finite_difference", num_perturbations=60, max_feature_dim=8192)


@pytest.mark.parametrize(
    "acquisition",
    [
        FINITE,
        SKETCH,
        NoiseStability(),
        NoiseStability(selection="k_means_plus_plus", estimator="finite_difference", num_perturbations=3),
        EntropySampling(),
        MarginSampling(),
        LeastConfidence(),
        CoreSet(),
    ],
    ids=lambda acquisition: type(acquisition).__name__,
)
def test_picks_are_distinct_and_weights_keep_every_bit(
    model: BertForTokenClassification, sentences: dict[str, Tensor], acquisition: Acquisition
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    query = acquisition.select(candidates_of(model, sentences), 6, generator())
    assert query.indices.unique().numel() == 6
    assert query.scores.shape == (SIZE,) and bool(torch.isfinite(query.scores).all()) and float(query.scores.std()) > 0
    for name, value in model.state_dict().items():
        assert torch.equal(value.view(torch.uint8), before[name].view(torch.uint8)), name


def test_finite_differences_and_the_sketch_see_the_same(
    model: BertForTokenClassification, sentences: dict[str, Tensor]
) -> None:
    candidates = candidates_of(model, sentences)
    finite, sketch = (method.deviations(candidates, generator()) for method in (FINITE, SKETCH))
    lengths = torch.stack([rows.norm(dim=1) for rows in (finite, sketch)])
    assert float(torch.corrcoef(lengths)[0, 1]) > 0.9
    above = torch.ones(SIZE, SIZE).triu(1).bool()
    distances = torch.stack([torch.cdist(rows, rows)[above] for rows in (finite, sketch)])
    assert float(torch.corrcoef(distances)[0, 1]) > 0.9


def test_auto_takes_the_sketch_and_says_why(
    model: BertForTokenClassification, sentences: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "hf_noise_al"):
        NoiseStability().select(candidates_of(model, sentences), 2, generator())
    assert (
        "takes the gradient sketch: every perturbed module is supported, and the number of backward passes, 8"
        in caplog.text
    )
    other = deepcopy(model)
    other.bert.embeddings.word_embeddings.max_norm = 100.0
    with caplog.at_level("INFO", "hf_noise_al"):
        NoiseStability(num_perturbations=2).select(candidates_of(other, sentences), 2, generator())
    assert (
        "takes finite differences: the gradient sketch has no rule for bert.embeddings.word_embeddings" in caplog.text
    )
    assert "an Embedding with `max_norm`" in caplog.text


@pytest.mark.parametrize(
    ("acquisition", "score"),
    [(EntropySampling(), entropy), (MarginSampling(), margin), (LeastConfidence(), least_confidence)],
)
def test_uncertainty_of_a_sentence_is_the_mean_over_its_words(
    model: BertForTokenClassification, sentences: dict[str, Tensor], acquisition: Acquisition, score: Any
) -> None:
    query = acquisition.select(candidates_of(model, sentences), 4, generator())
    with torch.no_grad():
        outputs = model(sentences["input_ids"], attention_mask=sentences["attention_mask"]).logits.softmax(-1)
    words = sentences["word_starts"] >= 0
    expected = torch.stack([score(row[there]).mean() for row, there in zip(outputs, words, strict=True)])
    torch.testing.assert_close(query.scores, expected)
    assert query.indices.tolist() == expected.argsort(descending=True)[:4].tolist()


def test_features_of_a_sentence_are_the_mean_over_its_words(
    model: BertForTokenClassification, sentences: dict[str, Tensor]
) -> None:
    with torch.no_grad():
        found = features(model, sentences)
        states = model.bert(sentences["input_ids"], attention_mask=sentences["attention_mask"]).last_hidden_state
    words = sentences["word_starts"] >= 0
    expected = torch.stack([row[there].mean(dim=0) for row, there in zip(states, words, strict=True)])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("acquisition", "why"),
    [
        (
            BADGE(),
            "BADGE takes the gradient of one answer per example, and this model answers for every part of it",
        ),
        (
            BALD(),
            "BALD compares the class probabilities of an example, and this model answers for every part of it",
        ),
    ],
)
def test_acquisitions_that_need_one_answer_refuse_sentences_before_any_pass(
    model: BertForTokenClassification, acquisition: Acquisition, why: str
) -> None:
    def observe(observable: Observable, description: str = "") -> Tensor:
        raise AssertionError("looked")

    with pytest.raises(
        ValueError, match=f"{why}, such as a word or a pixel\\. Use 'noise_stability', 'entropy', 'margin'"
    ):
        acquisition.select(Candidates(model, SIZE, observe, word_probabilities), 2, generator())


def test_probabilities_of_whole_rows_name_the_observable_of_words(
    model: BertForTokenClassification, sentences: dict[str, Tensor]
) -> None:
    with pytest.raises(ValueError, match="such as `word_probabilities` for sentences"):
        probabilities(model, sentences)


def test_the_observable_has_a_name_that_a_resumed_run_knows() -> None:
    found = run_fingerprint({}, ActiveTrainingArguments("x"), nn.Linear(2, 2), EntropySampling(), word_probabilities)
    assert found["observable"] == "WordProbabilities"
