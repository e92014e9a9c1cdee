"""Trainers that would give wrong results are refused when they are made."""

import errno
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_run import accuracy, make_arguments, make_model, make_pool, make_trainer
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import Trainer

from hf_noise_al import ActiveTrainer, ActiveTrainingArguments
from hf_noise_al.upstream.unsupported import refuse_unsupported


def test_data_parallel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ActiveTrainingArguments, "n_gpu", property(lambda arguments: 2))
    with pytest.raises(ValueError, match="DataParallel over 2 GPUs in one process .* `accelerate launch`"):
        make_trainer(tmp_path)


def test_quantized_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    whole_numbers = torch.zeros(16, 16, dtype=torch.int8)
    model.bert.pooler.dense.weight = nn.Parameter(whole_numbers, requires_grad=False)
    with pytest.raises(ValueError, match="bert.pooler.dense.weight is quantized.* Load the model without quantization"):
        make_trainer(tmp_path, trainer={"model": model})
    model = make_model()
    monkeypatch.setattr(type(model), "quantization_method", "bitsandbytes", raising=False)
    with pytest.raises(ValueError, match="the weights are quantized by bitsandbytes"):
        make_trainer(tmp_path, trainer={"model": model})


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(
            ValueError, match=rf"Cannot write to `output_dir` '{folder}': (File exists|Not a directory)"
        ):
            make_trainer(folder)
    make_trainer(tmp_path / "new" / "run")
    assert list((tmp_path / "new" / "run").iterdir()) == [], "what was tried is gone"

    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(
        ValueError, match="Read-only file system. A run keeps its labels.* Set `output_dir` to a folder"
    ):
        make_trainer(tmp_path)


@pytest.mark.parametrize(
    ("wanted", "sets", "measures", "message"),
    [
        ("accuracy", (), False, "is 'accuracy', which no evaluation of this trainer measures. Set it to eval_loss, or"),
        ("accuracy", ("a", "b"), True, "Set it to eval_a_loss or eval_b_loss, or .* after the name of its evaluation"),
        ("loss", ("a",), False, "Set it to eval_a_loss"),
        ("eval_accuracy", (), True, None),
        ("b_accuracy", ("a", "b"), True, None),
        ("eval_a_loss", ("a",), False, None),
        (None, ("a",), False, None),
    ],
)
def test_a_best_model_by_what_nobody_measures_is_refused(
    tmp_path: Path, wanted: str | None, sets: tuple[str, ...], measures: bool, message: str | None
) -> None:
    trainer = {"eval_dataset": {name: make_pool(4) for name in sets} or make_pool(4)}
    trainer["compute_metrics"] = accuracy if measures else None
    asked = {"metric_for_best_model": wanted, "trainer": trainer}
    make_trainer(tmp_path, **asked)  # no evaluation during a round
    with nullcontext() if message is None else pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, eval_strategy="epoch", **asked)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"lr_scheduler_type": "warmup_stable_decay"},
            "`lr_scheduler_type`, `lr_scheduler_kwargs` .*num_decay_steps",
        ),
        ({"lr_scheduler_kwargs": {"nope": 1}}, "Cannot train with `lr_scheduler_type`, .* unexpected keyword .*'nope'"),
        ({"optim_args": "foo"}, "Cannot train with `optim`, `optim_args` as they are: not enough values"),
        ({"optim": "galore_adamw"}, "Cannot train with `optim`, .* install `?galore_torch.* Correct them"),
    ],
)
def test_an_optimizer_or_a_schedule_that_cannot_be_made_is_refused(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"dataloader_num_workers": 1, "dataloader_multiprocessing_context": "nope"},
            "Cannot load rows with `dataloader_num_workers`, `dataloader_multiprocessing_context` .* got .*'nope'",
        ),
        ({"use_liger_kernel": True}, "`use_liger_kernel` is set, and there is no liger-kernel. Install it with `pip"),
        ({"debug": "underflow_overflow"}, "hooks stay on the model, each round would add its own"),
        ({"debug": "tpu_metrics_debug"}, "`tpu_metrics_debug` needs a TPU and torch_xla, .* Leave the setting out"),
    ],
)
def test_what_upstream_looks_at_only_when_a_round_trains_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("hf_noise_al.upstream.unsupported.is_liger_kernel_available", lambda: False)
    made = {name: value for name, value in arguments.items() if name in ActiveTrainingArguments.__dataclass_fields__}
    trainer = make_trainer(tmp_path)
    for name, value in {**arguments, **vars(make_arguments(tmp_path, **made))}.items():
        if name in (*arguments, "debug"):
            setattr(trainer.args, name, value)
    with pytest.raises(ValueError, match=message):
        refuse_unsupported(trainer)


def test_who_makes_the_optimizer_and_the_schedule_is_asked_nothing_about_those_of_upstream(tmp_path: Path) -> None:
    class Own(ActiveTrainer):
        def create_scheduler(self, *arguments: Any, **options: Any) -> Any:
            self.lr_scheduler = torch.optim.lr_scheduler.ConstantLR(self.optimizer)
            return self.lr_scheduler

    arguments = make_arguments(tmp_path, lr_scheduler_kwargs={"nope": 1}, optim_args="foo")
    own = {"optimizer_cls_and_kwargs": (torch.optim.SGD, {"lr": 0.1})}
    Own(model=make_model(), args=arguments, train_dataset=make_pool(), **own)
    for kwargs in ({"lr_scheduler_type": "cosine"}, {"lr_scheduler_type": "constant"}, {"optim": "adafactor"}):
        make_trainer(tmp_path, **kwargs)


def test_checkpoints_of_tied_weights_of_a_plain_module_are_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    make_trainer(tmp_path, trainer={"model": model}, save_strategy="epoch")
    model[1].weight = model[0].weight
    make_trainer(tmp_path, trainer={"model": model})
    with pytest.raises(ValueError, match=r"this Sequential cannot be written: 0\.weight and 1\.weight share their"):
        make_trainer(tmp_path, trainer={"model": model}, save_strategy="epoch")
    make_trainer(tmp_path, trainer={"model": make_model(tie_word_embeddings=True)}, save_strategy="epoch")


class Plugin:
    """Stands for accelerate's plugin of FSDP."""

    fsdp_version = 2
    cpu_ram_efficient_loading = False
    transformer_cls_names_to_wrap: list[str] | None = None
    mixed_precision_policy: MixedPrecisionPolicy | None = None


@pytest.fixture
def sharding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ActiveTrainer, Plugin]:
    """Return a trainer whose accelerator says that it shards."""
    trainer, plugin = make_trainer(tmp_path), Plugin()
    monkeypatch.setattr(trainer.accelerator.state, "fsdp_plugin", plugin, raising=False)
    return trainer, plugin


def test_fsdp1_is_refused(sharding: tuple[ActiveTrainer, Plugin]) -> None:
    trainer, plugin = sharding
    refuse_unsupported(trainer)
    plugin.fsdp_version = 1
    with pytest.raises(ValueError, match="FSDP1 is not supported.* `accelerate launch --use_fsdp --fsdp_version 2`"):
        refuse_unsupported(trainer)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"zero_optimization": {"stage": 2}}, "ZeRO stage 2 is not supported: .* with stage 3 only"),
        ({}, "ZeRO stage 0 is not supported"),
        ({"zero_optimization": {"stage": 3}, "optimizer": {}}, "Leave `optimizer` out of the DeepSpeed configuration"),
        ({"zero_optimization": {"stage": 3}, "scheduler": {}}, "Leave `scheduler` out of the DeepSpeed configuration"),
    ],
)
def test_other_deepspeed_than_plain_zero3_is_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    trainer = make_trainer(tmp_path)
    assert trainer.is_deepspeed_enabled is False
    trainer.is_deepspeed_enabled = True
    found = SimpleNamespace(hf_ds_config=SimpleNamespace(config={"zero_optimization": {"stage": 3}}))
    trainer.accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=found))
    refuse_unsupported(trainer)
    found.hf_ds_config.config = config
    with pytest.raises(ValueError, match=message):
        refuse_unsupported(trainer)


def test_weights_gathered_in_low_precision_are_refused_before_the_first_round(
    tmp_path: Path, sharding: tuple[ActiveTrainer, Plugin], monkeypatch: pytest.MonkeyPatch
) -> None:
    create, (_, plugin) = Trainer.create_accelerator_and_postprocess, sharding

    def create_with_plugin(trainer: Trainer) -> None:
        create(trainer)
        trainer.accelerator.state.fsdp_plugin = plugin

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", create_with_plugin)
    in_bfloat16 = {"estimator": "gradient_sketch", "autocast": "bfloat16"}
    make_trainer(tmp_path / "float32")
    plugin.mixed_precision_policy = MixedPrecisionPolicy(torch.bfloat16)
    make_trainer(tmp_path / "sketch", acquisition_kwargs=in_bfloat16)
    make_trainer(tmp_path / "random", acquisition="random", acquisition_kwargs=None)
    with pytest.raises(ValueError, match="sharded weights are torch.bfloat16 or become it where they are gathered"):
        make_trainer(tmp_path / "refused")
    plugin.mixed_precision_policy = MixedPrecisionPolicy(torch.float16)
    with pytest.raises(ValueError, match=r"torch.float16 or become it.*`mixed_precision: 'no'`"):
        make_trainer(tmp_path / "half", acquisition_kwargs=in_bfloat16)


@pytest.mark.parametrize("name", ["tp_size", "cp_size", "dp_replicate_size"])
def test_other_parallelism_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    trainer = make_trainer(tmp_path)
    axes = SimpleNamespace(**{"dp_shard_size": 4, name: 1})
    monkeypatch.setattr(type(trainer.accelerator), "parallelism_config", axes, raising=False)
    refuse_unsupported(trainer)
    setattr(axes, name, 2)
    with pytest.raises(ValueError, match=f"`{name}` above 1 is not supported.*Use FSDP2 alone"):
        refuse_unsupported(trainer)


def test_loading_on_one_process_is_refused_for_a_model_with_buffers(sharding: tuple[ActiveTrainer, Plugin]) -> None:
    trainer, plugin = sharding
    plugin.cpu_ram_efficient_loading = True
    refuse_unsupported(trainer)
    trainer.model.norm = nn.BatchNorm1d(3)
    with pytest.raises(
        ValueError, match=r"cannot load its buffers \(norm.running_mean\).*fsdp_cpu_ram_efficient_loading"
    ):
        refuse_unsupported(trainer)
