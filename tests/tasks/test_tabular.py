"""The tabular tasks: what is fitted to what, whose labels set the scale, and refusals before training."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from transformers import BertConfig

from hf_noise_al import ActiveTrainer
from hf_noise_al.commands.main import main
from hf_noise_al.commands.prepare import prepare
from hf_noise_al.experiments.learning_curve import LearningCurve
from hf_noise_al.run_folder.state import ActiveState
from hf_noise_al.settings.arguments import DataArguments, ModelArguments
from hf_noise_al.settings.parsing import parse
from hf_noise_al.tasks import TASKS, Prepared
from hf_noise_al.tasks.tables.tabular_model import TabularMLPForPrediction
from hf_noise_al.tasks.tables.tabular_processor import TabularProcessor

REGRESSION, CLASSES = TASKS["tabular_regression"], TASKS["tabular_classification"]
MLP = {"model_type": "tabular_mlp", "hidden_sizes": [8, 4]}


def table(rows: int = 8, **columns: Any) -> Dataset:
    """Return numbers, categories with gaps, and prices; `columns` replace some or come on top."""
    own = {
        "area": [10.0 * row if row % 3 else None for row in range(rows)],
        "street": [("paved", "gravel", None)[row % 3] for row in range(rows)],
        "price": [1000.0 * (row % 5) for row in range(rows)],
    }
    return Dataset.from_dict({**own, **columns})


def read(
    pool: Dataset,
    evaluation: Dataset | None = None,
    processor: TabularProcessor | None = None,
    task: Any = REGRESSION,
    label: str | None = "price",
    **settings: Any,
) -> tuple[Prepared, TabularProcessor]:
    processor = processor or TabularProcessor()
    arguments = DataArguments(dataset_name="x", **settings)
    return task.prepare(pool, pool if evaluation is None else evaluation, processor, arguments, label), processor


def test_rows_become_features_whatever_their_labels_and_the_evaluation_rows_are() -> None:
    ready, processor = read(table())
    assert np.stack(ready.pool["features"][:]).shape == (8, processor.num_features) == (8, 4)
    assert "price" not in processor.columns
    others = table(4, area=[1e6, None, 2.0, 3.0], street=["new", "paved", "new", "new"])
    again, other = read(table(price=[None, *range(7)]), others)
    assert other.to_dict() == processor.to_dict()
    assert np.array_equal(np.stack(again.pool["features"][:]), np.stack(ready.pool["features"][:]))
    assert again.pool["labels"][:2] == [None, 0.0]
    assert np.stack(again.evaluation[""]["features"][:])[0, 1:].tolist() == [0, 0, 0]


def test_columns_can_be_chosen_ignored_and_read_as_categories(caplog: pytest.LogCaptureFixture) -> None:
    pool = table(30, code=[row % 2 for row in range(30)], number=list(range(30)))
    with caplog.at_level(logging.INFO, "hf_noise_al"):
        assert read(pool)[1].columns == ("area", "code", "street")
    assert "Left out of the inputs: `number` (numbers the rows)" in caplog.text
    assert "Inputs: numbers (2): area, code; categories (1): street. Together 5 features." in caplog.text
    assert read(pool, ignore_columns=["number", "area"])[1].columns == ("code", "street")
    assert read(pool, feature_columns=["code", "area"], categorical_columns=["code"])[1].columns == ("area", "code")


def test_evaluation_rows_need_no_index_and_an_index_of_theirs_alone_stays_an_input() -> None:
    others = table(30, number=list(range(30)))
    assert read(table(30, **{"Unnamed: 0": [3] * 30, "number": [5] * 30}), others)[1].columns == (
        *("area", "number"),
        "street",
    )


def test_a_long_list_of_inputs_is_cut_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "hf_noise_al"):
        read(table(**{f"c{number}": [number] * 8 for number in range(60)}))
    assert "Inputs: numbers (61): area, c0, " in caplog.text
    assert "c48, ...; categories (1): street. Together 64 features." in caplog.text


def test_a_row_without_any_input_reads_as_the_medians_and_missing_categories() -> None:
    pool = table(9, area=[None, *range(8)], street=[None, *"ababab", "a", "a"])
    ready, processor = read(pool)
    own = processor({"area": [3.5], "street": [None]})["features"]
    assert np.array_equal(ready.pool["features"][0], own[0])
    assert own[0, 1:].tolist() == [1, 0, 0]
    whole = table(9, area=list(range(9)), street=["a", "b"] * 4 + ["a"])
    ready, _ = read(whole, pool)  # where the pool has no gap, a missing category is none of those seen
    assert ready.evaluation[""]["features"][0].tolist()[1:] == [0, 0]


def test_a_fitted_processor_is_used_as_it_is() -> None:
    _, processor = read(table())
    before = processor.to_dict()
    wider = table(6, more=[5] * 6)
    ready, _ = read(wider, processor=processor)
    assert processor.to_dict() == before
    assert np.stack(ready.pool["features"][:]).shape == (6, 4)


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"empty": [None] * 8}, {}, r"in column `empty` of the pool.*`ignore_columns: \[empty\]`"),
        ({"area": [1.0, float("inf"), *[2.0] * 6]}, {}, "Column `area` of the pool, row 1: found an infinite number"),
        ({"price": ["1", "2.5", "n/a", *"34567"]}, {}, "of the pool, row 2: found 'n/a', which is not a number"),
        ({"price": [True] * 8}, {}, "Column `price` of the pool, row 0: found True, which is not a number"),
        ({"photo": [[1, 2]] * 8}, {}, r"Column `photo` of the pool holds neither numbers nor text: found List"),
        ({"features": [1] * 8}, {}, "has a column `features`, the name of the model's input. Rename the column"),
        ({}, {"ignore_columns": ["aera"]}, r"no column `aera` \(`ignore_columns`\). Did you mean `area`\?"),
        ({}, {"feature_columns": ["price"]}, "`feature_columns` names the label, `price`. Leave it out"),
        ({}, {"ignore_columns": ["area", "street"]}, "No input column is left of: area, street, price"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(columns: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(table(**columns), **settings)


def test_evaluation_rows_that_do_not_fit_the_pool_are_refused() -> None:
    with pytest.raises(ValueError, match="The column `street` is missing in the evaluation set"):
        read(table(), table().remove_columns("street"))
    with pytest.raises(ValueError, match="Column `area`, row 1: found 'wide' where numbers are expected"):
        read(table(), table(area=["1", "wide", *"345678"]))


def test_numbers_written_as_text_are_targets_and_a_gap_is_no_label() -> None:
    ready, _ = read(table(price=["1.5", "", *"345678"]), table())
    assert ready.pool["labels"][:3] == [1.5, None, 3.0]


def test_a_model_that_reads_no_tables_and_a_folder_without_processor_are_refused(tmp_path: Path) -> None:
    arguments = DataArguments(dataset_name="x")
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"A bert model does not read tables. Set `model_config: {model_type: tabular"):
        REGRESSION.load_processor(ModelArguments(model_name_or_path=str(tmp_path)), arguments, table())
    ready, processor = read(table())
    settings = {**ready.targets.head(), **REGRESSION.model_fields(processor)}
    config = TabularMLPForPrediction.config_class(**settings, hidden_sizes=[4])
    TabularMLPForPrediction(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Cannot load the processor of"):
        REGRESSION.load_processor(ModelArguments(model_name_or_path=str(tmp_path)), arguments, table())
    TabularProcessor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="knows no columns. Name a folder that a tabular run left"):
        REGRESSION.load_processor(ModelArguments(model_name_or_path=str(tmp_path)), arguments, table())


# ---- runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of two rounds on a csv file with gaps."""
    rows = np.random.default_rng(0).normal(size=(40, 2))
    lines = [
        f"{a:.3f},{'' if a < -1 else round(b, 3)},{'ab'[row % 2]},{1e5 + 1e4 * a}" for row, (a, b) in enumerate(rows)
    ]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,kind,price", *lines]))
    settings = [
        *(f"dataset_name: {tmp_path}/table.csv", f"output_dir: {tmp_path}/run", "task: tabular_regression"),
        *("label_column: price", f"model_config: {MLP}", "num_rounds: 2", "initial_size: 6", "query_size: 4"),
        *("candidate_size: 8", "max_steps: 2", "use_cpu: true", "disable_tqdm: true", "report_to: none"),
        *("save_strategy: 'no'", "logging_strategy: 'no'"),
    ]
    (tmp_path / "recipe.yaml").write_text("\n".join(settings))
    return tmp_path / "recipe.yaml"


def labels_of(trainer: ActiveTrainer) -> torch.Tensor:
    return torch.tensor([trainer.pool.label(row) for row in trainer.pool.labeled_rows], dtype=torch.float64)


def test_the_scale_of_the_targets_comes_from_the_labels_of_the_round(recipe: Path) -> None:
    trainer = prepare(*parse(recipe)).trainer
    trainer.train()
    scale, labels = trainer.model.target_scale, labels_of(trainer)
    assert len(labels) == 10
    assert scale.mean.item() == labels.mean().float().item()
    assert scale.scale.item() == labels.std(correction=0).float().item()


def test_a_run_leaves_a_model_and_a_processor_that_a_query_takes_up(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(recipe)]) == 0
    run = tmp_path / "run"
    curve = LearningCurve.load(run)
    assert (curve.metric, curve.greater_is_better, curve.num_labeled) == ("eval_rmse", False, (6, 10))
    assert {"eval_rmse", "eval_mae", "eval_r2", "eval_loss"} <= set(curve.points[0]["metrics"])
    model, processor = TabularMLPForPrediction.from_pretrained(run), TabularProcessor.from_pretrained(run)
    assert processor.columns == ("a", "b", "kind")
    with torch.no_grad():
        found = model(**processor({"a": [0.5], "b": [None], "kind": ["new"]}, return_tensors="pt")).logits
    assert 5e4 < found.item() < 2e5
    words = ["query", str(recipe), "--model_name_or_path", str(run), "--output_dir", str(tmp_path / "next")]
    assert main(words) == 0
    assert "4 of " in capsys.readouterr().out
    assert len((tmp_path / "next" / "queries" / "round-00.jsonl").read_text().splitlines()) == 4
    others = [*words[:-1], str(tmp_path / "third"), "--dataset_name", str(tmp_path / "other.csv")]
    lines = [f"{row},{row + 1},{row},{'ab'[row % 2]},1.5," for row in range(30)]  # ``b`` only numbers these
    (tmp_path / "other.csv").write_text("\n".join([",Id,b,kind,a,price", *lines]))
    assert main(others) == 0
    assert "Inputs: numbers (2): a, b; categories (1): kind. Together 4 features." in capsys.readouterr().err


def test_a_resumed_run_ends_as_one_that_was_not_interrupted(recipe: Path, tmp_path: Path) -> None:
    def run(folder: str, *flags: str) -> ActiveTrainer:
        job = prepare(*parse(recipe, [f"--output_dir={tmp_path}/{folder}", *flags]))
        job.trainer.train(resume_from_checkpoint=job.arguments.resumes)
        return job.trainer

    whole = run("whole")
    run("parts", "--num_rounds=1")
    resumed = run("parts", "--resume_from_checkpoint=true")
    assert resumed.pool.annotations == whole.pool.annotations
    assert [record.metrics for record in resumed.history] == [record.metrics for record in whole.history]
    expected = whole.model.state_dict()
    assert "target_scale.mean" in expected
    assert all(torch.equal(value, expected[name]) for name, value in resumed.model.state_dict().items())
    state = ActiveState.load(tmp_path / "parts" / "active_state.json", whole._fingerprint())
    assert all(isinstance(annotation.label, float) for annotation in state.pool.annotations)


def test_classes_are_learned_and_measured(recipe: Path, tmp_path: Path) -> None:
    flags = ["--task=tabular_classification", "--label_column=kind", f"--output_dir={tmp_path}/classes"]
    trainer = prepare(*parse(recipe, flags)).trainer
    trainer.train()
    assert trainer.model.config.id2label == {0: "a", 1: "b"}
    assert {"eval_accuracy", "eval_f1"} <= set(trainer.history[-1].metrics)
    assert not hasattr(trainer.model, "target_scale")


def test_fields_of_the_label_stay_apart_from_the_inputs() -> None:
    pool = Dataset.from_dict({"a": [1, 2, 3], "label": [5, 6, 7], "y": [1.0, 2.0, 3.0]})
    ready, processor = read(pool, label="y")
    assert processor.columns == ("a",)
    assert ready.pool["labels"][:] == [1.0, 2.0, 3.0]
    kinds = Features({"a": Value("int64"), "y": Value("int64")})
    rows = Dataset.from_dict({"a": [1, 2, 3], "y": [0, 1, 0]}, features=kinds)
    batch = CLASSES.collator(processor)(list(read(rows, task=CLASSES, label="y")[0].pool))
    assert (batch["features"].dtype, batch["labels"].tolist()) == (torch.float32, [0, 1, 0])
