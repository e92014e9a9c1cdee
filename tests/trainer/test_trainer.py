"""ActiveTrainer: what it accepts, what it refuses, and what a run of rounds does."""

import gc
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, IterableDataset, Value
from tiny_run import (
    Oracle,
    accuracy,
    assert_same_outcome,
    collate,
    init_model,
    make_model,
    make_pool,
    make_trainer,
    outcome,
    read_state,
)
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments

from hf_noise_al import ActiveTrainer, ActiveTrainerCallback, HeldOutLabels, LabelFile, NoiseStability
from hf_noise_al.acquisition import ACQUISITIONS, Candidates, Choice, RandomSampling
from hf_noise_al.observables.base import features

RANDOM: dict[str, Any] = {"acquisition": "random", "acquisition_kwargs": None}
"""For runs whose picks do not matter."""
ENTROPY: dict[str, Any] = {"acquisition": "entropy", "acquisition_kwargs": None}
"""For runs whose picks must follow from the weights, at the price of one pass."""


def with_labels(pool: Dataset, labels: list[Any], kind: str) -> Dataset:
    column = Dataset.from_dict({"label": labels}, features=Features({"label": Value(kind)}))
    return Dataset.from_dict({**pool.remove_columns(["label"])[:], "label": column["label"][:]}).cast_column(
        "label", Value(kind)
    )


# ---- what it accepts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("acquisition", "settings", "num_labels", "message"),
    [
        ("noise_stability", {"parameter_filter": "^nothing$"}, 2, "matches no parameter"),
        ("bald", None, 1, "is a regression model"),
        ("badge", None, 1, "are a regression"),
    ],
)
def test_an_acquisition_that_cannot_query_the_model_is_refused_before_training(
    tmp_path: Path, acquisition: str, settings: dict[str, str] | None, num_labels: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(
            tmp_path,
            trainer={"model": make_model(num_labels)},
            acquisition=acquisition,
            acquisition_kwargs=settings,
        )


def test_holds_out_the_labels_of_a_fully_labeled_pool_and_reveals_them_when_queried(tmp_path: Path) -> None:
    pool = make_pool()
    trainer = make_trainer(tmp_path, pool=pool)
    assert trainer.pool.num_labeled == 0
    output = trainer.train()
    assert [record.num_labeled for record in trainer.history] == [8, 14, 20]
    assert [record.query_size for record in trainer.history] == [8, 6, 6]
    assert [record.round for record in trainer.history] == [0, 1, 2]
    assert all(record.metrics.keys() == {"eval_loss", "eval_accuracy"} for record in trainer.history)
    assert [annotation.round for annotation in trainer.pool.annotations] == [0] * 8 + [1] * 6 + [2] * 6
    assert all(a.label == pool[a.row]["label"] for a in trainer.pool.annotations)
    assert len({annotation.row for annotation in trainer.pool.annotations}) == 20
    assert all((a.score is None) == (a.round == 0) for a in trainer.pool.annotations)
    assert output.global_step == 5
    assert len(trainer.train_dataset) == 20


def test_accepts_a_pool_without_any_label_column(tmp_path: Path) -> None:
    pool = make_pool()
    oracle = Oracle(pool["label"][:])
    trainer = make_trainer(tmp_path, pool=pool.remove_columns(["label"]), trainer={"annotator": oracle}, num_rounds=2)
    trainer.train()
    assert [len(rows) for rows in oracle.asked] == [8, 6]
    assert [a.row for a in trainer.pool.annotations] == [row for rows in oracle.asked for row in rows]
    reference = make_trainer(tmp_path / "held out", pool=pool, num_rounds=2)
    reference.train()
    assert_same_outcome(outcome(trainer), outcome(reference))


@pytest.mark.parametrize(
    ("missing", "kind"), [(None, "int64"), (-100, "int64"), (float("nan"), "float32"), (None, "float64")]
)
def test_counts_only_labels_that_are_there(tmp_path: Path, missing: Any, kind: str) -> None:
    pool = make_pool()
    labels = [label if row % 6 == 0 else missing for row, label in enumerate(pool["label"])]
    oracle = Oracle(pool["label"][:])
    trainer = make_trainer(tmp_path, **RANDOM, pool=with_labels(pool, labels, kind), trainer={"annotator": oracle})
    assert trainer.pool.labeled_rows == list(range(0, 60, 6))
    if kind == "int64":
        trainer.train()
        assert [record.num_labeled for record in trainer.history] == [10, 16, 22]
        assert [len(rows) for rows in oracle.asked] == [6, 6]


def test_a_label_column_of_only_none_is_an_unlabeled_pool(tmp_path: Path) -> None:
    pool = make_pool()
    unlabeled = pool.remove_columns(["label"]).add_column("label", [None] * 60)
    trainer = make_trainer(tmp_path, **RANDOM, pool=unlabeled, trainer={"annotator": Oracle(pool["label"][:])})
    assert trainer.pool.num_labeled == 0
    trainer.train()
    assert trainer.pool.num_labeled == 20


def test_queries_before_any_training_and_learns_from_what_it_is_told(tmp_path: Path) -> None:
    pool = make_pool()
    trainer = make_trainer(tmp_path, pool=pool.remove_columns(["label"]))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    query = trainer.query(5)
    assert query.indices.shape == query.scores.shape == (5,)
    assert all(torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())
    assert torch.equal(trainer.query(5).indices, query.indices), "asked again, it is the same"
    trainer.annotate(query.indices, [pool[row]["label"] for row in query.indices.tolist()])
    trainer.fine_tune()
    second = trainer.query()
    assert not set(second.indices.tolist()) & set(query.indices.tolist())
    trainer.annotate(second.indices, torch.tensor([pool[row]["label"] for row in second.indices.tolist()]))
    trainer.fine_tune()
    assert [record.num_labeled for record in trainer.history] == [5, 11]
    assert trainer.history[1].acquisition_seconds > 0
    assert [a.score for a in trainer.pool.annotations[:5]] == query.scores.tolist()


def test_takes_an_already_trained_model_as_the_start_of_each_round(tmp_path: Path) -> None:
    model = make_model()
    with torch.no_grad():
        model.classifier.bias.fill_(3.0)
    trainer = make_trainer(tmp_path, **RANDOM, trainer={"model": model}, learning_rate=1e-9)
    trainer.train()
    assert model.classifier.bias.detach().numpy() == pytest.approx(3.0, abs=1e-4)


def test_ask_and_tell_ends_as_train_does(tmp_path: Path) -> None:
    pool = make_pool()
    reference = make_trainer(tmp_path / "train", pool=pool)
    reference.train()
    first = [a.row for a in reference.pool.annotations if a.round == 0]
    trainer = make_trainer(tmp_path / "ask and tell", pool=pool.remove_columns(["label"]))
    trainer.annotate(first, [pool[row]["label"] for row in first])
    trainer.fine_tune()
    for _ in range(2):
        asked = trainer.query().indices.tolist()
        trainer.annotate(asked, [pool[row]["label"] for row in asked])
        trainer.fine_tune()
    assert [a.row for a in trainer.pool.annotations] == [a.row for a in reference.pool.annotations]
    assert outcome(trainer)["history"] == outcome(reference)["history"]


def test_labels_told_are_on_the_disk_when_annotate_returns(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, pool=make_pool().remove_columns(["label"]))
    trainer.annotate(np.array([7, 3]), np.array([1, 0]))
    assert [(a["row"], a["label"]) for a in read_state(tmp_path)["annotations"]] == [(7, 1), (3, 0)]
    lines = [json.loads(line) for line in (tmp_path / "queries" / "round-00.jsonl").read_text().splitlines()]
    assert [(line["row"], line["label"], line["text"]) for line in lines] == [(7, 1, "text 7"), (3, 0, "text 3")]


def test_part_of_a_query_may_be_told(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, **RANDOM, pool=make_pool().remove_columns(["label"]))
    asked = trainer.query(4).indices.tolist()
    trainer.annotate(asked[2:], [0, 1])
    assert read_state(tmp_path)["pending"]["rows"] == asked[:2]
    assert read_state(tmp_path)["phase"] == "annotate"
    trainer.fine_tune()
    assert trainer.history[0].num_labeled == 2
    assert read_state(tmp_path)["pending"] is None


def test_labels_of_annotate_stay_when_train_starts_afresh(tmp_path: Path) -> None:
    pool = make_pool()
    oracle = Oracle(pool["label"][:])
    trainer = make_trainer(tmp_path, **RANDOM, pool=pool.remove_columns(["label"]), trainer={"annotator": oracle})
    trainer.annotate([0, 1, 2], pool["label"][:3])
    trainer.train()
    assert [record.num_labeled for record in trainer.history] == [3, 9, 15]


@pytest.mark.parametrize("how", ["random", "stratified", "balanced"])
def test_initial_selection(tmp_path: Path, how: str) -> None:
    pool = make_pool(60)
    skewed = pool.remove_columns(["label"]).add_column("label", [int(row % 4 == 0) for row in range(60)])
    trainer = make_trainer(tmp_path, **RANDOM, pool=skewed, initial_selection=how, num_rounds=1)
    trainer.train()
    ones = sum(a.label for a in trainer.pool.annotations)
    assert trainer.pool.num_labeled == 8
    assert how == "random" or ones == {"stratified": 2, "balanced": 4}[how]


def test_initial_selection_by_class_needs_held_out_labels(tmp_path: Path) -> None:
    pool = make_pool()
    trainer = make_trainer(
        tmp_path,
        pool=pool.remove_columns(["label"]),
        trainer={"annotator": Oracle(pool["label"][:])},
        initial_selection="balanced",
    )
    with pytest.raises(ValueError, match="'balanced'` needs held-out class labels"):
        trainer.train()


def test_class_names_are_labels(tmp_path: Path) -> None:
    pool = make_pool().class_encode_column("label")
    names = pool.features["label"].names
    labels = [None] * 60
    unlabeled = pool.remove_columns(["label"]).add_column("label", labels).cast_column("label", pool.features["label"])
    trainer = make_trainer(tmp_path, pool=unlabeled)
    trainer.annotate([4, 5], [names[1], names[0]])
    assert [a.label for a in trainer.pool.annotations] == [1, 0]
    assert trainer.train_dataset.features["label"] == pool.features["label"]
    with pytest.raises(ValueError, match="row 6: the label 'maybe' is not a known class. Classes are 0, 1"):
        trainer.annotate([6], ["maybe"])


def test_multi_label_lists(tmp_path: Path) -> None:
    pool = make_pool().remove_columns(["label"])
    model = make_model(num_labels=3, problem_type="multi_label_classification")
    lists = [[float(row % 2), float(row % 3 == 0), 1.0] for row in range(60)]
    settings = {"model": model, "compute_metrics": None, "eval_dataset": None}
    simulated = make_trainer(tmp_path / "simulated", pool=pool.add_column("labels", lists), trainer=settings)
    simulated.train()
    assert simulated.pool.num_labeled == 20
    assert all(a.label == lists[a.row] for a in simulated.pool.annotations)
    told = make_trainer(tmp_path / "told", pool=pool, trainer=settings)
    told.annotate([1, 2], [[0, 1, 1], np.array([1, 0, 0])])
    told.fine_tune()
    assert [a.label for a in told.pool.annotations] == [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match="row 3: the label \\[1, 0\\] is not a list of 3 numbers"):
        told.annotate([3], [[1, 0]])
    with pytest.raises(ValueError, match="row 3: the label 1 is not a list of 3 numbers"):
        told.annotate([3], [1])


@pytest.mark.parametrize("labels", [[0.5, 2.25, -1.0], [1, 2, 3]])
@pytest.mark.parametrize("column", [None, "int64", "float32"])
def test_labels_on_a_scale(tmp_path: Path, labels: list[float], column: str | None) -> None:
    pool = make_pool()
    pool = pool.remove_columns(["label"]) if column is None else with_labels(pool, [None] * 59 + [4], column)
    trainer = make_trainer(
        tmp_path,
        pool=pool,
        trainer={"model": make_model(num_labels=1), "compute_metrics": None, "eval_dataset": None},
    )
    trainer.annotate([0, 1, 2], labels)
    trainer.fine_tune()
    assert [a.label for a in trainer.pool.annotations if a.row < 3] == labels
    assert len(trainer.query(4).indices) == 4  # by the features: there are no probabilities


def test_regression_by_simulation(tmp_path: Path) -> None:
    pool = make_pool()
    scale = pool.remove_columns(["label"]).add_column("label", [row / 7 for row in range(60)])
    model = make_model(num_labels=1)
    trainer = make_trainer(
        tmp_path, pool=scale, trainer={"model": model, "compute_metrics": None, "eval_dataset": scale}, num_rounds=2
    )
    trainer.train()
    assert all(a.label == pytest.approx(a.row / 7) for a in trainer.pool.annotations)
    assert trainer.history[-1].metrics["eval_loss"] > 0


class Pixels(nn.Module):
    """A classifier of 4 x 4 images."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 2)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.head(pixel_values.flatten(1))
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize("lazily", [False, True])
def test_a_pool_with_a_transform(tmp_path: Path, lazily: bool) -> None:
    values = torch.rand(30, 16, generator=torch.Generator().manual_seed(0))
    pool = Dataset.from_dict({"raw": values.tolist(), "label": (values.mean(1) > 0.5).long().tolist()})
    calls = []

    def transform(batch: dict[str, list[Any]]) -> dict[str, Any]:
        calls.append(len(batch["raw"]))
        images = [torch.tensor(raw).view(1, 4, 4) for raw in batch["raw"]]
        return {"pixel_values": images} | {name: batch[name] for name in ("label",) if name in batch}

    transformed = pool.with_transform(transform) if lazily else pool
    if not lazily:
        transformed.set_transform(transform)
    trainer = make_trainer(
        tmp_path,
        pool=transformed,
        trainer={"model": Pixels(), "data_collator": None, "eval_dataset": transformed},
        remove_unused_columns=False,
        num_rounds=2,
        acquisition_kwargs={"num_perturbations": 2},
    )
    trainer.train()
    assert trainer.pool.num_labeled == 14
    assert calls
    trainer.create_model_card()


def test_a_transform_that_needs_labels_is_explained(tmp_path: Path) -> None:
    pool = make_pool().with_transform(lambda batch: {**batch, "labels": batch["label"]})
    trainer = make_trainer(tmp_path, pool=pool, remove_unused_columns=False)
    with pytest.raises(ValueError, match="asks for 'label', which the examples of a query do not have"):
        trainer.query(3)


@pytest.mark.parametrize("style", ["torch", "numpy", "arrow columns"])
def test_a_formatted_pool_gives_the_same_picks(tmp_path: Path, style: str) -> None:
    pool = make_pool()
    reference = make_trainer(tmp_path / "plain", pool=pool).query(5).indices
    columns = ["input_ids", "attention_mask", "label"]
    formatted = pool.with_format("torch", columns=columns) if style == "arrow columns" else pool.with_format(style)

    def collate_tensors(examples: list[Any]) -> dict[str, Tensor]:
        return collate([{k: v.tolist() if hasattr(v, "tolist") else v for k, v in e.items()} for e in examples])

    trainer = make_trainer(
        tmp_path / "formatted", num_rounds=2, pool=formatted, trainer={"data_collator": collate_tensors}
    )
    assert torch.equal(trainer.query(5).indices, reference)
    trainer.train()
    assert trainer.pool.num_labeled == 14


def test_the_users_own_parts_work_as_in_trainer(tmp_path: Path, tiny_tokenizer: Any) -> None:
    seen: dict[str, list[Any]] = {"collated": [], "events": [], "models": []}

    class Watcher(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen["events"].append("train")

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen["events"].append("evaluate")

    def collator(examples: list[Any]) -> dict[str, Tensor]:
        seen["collated"].append(len(examples))
        return collate(examples)

    def init(trial: Any) -> nn.Module:
        seen["models"].append(trial)
        return init_model()

    trainer = make_trainer(
        tmp_path,
        **RANDOM,
        trainer={
            "data_collator": collator,
            "callbacks": [Watcher],
            "model_init": init,
            "processing_class": tiny_tokenizer,
            "compute_metrics": lambda prediction: {"mine": 0.25},
        },
        num_rounds=2,
        save_strategy="epoch",
        keep_round_files=True,
    )
    trainer.train()
    assert seen["events"] == ["train", "evaluate"] * 2
    assert len(seen["models"]) == 3  # once by the constructor, once each round
    assert seen["collated"]
    assert trainer.history[1].metrics["eval_mine"] == 0.25
    assert list(tmp_path.glob("_rounds/01/checkpoint-*/tokenizer.json"))


def test_several_evaluation_sets(tmp_path: Path) -> None:
    sets = {"matched": make_pool(8, seed=2), "mismatched": make_pool(8, seed=3)}
    trainer = make_trainer(tmp_path, **RANDOM, trainer={"eval_dataset": sets}, num_rounds=1)
    trainer.train()
    assert {"eval_matched_accuracy", "eval_mismatched_accuracy"} <= trainer.history[0].metrics.keys()


def test_no_evaluation_set(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, **RANDOM, trainer={"eval_dataset": None}, num_rounds=2)
    trainer.train()
    assert [record.metrics for record in trainer.history] == [{}, {}]


def test_a_plain_module_is_a_model(tmp_path: Path) -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(40, 8)
            self.head = nn.Linear(8, 2)

        def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
            logits = self.head((self.embedding(input_ids) * attention_mask[..., None]).sum(1))
            loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
            return {"logits": logits} if loss is None else {"loss": loss, "logits": logits}

    trainer = make_trainer(tmp_path, trainer={"model": Bag()}, num_rounds=2)
    trainer.train()
    trainer.create_model_card("en", model_name="bag")
    assert (tmp_path / "README.md").read_text().startswith("---\nlanguage: en")
    with pytest.raises(ValueError, match="outside the model's|not a list|twice"):
        row = trainer.pool.labeled_rows[0]
        trainer.annotate([row], [1 - trainer.pool.label(row)])


def test_a_peft_model_starts_each_round_from_its_initial_adapter(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    model = peft.get_peft_model(make_model(), config)
    base = model.state_dict()["base_model.model.bert.embeddings.word_embeddings.weight"].clone()
    trainer = make_trainer(tmp_path, trainer={"model": model}, num_rounds=2)
    trainer.train()
    first = outcome(trainer)
    assert torch.equal(base, model.state_dict()["base_model.model.bert.embeddings.word_embeddings.weight"])
    trainer.train()
    assert_same_outcome(outcome(trainer), first)


@pytest.mark.parametrize("name", sorted(ACQUISITIONS))
def test_every_acquisition_runs(tmp_path: Path, name: str) -> None:
    kwargs = {"num_perturbations": 2} if name == "noise_stability" else None
    trainer = make_trainer(tmp_path, acquisition=name, acquisition_kwargs=kwargs, num_rounds=2)
    trainer.train()
    assert trainer.pool.num_labeled == 14


def test_an_acquisition_and_an_observable_may_be_objects(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path,
        trainer={"acquisition": NoiseStability(num_perturbations=2, labeled_as_centers=True), "observable": features},
        num_rounds=2,
    )
    trainer.train()
    assert trainer.pool.num_labeled == 14


def test_looks_at_candidate_size_rows_only(tmp_path: Path) -> None:
    sizes = []

    class Watched(NoiseStability):
        def select(self, candidates: Any, query_size: int, generator: torch.Generator) -> Any:
            sizes.append(candidates.size)
            return super().select(candidates, query_size, generator)

    trainer = make_trainer(
        tmp_path, trainer={"acquisition": Watched(num_perturbations=1)}, candidate_size=9, query_size=3
    )
    trainer.train()
    assert sizes == [9, 9]
    assert len(trainer.query(20).indices) == 20
    assert sizes[-1] == 20


# ---- what it refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        ([60], [0], "row 60: rows of this pool are the integers 0 to 59"),
        ([-1], [0], "row -1: rows of this pool are the integers 0 to 59"),
        ([3, 3], [0, 0], "row 3 twice"),
        ([0], [0], "row 0 twice: it already has the label 1"),
        ([3], [2], "row 3: the label 2 is outside the model's 2 classes"),
        ([3], [-1], "row 3: the label -1 is outside the model's 2 classes"),
        ([3], [0.5], "row 3: the label 0.5 is outside the model's 2 classes"),
        ([3], [float("inf")], "row 3: the label inf is not finite"),
        ([3], [None], "row 3: the label None is not a number"),
        ([3], [-100], "row 3: the label -100 stands for a missing label"),
        ([3], [True], "row 3: the label True is not a number"),
        ([3], ["good"], "row 3: the label 'good' is not a known class"),
        ([3, 4], [0], "Cannot label 3 rows with 2 labels"),
    ],
)
def test_a_wrong_annotation_is_refused_and_nothing_is_kept(
    tmp_path: Path, rows: list[int], labels: list[Any], message: str
) -> None:
    trainer = make_trainer(tmp_path, pool=make_pool().remove_columns(["label"]))
    trainer.annotate([0], [1])
    before = read_state(tmp_path)
    with pytest.raises(ValueError, match=message):
        trainer.annotate([5, *rows], [0, *labels])
    assert trainer.pool.labeled_rows == [0]
    assert read_state(tmp_path) == before


@pytest.mark.parametrize(
    ("config", "column", "right", "wrong"),
    [
        ({}, None, 1, [0]),
        ({}, None, 1, [0, 1, 1]),
        ({}, None, [0.0, 1.0], [0.0, 1.0, 0.0]),  # floats, one for each class: transformers takes them for several
        ({}, [0, None], 1, [0.0, 1.0]),
        ({"problem_type": "single_label_classification"}, None, 1, [0.0, 1.0]),
        ({"num_labels": 1}, None, 0.5, [0.5]),
        ({"num_labels": 1}, [0.5, None], 0.5, [0.5]),
        ({"num_labels": 1}, [[0.5], None], [0.5], 0.5),
        ({"num_labels": 2, "problem_type": "regression"}, None, [0.5, 1.0], 0.5),
        ({"num_labels": 2, "problem_type": "regression"}, None, [0.5, 1.0], [0.5]),
        ({}, None, 1, 10**400),
    ],
)
def test_a_label_of_another_form_is_refused_and_the_right_one_taken(
    tmp_path: Path, config: dict[str, Any], column: Any, right: Any, wrong: Any
) -> None:
    pool = make_pool().remove_columns(["label"])
    if column is not None:
        pool = pool.add_column("label", [column[0] if row == 9 else None for row in range(len(pool))])
    settings = {"model": make_model(**config), "annotator": HeldOutLabels([0]), "eval_dataset": None}
    trainer = make_trainer(tmp_path, **RANDOM, pool=pool, trainer=settings, max_steps=1)
    with pytest.raises(ValueError, match="Cannot label row 4: the label .* is "):
        trainer.annotate([3, 4], [right, wrong])
    assert 3 not in trainer.pool.labeled_rows and [path.name for path in tmp_path.iterdir()] == [".lock"]
    trainer.annotate([3, 4], [right, right])
    trainer.fine_tune()


def test_labels_that_make_no_table_are_refused_before_they_are_written(tmp_path: Path) -> None:
    pool = make_pool().remove_columns(["label"])
    trainer = make_trainer(tmp_path, pool=pool, trainer={"read_answer": lambda row, answer: answer})
    trainer.annotate([0], [1])
    before = read_state(tmp_path)
    with pytest.raises(ValueError, match="Cannot label rows 1: their labels do not go with those that are there"):
        trainer.annotate([1], [[1, 0]])
    assert trainer.pool.labeled_rows == [0] and read_state(tmp_path) == before
    trainer.annotate([1], [0])


@pytest.mark.parametrize("rows", [[True], [1.0], ["1"], 1, "1"])
def test_rows_are_whole_numbers(tmp_path: Path, rows: Any) -> None:
    with pytest.raises(ValueError, match="Rows must be "):
        make_trainer(tmp_path).annotate(rows, [0])


@pytest.mark.parametrize("size", [True, 1.5, "3"])
def test_a_query_size_is_a_whole_number(tmp_path: Path, size: Any) -> None:
    with pytest.raises(ValueError, match="`query_size` must be a whole number"):
        make_trainer(tmp_path).query(size)


def test_labels_that_count_as_given_are_named_where_nothing_is_left_to_label(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, trainer={"annotator": HeldOutLabels([0])})
    for ask in (trainer.train, trainer.query):
        with pytest.raises(ValueError, match=r"Every row has a label in the data, and with an annotator .* as given"):
            ask()


def test_a_label_outside_the_classes_is_refused_before_any_work(tmp_path: Path) -> None:
    pool = make_pool(60, num_labels=3)
    with pytest.raises(ValueError, match="the label 2 is outside the model's 2 classes"):
        make_trainer(tmp_path, pool=pool)


def test_a_query_larger_than_the_pool_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    with pytest.raises(ValueError, match="Cannot query 61 of 60 unlabeled examples. Lower `query_size`"):
        trainer.query(61)
    with pytest.raises(ValueError, match="Cannot query 0 of 60"):
        trainer.query(0)


def test_a_budget_larger_than_the_pool_is_refused_before_any_work(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, query_size=30)
    with pytest.raises(ValueError, match=r"3 rounds need 68 labels \(0 there, 8 initial, 2 queries of 30\)"):
        trainer.train()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_run_that_cannot_start_leaves_the_run_before_it_alone(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, **ENTROPY, num_rounds=2)
    trainer.train()
    expected = outcome(trainer)
    with pytest.raises(ValueError, match="9 rounds need 56"):
        make_trainer(tmp_path, **ENTROPY, num_rounds=9, pool=make_pool(50)).train()
    resumed = make_trainer(tmp_path, **ENTROPY, num_rounds=2)
    resumed.train(resume_from_checkpoint=True)
    assert_same_outcome(outcome(resumed), expected)


def test_train_needs_an_annotator_where_labels_are_missing(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, pool=make_pool().remove_columns(["label"]))
    with pytest.raises(ValueError, match=r"pass an `annotator` \(`--label_file`\), or take the steps one by one"):
        trainer.train()


def test_one_round_on_given_labels_needs_no_annotator(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, **RANDOM, pool=make_pool().remove_columns(["label"]), num_rounds=1)
    trainer.annotate([1, 2], [0, 1])
    trainer.train()
    assert trainer.history[0].num_labeled == 2


def test_fine_tuning_on_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no row is labeled. Label some with `annotate`"):
        make_trainer(tmp_path).fine_tune()


def test_other_training_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`args` must be an `ActiveTrainingArguments`, got TrainingArguments"):
        ActiveTrainer(
            model=make_model(), args=TrainingArguments(str(tmp_path), use_cpu=True), train_dataset=make_pool()
        )


def test_optimizers_are_refused(tmp_path: Path) -> None:
    model = make_model()
    with pytest.raises(ValueError, match="`optimizers` cannot be used: each round needs a new optimizer"):
        make_trainer(
            tmp_path, trainer={"model": model, "optimizers": (torch.optim.SGD(model.parameters(), lr=0.1), None)}
        )


def test_an_iterable_pool_is_refused(tmp_path: Path) -> None:
    stream = IterableDataset.from_generator(lambda: iter(make_pool()))
    with pytest.raises(ValueError, match="must be a `datasets.Dataset`, got IterableDataset"):
        make_trainer(tmp_path, trainer={"train_dataset": stream}, max_steps=2)


def test_an_empty_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`train_dataset` is empty"):
        make_trainer(tmp_path, pool=make_pool().select([]))


def test_an_unknown_label_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no column 'target'. It has input_ids, attention_mask, text, label"):
        make_trainer(tmp_path, label_column="target")


def test_weights_that_are_not_finite_are_refused_by_row(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    with torch.no_grad():
        trainer.model.bert.embeddings.word_embeddings.weight[5] = float("nan")
    bad = next(row for row, example in enumerate(make_pool()) if 5 in example["input_ids"])
    with pytest.raises(ValueError, match=f"output for row {bad} of `train_dataset` is NaN or infinite"):
        trainer.query(3)


def test_a_collator_that_needs_labels_is_explained(tmp_path: Path) -> None:
    def needy(examples: list[Any]) -> dict[str, Tensor]:
        return {**collate(examples), "labels": torch.tensor([example["label"] for example in examples])}

    trainer = make_trainer(tmp_path, trainer={"data_collator": needy})
    with pytest.raises(ValueError, match="collator .* asks for 'label', which the examples of a query do not have"):
        trainer.query(3)


def test_another_key_that_a_collator_misses_is_not_taken_for_a_label(tmp_path: Path) -> None:
    def misspelled(examples: list[Any]) -> dict[str, Tensor]:
        return {**collate(examples), "lengths": torch.tensor([example["lenght"] for example in examples])}

    trainer = make_trainer(tmp_path, trainer={"data_collator": misspelled})
    with pytest.raises(KeyError, match="lenght") as raised:
        trainer.query(3)
    assert raised.value.args == ("lenght",)


def test_the_label_column_may_have_any_name_in_what_is_explained(tmp_path: Path) -> None:
    def needy(examples: list[Any]) -> dict[str, Tensor]:
        return {**collate(examples), "labels": torch.tensor([example["grade"] for example in examples])}

    pool = make_pool().rename_column("label", "grade")
    trainer = make_trainer(tmp_path, pool=pool, trainer={"data_collator": needy}, label_column="grade")
    with pytest.raises(ValueError, match="asks for 'grade', which the examples of a query do not have"):
        trainer.query(3)


class Pooled(nn.Module):
    """Returns a loss and, beside it, whatever `make` makes of the scores of two classes."""

    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.embedding, self.make = nn.Embedding(40, 2), make

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        scores = self.embedding(input_ids).mean(dim=1)
        loss = {} if labels is None else {"loss": nn.functional.cross_entropy(scores, labels)}
        return {**loss, **self.make(scores)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda scores: {"scores": scores}, "Found no logits in what the model returned: a dict of 'scores'"),
        (lambda scores: {"logits": scores[:, None, :]}, r"need logits of shape \(batch, classes\), found \(2, 1, 2\)"),
        (lambda scores: {"logits": scores[:1]}, r"one row per example: \(2, D\) here, found \(1, 2\)"),
    ],
)
def test_a_model_that_no_query_could_look_at_is_refused_before_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Tensor], Any], message: str
) -> None:
    monkeypatch.setattr(ActiveTrainer, "training_step", lambda *_, **__: pytest.fail("trained"))
    settings = {"model": Pooled(make), "eval_dataset": None}
    trainer = make_trainer(tmp_path, trainer=settings, acquisition="entropy", acquisition_kwargs=None)
    with pytest.raises(ValueError, match=message):
        trainer.train()
    with pytest.raises(ValueError, match="no row is labeled"):
        trainer.fine_tune()
    trainer.annotate([0, 1], [0, 1])
    with pytest.raises(ValueError, match=message):
        trainer.fine_tune()
    assert trainer.pool.num_labeled == 2 and not trainer.history


def test_a_model_that_is_looked_at_by_no_query_may_return_what_it_likes(tmp_path: Path) -> None:
    settings = {"model": Pooled(lambda scores: {"scores": scores}), "eval_dataset": None}
    make_trainer(tmp_path / "random", trainer=settings, acquisition="random", acquisition_kwargs=None).train()
    settings["observable"] = lambda model, inputs: model.embedding(inputs["input_ids"]).mean(dim=1)
    make_trainer(tmp_path / "own", trainer=settings, num_rounds=2).train()


# ---- labels stay hidden ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["label", "labels", "label_ids", "target", "both", "target beside label"])
@pytest.mark.parametrize("keep_columns", [False, True])
def test_labels_never_reach_collator_or_model_in_a_query(tmp_path: Path, column: str, keep_columns: bool) -> None:
    pool = make_pool()
    values = pool["label"][:]
    pool = pool.remove_columns(["label", "text"])
    names = {"both": ["labels", "label"], "target beside label": ["target", "label"]}.get(column, [column])
    for name in names:
        pool = pool.add_column(name, values)
    seen: set[str] = set()

    def collator(examples: list[Any]) -> dict[str, Tensor]:
        seen.update(name for example in examples for name in example)
        return collate(examples)

    model = make_model()
    model.register_forward_pre_hook(lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True)
    trainer = make_trainer(
        tmp_path,
        pool=pool,
        trainer={"model": model, "data_collator": collator, "eval_dataset": None},
        label_column=names[0] if names[0] == "target" else None,
        remove_unused_columns=not keep_columns,
    )
    trainer.query(4)
    assert seen == {"input_ids", "attention_mask"}


def test_the_labeled_set_is_observed_without_labels(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, acquisition="core_set", acquisition_kwargs=None)
    trainer.annotate([1, 2], [0, 1])
    seen: set[str] = set()
    trainer.model.register_forward_pre_hook(lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True)
    trainer.query(4)
    assert seen == {"input_ids", "attention_mask"}


# ---- rounds ----------------------------------------------------------------------------------------------------------


def test_a_query_leaves_random_states_and_logs_alone(tmp_path: Path) -> None:
    events = []

    class Watcher(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            events.append("log")

        def on_predict(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            events.append("predict")

        def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            events.append("prediction step")

    for name in sorted(ACQUISITIONS):
        trainer = make_trainer(
            tmp_path / name, trainer={"callbacks": [Watcher]}, acquisition=name, acquisition_kwargs=None
        )
        trainer.acquisition = NoiseStability(num_perturbations=2) if name == "noise_stability" else trainer.acquisition
        before = random.getstate(), np.random.get_state(), torch.get_rng_state(), trainer.model.training
        trainer.query(4)
        assert random.getstate() == before[0]
        assert all(np.array_equal(now, then) for now, then in zip(np.random.get_state(), before[1], strict=True))
        assert torch.equal(torch.get_rng_state(), before[2])
        assert trainer.model.training == before[3]
        assert events == []
        assert trainer.state.log_history == []


def test_rounds_draw_different_noise(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, acquisition="random", acquisition_kwargs=None)
    trainer.train()
    scores = [[a.score for a in trainer.pool.annotations if a.round == number] for number in (1, 2)]
    assert not set(scores[0]) & set(scores[1])


@pytest.mark.parametrize("fresh", [False, True])
def test_training_again_starts_afresh_and_ends_the_same(tmp_path: Path, fresh: bool) -> None:
    trainer = make_trainer(tmp_path, **ENTROPY, fresh=fresh)
    trainer.train()
    first = outcome(trainer)
    trainer.train()
    assert_same_outcome(outcome(trainer), first)
    assert len((tmp_path / "previous-1" / "labels.jsonl").read_text().splitlines()) == 20
    assert len(list((tmp_path / "previous-1" / "queries").iterdir())) == 3


@pytest.mark.parametrize("fresh", [False, True])
def test_each_round_starts_from_the_initial_weights_unless_warm(tmp_path: Path, fresh: bool) -> None:
    starts: list[Tensor] = []
    ends: list[Tensor] = []

    class Watcher(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
            starts.append(model.classifier.weight.detach().clone())

        def on_train_end(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
            ends.append(model.classifier.weight.detach().clone())

    make_trainer(tmp_path / "cold", **RANDOM, fresh=fresh, trainer={"callbacks": [Watcher]}).train()
    assert torch.equal(starts[0], starts[1]) and torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0], ends[0])
    starts.clear()
    ends.clear()
    make_trainer(tmp_path / "warm", **RANDOM, fresh=fresh, trainer={"callbacks": [Watcher]}, warm_start=True).train()
    assert torch.equal(starts[1], ends[0]) and torch.equal(starts[2], ends[1])


def test_each_round_has_a_new_optimizer(tmp_path: Path) -> None:
    steps = []

    class Watcher(TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, optimizer: Any, **kwargs: Any) -> None:
            steps.append({int(values["step"]) for values in optimizer.state.values()})

    make_trainer(tmp_path, **RANDOM, trainer={"callbacks": [Watcher]}).train()
    assert steps == [{2}, {4}, {5}]


def test_callbacks_are_told_about_queries_and_rounds_in_order(tmp_path: Path) -> None:
    told: list[Any] = []

    class Watcher(ActiveTrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            told.append("train")

        def on_query_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            told.append(("query begins", kwargs["pool"].num_labeled))

        def on_query_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            told.append(("query ends", kwargs["query"].indices.tolist()))

        def on_round_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            assert kwargs["record"] is kwargs["history"][-1]
            assert kwargs["model"] is not None
            assert len(read_state(tmp_path)["history"]) == len(kwargs["history"])
            told.append(("round ends", kwargs["record"].round))

    trainer = make_trainer(tmp_path, **RANDOM, trainer={"callbacks": [Watcher()]})
    trainer.train()
    picks = [[a.row for a in trainer.pool.annotations if a.round == number] for number in (1, 2)]
    assert told == [
        *("train", ("round ends", 0), ("query begins", 8), ("query ends", picks[0])),
        *("train", ("round ends", 1), ("query begins", 14), ("query ends", picks[1])),
        *("train", ("round ends", 2)),
    ]


def test_tensorboard_gets_the_number_of_labels_as_a_plain_scalar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    trainer = make_trainer(
        tmp_path / "run", **RANDOM, report_to=["tensorboard"], logging_strategy="steps", logging_steps=1
    )
    trainer.train()
    found: dict[str, list[tuple[int, float]]] = {}
    for file in tmp_path.rglob("events.out.tfevents.*"):
        events = event_accumulator.EventAccumulator(str(file))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, []).extend((event.step, event.value) for event in events.Scalars(tag))
    assert sorted(found["train/active/num_labeled"]) == [(8, 8.0), (14, 14.0), (20, 20.0)]
    assert [value for _, value in sorted(found["train/active/query_size"])] == [8, 6, 6]
    accuracies = [value for _, value in sorted(found["train/active/eval_accuracy"])]
    assert accuracies == pytest.approx([record.metrics["eval_accuracy"] for record in trainer.history])
    assert {"train/active/train_seconds", "train/active/acquisition_seconds", "train/active/round"} <= found.keys()


def test_best_model_and_save_limit_work_inside_a_round(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path,
        **RANDOM,
        num_train_epochs=4,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        num_rounds=2,
        learning_rate=0.3,
        keep_round_files=True,
    )
    best = []

    class Watcher(ActiveTrainerCallback):
        def on_round_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
            best.append((min(losses[:4]), kwargs["record"].metrics["eval_loss"]))

    trainer.add_callback(Watcher())
    trainer.train()
    assert len(best) == 2
    assert all(found == pytest.approx(least) for least, found in best)
    for number in (0, 1):
        assert len(list(tmp_path.glob(f"_rounds/{number:02d}/checkpoint-*"))) == 1
    assert not list(tmp_path.glob("checkpoint-*"))


def test_hyperparameter_search_starts_each_trial_afresh(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = [(1e-2, 3), (1e-3, 4), (1e-2, 3)]
    outcomes = []

    class Watcher(ActiveTrainerCallback):
        def on_round_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if kwargs["record"].round == 1:
                outcomes.append([(a.row, a.score) for a in trainer.pool.annotations])

    def space(trial: Any) -> dict[str, Any]:
        rate, seed = settings[trial.number]
        return {
            "learning_rate": trial.suggest_float("learning_rate", rate, rate),
            "seed": trial.suggest_int("seed", seed, seed),
        }

    trainer = make_trainer(tmp_path, **ENTROPY, fresh=True, num_rounds=2, trainer={"callbacks": [Watcher()]})
    best = trainer.hyperparameter_search(
        hp_space=space, n_trials=3, direction="maximize", compute_objective=lambda m: m["eval_accuracy"]
    )
    assert best.objective is not None
    assert [len(pairs) for pairs in outcomes] == [14] * 3
    assert outcomes[0] == outcomes[2] != outcomes[1]
    assert len(list(tmp_path.glob("run-*/active_state.json"))) == 3
    alone = make_trainer(tmp_path / "alone", **ENTROPY, fresh=True, num_rounds=2, learning_rate=1e-3, seed=4)
    alone.train()
    assert outcomes[1] == [(a.row, a.score) for a in alone.pool.annotations]


@pytest.mark.slow
def test_memory_does_not_grow_over_twenty_rounds(tmp_path: Path) -> None:
    held: list[tuple[int, int, int]] = []

    class Watcher(ActiveTrainerCallback):
        def on_round_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            gc.collect()
            tensors = sum(isinstance(thing, Tensor) for thing in gc.get_objects())
            registered = len(trainer.accelerator._dataloaders) + len(trainer.accelerator._models)
            resident = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
            held.append((tensors, registered, resident * 4096))

    trainer = make_trainer(
        tmp_path,
        fresh=True,
        num_rounds=20,
        query_size=2,
        max_steps=1,
        trainer={"callbacks": [Watcher()]},
        acquisition_kwargs={"num_perturbations": 1},
    )
    trainer.train()
    tensors, registered, resident = zip(*held, strict=True)
    assert len(held) == 20
    assert max(tensors[10:]) <= max(tensors[2:10]) + 2
    assert max(registered[10:]) <= max(registered[:10])
    assert resident[-1] - resident[9] < 20e6


def test_query_files_name_the_rows_with_scores_and_labels(tmp_path: Path) -> None:
    pool = make_pool()
    trainer = make_trainer(tmp_path, **RANDOM, pool=pool)
    trainer.train()
    for number in range(3):
        lines = (tmp_path / "queries" / f"round-{number:02d}.jsonl").read_text().splitlines()
        expected = [a for a in trainer.pool.annotations if a.round == number]
        assert [json.loads(line) for line in lines] == [
            {"row": a.row, "score": a.score, "label": a.label, "text": f"text {a.row}"} for a in expected
        ]


def test_a_person_fills_in_the_query_files_and_the_run_goes_on(tmp_path: Path) -> None:
    pool = make_pool()

    def fill_in(number: int) -> LabelFile:
        path = tmp_path / "queries" / f"round-{number:02d}.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({**x, "label": pool[x["row"]]["label"]}) + "\n" for x in lines))
        return LabelFile(path)

    unlabeled = pool.remove_columns(["label"])
    annotator: Any = LabelFile(tmp_path / "queries" / "round-00.jsonl")
    for number in range(3):
        trainer = make_trainer(tmp_path, **ENTROPY, pool=unlabeled, trainer={"annotator": annotator})
        with pytest.raises(ValueError, match="round-00.jsonl has no label for|no label for .* of the 6 rows"):
            trainer.train(resume_from_checkpoint=number > 0)
        annotator = fill_in(number)
    trainer = make_trainer(tmp_path, **ENTROPY, pool=unlabeled, trainer={"annotator": annotator})
    trainer.train(resume_from_checkpoint=True)
    reference = make_trainer(tmp_path / "simulated", **ENTROPY, pool=pool)
    reference.train()
    assert_same_outcome(outcome(trainer), outcome(reference))


def test_an_annotator_beside_a_fully_labeled_pool_is_not_asked(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, trainer={"annotator": HeldOutLabels([0] * 60)}, num_rounds=1)
    assert trainer.pool.num_labeled == 60


def test_the_metric_function_sees_the_evaluation_set_only(tmp_path: Path) -> None:
    sizes = []

    def counted(prediction: Any) -> dict[str, float]:
        sizes.append(len(prediction.label_ids))
        return accuracy(prediction)

    make_trainer(tmp_path, **RANDOM, trainer={"compute_metrics": counted}).train()
    assert sizes == [20, 20, 20]


# ---- rows that are set aside, and new classes -----------------------------------------------------------------------


def test_rows_that_are_set_aside_stay_in_the_pool_and_are_never_asked_for(tmp_path: Path) -> None:
    pool, aside = make_pool(), [3, 50, 7]
    settings = {"set_aside": aside, "eval_dataset": pool.select(sorted(aside))}
    trainer = make_trainer(
        tmp_path, **RANDOM, pool=pool, trainer=settings, num_rounds=3, query_size=20, initial_size=17
    )
    trainer.train()
    labeled = trainer.pool.labeled_rows
    assert len(labeled) == 57 and sorted([*labeled, *aside]) == list(range(60))
    assert all(trainer.pool.label(row) == pool["label"][row] for row in labeled), "the labels are those of their rows"
    assert json.loads((tmp_path / "set_aside.json").read_text()) == [3, 7, 50]
    with pytest.raises(ValueError, match="Cannot label row 7: it is set aside"):
        trainer.annotate([7], [1])
    other = make_trainer(tmp_path, **RANDOM, pool=pool, trainer={**settings, "set_aside": [3, 50]}, num_rounds=3)
    with pytest.raises(ValueError, match="belongs to another run: data.set_aside was"):
        other.resume()
    (tmp_path / "set_aside.json").unlink()
    again = make_trainer(tmp_path, **RANDOM, pool=pool, trainer=settings, num_rounds=3, query_size=20, initial_size=17)
    again.resume()
    assert again.pool.labeled_rows == labeled and again.pool.unlabeled_rows == []


def test_what_cannot_be_set_aside_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`set_aside` names row 60: rows of `train_dataset` are 0 to 59"):
        make_trainer(tmp_path, trainer={"set_aside": [60]})
    with pytest.raises(ValueError, match="the pool has 57 rows beside the 3 set aside"):
        make_trainer(tmp_path, trainer={"set_aside": [0, 1, 2]}, num_rounds=2, initial_size=30, query_size=28).train()


def test_new_classes_need_a_model_that_is_made_anew(tmp_path: Path) -> None:
    def trainer(names: list[str], fresh: bool = True, **settings: Any) -> ActiveTrainer:
        pool = make_pool().cast_column("label", ClassLabel(names=names))
        made = make_model(num_labels=len(names))
        model = {"model_init": lambda: make_model(num_labels=len(names))} if fresh else {"model": made}
        return make_trainer(tmp_path, **RANDOM, pool=pool, trainer=model, num_rounds=2, **settings)

    first = trainer(["a", "b"])
    first.train()
    for fresh, settings in ((False, {}), (True, {"warm_start": True})):
        with pytest.raises(ValueError, match=r"fewer classes|belongs to another run"):
            trainer(["a", "b", "c"], fresh, **settings).resume()
    with pytest.raises(ValueError, match="belongs to another run: classes was"):
        trainer(["b", "a", "c"]).resume()
    longer = trainer(["a", "b", "c"])
    longer.resume()
    assert longer.pool.labeled_rows == first.pool.labeled_rows
    assert longer.model.config.num_labels == 3


def test_a_choice_that_cannot_be_is_refused_before_anything_is_asked_for(tmp_path: Path) -> None:
    class Twice(RandomSampling):
        def select(self, candidates: Candidates, query_size: int, generator: torch.Generator) -> Choice:
            return Choice(torch.zeros(query_size, dtype=torch.long), torch.zeros(candidates.size))

    trainer = make_trainer(tmp_path, trainer={"acquisition": Twice()}, num_rounds=1)
    trainer.train()
    before = sorted((tmp_path / "queries").iterdir()), read_state(tmp_path)
    with pytest.raises(
        ValueError, match="Twice was asked for 6 of 52 candidates, and returned position 0 more than on"
    ):
        trainer.query()
    assert (sorted((tmp_path / "queries").iterdir()), read_state(tmp_path)) == before


@pytest.mark.parametrize(
    ("given", "message"),
    [(RandomSampling, r"pass RandomSampling\(\)"), ("random", r"got 'random'\. A name goes into `ActiveTraining")],
)
def test_what_is_no_acquisition_is_refused(tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"`acquisition` must be an instance of `Acquisition`, .*{message}"):
        make_trainer(tmp_path, trainer={"acquisition": given})
