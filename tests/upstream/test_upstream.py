"""The traps of `transformers.Trainer` for a loop of rounds, one by one."""

import dataclasses
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers.trainer
from huggingface_hub.utils import filter_repo_objects
from tiny_models import build
from tiny_run import assert_same_outcome, collate, make_model, make_pool, make_trainer, outcome
from torch import nn
from transformers import Trainer
from transformers.integrations.deepspeed import deepspeed_init

from hf_noise_al import ActiveTrainingArguments, HeldOutLabels

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def gradient_norm(folder: Path, per_device: int, accumulation: int, **trainer: Any) -> float:
    """Return the norm of the gradient of the first step, on 16 examples."""
    active = make_trainer(
        folder,
        pool=make_pool(16),
        trainer={"model": make_model(**NO_DROPOUT), "annotator": HeldOutLabels([0]), **trainer},
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        logging_strategy="steps",
        logging_steps=1,
        max_grad_norm=1e9,
    )
    active.fine_tune()
    return next(float(entry["grad_norm"]) for entry in active.state.log_history if "grad_norm" in entry)


def test_gradients_do_not_depend_on_accumulation_steps(tmp_path: Path) -> None:
    pool, model = make_pool(16), make_model(**NO_DROPOUT)
    losses = [
        model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["label"]])).loss for row in pool
    ]
    torch.stack(losses).mean().backward()
    expected = float(nn.utils.clip_grad_norm_(model.parameters(), 1e9))
    for per_device, accumulation in ((16, 1), (8, 2), (4, 4)):
        found = gradient_norm(tmp_path / str(accumulation), per_device, accumulation)
        assert found == pytest.approx(expected, rel=1e-4)


def test_losses_in_the_log_do_not_depend_on_accumulation_steps(tmp_path: Path) -> None:
    found = []
    for per_device, accumulation in ((8, 1), (2, 4)):
        trainer = make_trainer(
            tmp_path / str(accumulation),
            pool=make_pool(16),
            trainer={"model": make_model(**NO_DROPOUT), "annotator": HeldOutLabels([0])},
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=accumulation,
        )
        found.append(trainer.fine_tune().training_loss)
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_a_loss_function_of_the_users_own_keeps_upstreams_arithmetic(tmp_path: Path) -> None:
    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    whole = gradient_norm(tmp_path / "whole", 16, 1, compute_loss_func=loss)
    parts = gradient_norm(tmp_path / "parts", 4, 4, compute_loss_func=loss)
    assert parts == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("bf16", [False, True])
def test_evaluating_and_querying_before_the_first_training_changes_nothing(tmp_path: Path, bf16: bool) -> None:
    straight = make_trainer(tmp_path / "straight", bf16=bf16, num_rounds=2)
    straight.train()
    looked = make_trainer(tmp_path / "looked", bf16=bf16, num_rounds=2)
    looked.evaluate()
    looked.query(3)
    looked.predict(make_pool(10))
    looked.train()
    assert_same_outcome(outcome(looked), outcome(straight))


def test_looking_between_rounds_changes_nothing(tmp_path: Path) -> None:
    pool = make_pool()
    results = []
    for look in (False, True):
        trainer = make_trainer(tmp_path / str(look), pool=pool.remove_columns(["label"]))
        for rows in ([0, 1, 2, 3], [4, 5, 6]):
            trainer.annotate(rows, [pool[row]["label"] for row in rows])
            trainer.fine_tune()
            if look:
                trainer.evaluate()
                trainer.predict(pool)
                trainer.query(2)
        results.append(outcome(trainer))
    assert_same_outcome(results[1], results[0])


def test_the_order_of_scores_is_the_pools_whatever_the_sampling_strategy(tmp_path: Path) -> None:
    names = {field.name for field in dataclasses.fields(ActiveTrainingArguments)}
    grouped = (
        {"train_sampling_strategy": "group_by_length"}
        if "train_sampling_strategy" in names
        else {"group_by_length": True}
    )
    for acquisition in ("entropy", "core_set", "noise_stability"):
        settings: dict[str, Any] = {"acquisition": acquisition, "acquisition_kwargs": None}
        if acquisition == "noise_stability":
            settings["acquisition_kwargs"] = {"num_perturbations": 2}
        plain = make_trainer(tmp_path / "plain", **settings).query(9)
        sorted_by_length = make_trainer(tmp_path / "grouped", **settings, **grouped, num_rounds=2)
        found = sorted_by_length.query(9)
        assert torch.equal(found.indices, plain.indices)
        assert torch.equal(found.scores, plain.scores)
    sorted_by_length.train()
    assert sorted_by_length.pool.num_labeled == 14


def test_entropy_scores_belong_to_the_rows_they_are_reported_for(tmp_path: Path) -> None:
    pool = make_pool()
    trainer = make_trainer(tmp_path, pool=pool, acquisition="entropy", acquisition_kwargs=None)
    found = trainer.query(60)
    model = trainer.model.eval()
    for row, score in zip(found.indices.tolist(), found.scores.tolist(), strict=True):
        with torch.no_grad():
            p = model(input_ids=torch.tensor([pool[row]["input_ids"]])).logits.softmax(1)[0]
        assert float(-(p * p.log()).sum()) == pytest.approx(score, abs=1e-6)


# ---- sharded ---------------------------------------------------------------------------------------------------------


def test_blocks_around_the_embedding_are_not_sharded_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, plugin = make_trainer(tmp_path), SimpleNamespace(transformer_cls_names_to_wrap=None)
    monkeypatch.setattr(trainer.accelerator.state, "fsdp_plugin", plugin, raising=False)
    trainer.model._no_split_modules = ["BertEmbeddings", "BertLayer", "NotInThisModel"]
    trainer._keep_embedding_apart(trainer.model)
    assert plugin.transformer_cls_names_to_wrap == ["BertLayer"]
    plugin.transformer_cls_names_to_wrap = ["BertEncoder"]
    trainer._keep_embedding_apart(trainer.model)
    assert plugin.transformer_cls_names_to_wrap == ["BertEncoder"], "the user's choice"


def test_a_model_that_does_not_name_its_embedding_can_be_sharded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise NotImplementedError

    trainer, plugin = make_trainer(tmp_path), SimpleNamespace(transformer_cls_names_to_wrap=None)
    monkeypatch.setattr(trainer.accelerator.state, "fsdp_plugin", plugin, raising=False)
    trainer.model.get_input_embeddings = refuse
    trainer._keep_embedding_apart(trainer.model)
    assert trainer.model.get_input_embeddings() is None


# ---- uploads ---------------------------------------------------------------------------------------------------------


class Uploaded:
    """Stands for the job of an upload, and for the commit that it makes."""

    def done(self) -> bool:
        return True

    def result(self) -> None:
        return None


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Collect the names of the files of each upload."""
    seen: list[set[str]] = []

    def upload_folder(*args: Any, folder_path: str, ignore_patterns: Any = None, **kwargs: Any) -> Uploaded:
        folder = Path(folder_path)
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        kept = filter_repo_objects(names, ignore_patterns=ignore_patterns)
        seen.append({f"{kwargs.get('path_in_repo') or ''}:{name}".lstrip(":") for name in kept})
        return Uploaded()

    def init_hf_repo(trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        trainer.hub_model_id = "me/mine"
        trainer.push_in_progress = None

    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda api, **kwargs: upload_folder(**kwargs))
    if hasattr(transformers.trainer, "upload_folder"):  # transformers 4
        monkeypatch.setattr(transformers.trainer, "upload_folder", upload_folder)
    monkeypatch.setattr(Trainer, "init_hf_repo", init_hf_repo)
    return seen


MODEL_FILES = {"config.json", "model.safetensors", "training_args.bin"}


@pytest.mark.parametrize("push_to_hub", [False, True])
def test_an_upload_holds_the_model_and_its_card_only(
    tmp_path: Path, uploads: list[set[str]], push_to_hub: bool
) -> None:
    trainer = make_trainer(
        tmp_path,
        num_rounds=1,
        push_to_hub=push_to_hub,
        hub_strategy="end",
        save_strategy="epoch",
        report_to=["tensorboard"],
    )
    trainer.train()
    uploads.clear()
    trainer.push_to_hub(dataset="letters")
    assert uploads == [MODEL_FILES | {"README.md"}]
    assert trainer.args.output_dir == str(tmp_path)
    card = (tmp_path / "_hub" / "README.md").read_text()
    assert "# mine" in card
    assert "letters" in card
    if push_to_hub:
        trainer.save_model()
        assert uploads[-1] == MODEL_FILES | {"README.md"}


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint"])
def test_nothing_of_the_run_is_uploaded_while_it_trains(tmp_path: Path, uploads: list[set[str]], strategy: str) -> None:
    settings: dict[str, Any] = {"acquisition": "random", "acquisition_kwargs": None, "num_rounds": 2}
    trainer = make_trainer(tmp_path, push_to_hub=True, hub_strategy=strategy, save_strategy="epoch", **settings)
    trainer.train()
    model_uploads = [names for names in uploads if not any(":" in name for name in names)]
    assert len(model_uploads) >= 2
    for names in model_uploads:
        assert names - {"README.md"} <= MODEL_FILES
    for names in uploads:
        assert not [name for name in names if "active_state" in name or "round" in name or ".jsonl" in name]
    if strategy == "checkpoint":
        assert "last-checkpoint:trainer_state.json" in uploads[-1]


@pytest.mark.parametrize("columns", [(), ("text",)])
def test_what_the_collator_reads_stays_in_the_rows_and_out_of_the_model(
    tmp_path: Path, columns: tuple[str, ...]
) -> None:
    seen: list[set[str]] = []

    class Collator:
        def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
            seen.append(set(rows[0]))
            return {**collate(rows), **{name: [row[name] for row in rows] for name in self.columns}}

    Collator.columns = columns  # type: ignore[attr-defined]
    trainer = make_trainer(tmp_path, trainer={"data_collator": Collator()})
    trainer.evaluate()
    assert seen and all(names == {"input_ids", "attention_mask", "label", *columns} for names in seen)


# ---- names of upstream -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_get_output_dir", ["trial"]),
        ("_push_from_checkpoint", ["checkpoint_folder"]),
        ("_save", ["output_dir"]),
        ("_load_from_checkpoint", ["resume_from_checkpoint", "model"]),
        ("_load_best_model", []),
        ("_save_checkpoint", ["model", "trial"]),
        ("_remove_unused_columns", ["dataset", "description"]),
        ("_get_collator_with_removed_columns", ["data_collator", "description"]),
        ("_set_signature_columns_if_needed", []),
        ("_hp_search_setup", ["trial"]),
        ("_prepare_inputs", ["inputs"]),
        ("call_model_init", ["trial"]),
    ],
)
def test_private_names_of_trainer_are_there(name: str, parameters: list[str]) -> None:
    found = inspect.signature(getattr(Trainer, name)).parameters
    assert set(parameters) <= found.keys()
    required = [p for p in list(found.values())[1:] if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    assert len(required) <= len(parameters)


def test_deepspeed_can_be_prepared_for_a_look() -> None:
    assert list(inspect.signature(deepspeed_init).parameters) == ["trainer", "num_training_steps", "inference"]


def test_what_changes_weights_on_the_way_to_the_disk_can_be_asked_for(tmp_path: Path) -> None:
    assert not (make_model()._keys_to_ignore_on_save or ())
    mapping = pytest.importorskip("transformers.conversion_mapping", reason="transformers 4 changes names only")
    loading = pytest.importorskip("transformers.core_model_loading")
    assert {"model", "add_legacy"} <= inspect.signature(mapping.get_model_conversion_mapping).parameters.keys()
    model = build("text", "mixtral")
    known = mapping.get_model_conversion_mapping(model, add_legacy=False)
    assert any(isinstance(each, loading.WeightConverter) and each.operations for each in known)
    model.save_pretrained(tmp_path)
    assert any(getattr(each, "operations", None) for each in type(model).from_pretrained(tmp_path)._weight_conversions)


def test_private_attributes_are_there(tmp_path: Path) -> None:
    trainer = Trainer(
        model=make_model(), args=make_trainer(tmp_path / "a").args, train_dataset=make_pool(), eval_dataset=make_pool(4)
    )
    assert isinstance(trainer.model_accepts_loss_kwargs, bool)
    assert trainer.accelerator._models == []
    trainer._set_signature_columns_if_needed()
    assert {"input_ids", "labels", "label_ids"} <= set(trainer._signature_columns)
    looked = make_trainer(tmp_path / "b", bf16=True)
    looked.evaluate()
    assert {"_original_forward", "forward"} <= looked.model.__dict__.keys()
    assert looked.model.__dict__.get("_is_accelerate_prepared", True) is True
    assert len(looked.accelerator._models) == 1
