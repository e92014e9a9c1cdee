"""The model card: what a reader of the Hub sees."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from tiny_run import make_trainer

from hf_noise_al import NoiseStability
from hf_noise_al.run_folder.history import RoundRecord
from hf_noise_al.run_folder.model_card import _code, _command, _literal, rounds_table, rows_notes


def test_the_card_tells_data_budget_acquisition_curve_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "--hub_token", "secret", "--seed=3"])
    trainer = make_trainer(tmp_path / "run", acquisition="core_set", acquisition_kwargs=None, num_rounds=2)
    trainer.train()
    trainer.model.config._name_or_path = "prajjwal1/bert-tiny"
    trainer.create_model_card(model_name="mine", dataset="letters", tags="demo", license="apache-2.0")
    text = (tmp_path / "run" / "README.md").read_text()
    card = ModelCard(text)
    assert card.data.base_model == "prajjwal1/bert-tiny"
    assert card.data.license == "apache-2.0"
    assert {"active-learning", "hf_noise_al", "demo"} <= set(card.data.tags)
    assert "# mine" in text
    assert "14 of 60 examples of the pool were labeled, over 2 rounds" in text
    assert "Fine-tuned from prajjwal1/bert-tiny on letters" in text
    assert "`CoreSet(observable=features)`" in text, "no address of a function"
    assert f"| 1 | 14 | {trainer.history[1].metrics['eval_loss']:.4f} |" in text
    assert "python train.py --hub_token ... --seed=3" in text
    assert "secret" not in text
    assert "- query_size: `6`" in text
    assert "- transformers " in text
    assert yaml.safe_load(text.split("---")[1])["library_name"] == "transformers"


def test_a_card_before_any_training(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.create_model_card()
    text = (tmp_path / "README.md").read_text()
    assert "0 of 60 examples" in text
    assert str(tmp_path.parent) not in text.split("## How to reproduce")[0], "no path of this machine"


def test_arguments_of_upstream_only(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="colour"):
        make_trainer(tmp_path).create_model_card(colour="red")


def test_rounds_table_has_every_metric() -> None:
    history = [RoundRecord(0, 10, 10, 1.0, 0.0, {"eval_f1": 0.5}), RoundRecord(1, 20, 10, 1.0, 2.0, {"eval_acc": 0.25})]
    assert rounds_table(history).splitlines() == [
        "| round | labels | eval_f1 | eval_acc |",
        "| --: | --: | --: | --: |",
        "| 0 | 10 | 0.5000 |  |",
        "| 1 | 20 |  | 0.2500 |",
    ]
    assert rounds_table([]).splitlines()[0] == "| round | labels |"


def test_the_card_says_on_how_many_rows_with_which_interval_and_what_few_rows_mean() -> None:
    history = [
        RoundRecord(
            *(number, 10 * number + 10, 10, 1.0, 0.0),
            {"eval_acc": 1.0, "eval_loss": 0.5, "cv_acc": 0.9},
            {"eval_acc": 6, "eval_loss": 6, "cv_acc": 10 * number + 10},
            {"eval_acc": [0.61, 1.0], "cv_acc": [0.6, 0.98]},
        )
        for number in range(2)
    ]
    assert (
        rounds_table(history).splitlines()[-1]
        == "| 1 | 20 | 1.0000 (0.610 to 1.000) | 0.5000 | 0.9000 (0.600 to 0.980) |"
    )
    measured, crossed, few = rows_notes(history)
    assert measured.startswith("Measured: eval_acc, eval_loss on 6 rows; cv_acc on 10 to 20 rows. In brackets: 95 %")
    assert "cross-validated over the labeled rows" in crossed and "no random sample" in crossed
    assert few.startswith("**Few rows to measure on: the evaluation set has 6 rows.") and "0.61 to 1.00" in few


def test_a_card_of_enough_rows_warns_of_nothing_and_one_of_an_earlier_release_says_nothing() -> None:
    enough = RoundRecord(0, 10, 10, 1.0, 0.0, {"eval_acc": 1.0}, {"eval_acc": 50})
    assert rows_notes([enough]) == ["Measured: eval_acc on 50 rows."]
    assert rows_notes([RoundRecord(0, 10, 10, 1.0, 0.0, {"eval_acc": 1.0})]) == rows_notes([]) == []
    many = {f"eval_iou_{number}": 90 for number in range(300)}
    assert len(rows_notes([RoundRecord(0, 1, 1, 1.0, 0.0, dict.fromkeys(many, 0.5), many)])[0]) < 200


def test_the_card_of_a_run_names_its_rows(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, num_rounds=1)
    trainer.train()
    trainer.create_model_card()
    text = (tmp_path / "README.md").read_text()
    assert "Measured: eval_loss, eval_accuracy on 20 rows." in text and "**Few rows to measure on" in text


def test_secrets_do_not_get_into_the_command() -> None:
    assert _command(["run.py", "--hub_token=abc", "--push_to_hub_token", "def", "--seed", "1"]) == [
        *("python", "run.py", "--hub_token=...", "--push_to_hub_token", "...", "--seed", "1")
    ]


@pytest.mark.parametrize(
    ("script", "command"),
    [
        ("/env/lib/hf_noise_al/__main__.py", "python -m hf_noise_al"),
        ("/env/bin/hf-noise-al", "hf-noise-al"),
        ("hf-noise-al.exe", "hf-noise-al"),
        ("/mine/__main__.py", "python /mine/__main__.py"),
        ("train.py", "python train.py"),
    ],
)
def test_the_command_is_what_a_reader_can_type(script: str, command: str) -> None:
    assert _command([script, "run", "x.yaml", "--hub_token", "abc"]) == [
        *command.split(),
        *("run", "x.yaml", "--hub_token", "..."),
    ]


@pytest.mark.parametrize(
    ("max_steps", "shown", "hidden"), [(7, "max_steps", "num_train_epochs"), (-1, "num_train_epochs", "max_steps")]
)
def test_only_the_length_of_training_that_counts_is_told(
    tmp_path: Path, max_steps: int, shown: str, hidden: str
) -> None:
    make_trainer(tmp_path, max_steps=max_steps).create_model_card()
    text = (tmp_path / "README.md").read_text()
    assert f"- {shown}: `" in text and f"- {hidden}: `" not in text


NASTY = [
    "a | b",
    "two\nlines\n\n# title\n---\n",
    "<script>alert(1)</script> & <!-- x",
    "`code` ``",
    "[link](javascript:alert(1)) ![image](x)",
    "key: value # 'quoted' \"twice\"",
    "--- *bold* __bold__ ~~gone~~ $x$ \\",
    "\x1b[31m\udc80",
]


@pytest.mark.parametrize("name", NASTY)
def test_names_that_are_not_ours_change_nothing_but_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "--dataset_name", name])
    acquisition = NoiseStability(parameter_filter=f"weight|{re.escape(name)}")
    trainer = make_trainer(tmp_path, trainer={"acquisition": acquisition})
    trainer.model.config._name_or_path = name
    trainer.history.append(RoundRecord(0, 10, 10, 1.0, 0.0, {f"eval_{name}": 0.5, "eval_loss": 0.25}))
    trainer.create_model_card(model_name=name, dataset=name, tags=name, dataset_tags=name)
    text = (tmp_path / "README.md").read_text()

    card = ModelCard(text).data
    assert name in card.tags and card.datasets == name and card.base_model == name
    body = re.sub(r"(?s)^---\n.*?\n---\n", "", text, count=1)
    assert "\x1b" not in body
    fence = re.search(r"(?m)^(`{3,})bash$", body)[1]
    assert body.count(f"\n{fence}") == 2, "the command is one block"
    before, command, after = re.split(rf"(?m)^{fence}(?:bash)?$", body)
    assert shlex.split(command.strip().replace(r"\udc80", "\udc80"))[:3] == ["python", "train.py", "--dataset_name"]
    assert [line for line in before.splitlines() if line.startswith("#")][1:] == [
        *("## Learning curve", "## How to reproduce")
    ]
    assert after.strip().startswith("- seed: `")
    table = [line for line in before.splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in table] == [5, 5, 5]
    without_code = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", re.sub(r"\\[`\\]", "", before))
    assert not re.search(r"[<`]|(?<!\\)[\[\]*~$]", without_code)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("nyu-mll/glue (mrpc)", "nyu-mll/glue (mrpc)"),
        ("eval_f1", "eval_f1"),
        ("_a_ __b__", r"\_a\_ \_\_b\_\_"),
        ("a|b<c>&", r"a\|b&lt;c&gt;&amp;"),
        ("[x](y) `z` \\", r"\[x\](y) \`z\` \\"),
    ],
)
def test_a_name_is_escaped_where_markdown_would_read_it(name: str, shown: str) -> None:
    assert _literal(name) == shown


@pytest.mark.parametrize(("value", "shown"), [("a", "`a`"), ("a`b", "`` a`b ``"), ("```", "```` ``` ````"), (3, "`3`")])
def test_code_in_a_line_is_one_piece(value: object, shown: str) -> None:
    assert _code(value) == shown
