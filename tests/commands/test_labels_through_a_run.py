"""Labels as people and files write them, from the file through query files and answers to what a resumed run knows."""

import csv
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_run import make_model, make_pool, make_trainer, read_state
from transformers import AutoConfig, AutoModelForSequenceClassification

from hf_noise_al import ActiveTrainer, LabelFile
from hf_noise_al.commands.main import main
from hf_noise_al.experiments.learning_curve import LearningCurve

WORDS = "the a dog cat house was is very good bad film food they he she it".split()
ROWS = 60


@pytest.fixture
def job(tmp_path: Path, tiny_bert_folder: Path) -> "Job":
    return Job(tmp_path, tiny_bert_folder)


class Job:
    """A csv of texts, the command line over it, and a person who answers what is asked."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model, self.out = folder, model, folder / "out"
        self.file = folder / "mine.csv"

    def write(self, labels: Sequence[Any], name: str = "mine.csv", **columns: Sequence[Any]) -> None:
        """Write one row for each label: a key, a text that differs from all others, the label."""
        draw = random.Random(0)
        texts = [f"{' '.join(draw.choices(WORDS, k=5))} {row}" for row in range(len(labels))]
        table = {"id": [f"k{row}" for row in range(len(labels))], "text": texts, **columns, "label": labels}
        self.file = self.folder / name
        if name.endswith("csv"):
            with self.file.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([list(table), *zip(*table.values(), strict=True)])
        else:
            lines = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
            self.file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def run(self, *flags: str, verb: str = "run", model: Path | None = None, rounds: int = 3, out: str = "out") -> int:
        """Run the command line; a run answers its queries from the folder of query files."""
        self.out = self.folder / out
        recipe = self.folder / "recipe.yaml"
        recipe.write_text(
            f"dataset_name: {self.file}\noutput_dir: {self.out}\nnum_rounds: {rounds}\nmax_steps: 2\n"
            "query_size: 4\ninitial_size: 4\nacquisition: random\nuse_cpu: true\nsave_strategy: 'no'\n"
            "disable_tqdm: true\nreport_to: none\n"
        )
        answers = [] if verb == "query" else ["--label_file", str(self.out / "queries")]
        return main([verb, str(recipe), "--model_name_or_path", str(model or self.model), *answers, *flags])

    def asked(self, number: int) -> list[dict[str, Any]]:
        path = self.out / "queries" / f"round-{number:02d}.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def answer(self, number: int, label: Callable[[dict[str, Any]], Any]) -> None:
        lines = [
            {**line, "label": label(line) if line["label"] is None else line["label"]} for line in self.asked(number)
        ]
        path = self.out / "queries" / f"round-{number:02d}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def kept(self) -> dict[int, Any]:
        """Return the labels of the run by row, by the names of its classes."""
        state = read_state(self.out)
        names = state["fingerprint"].get("classes")
        return {a["row"]: names[a["label"]] if names else a["label"] for a in state["annotations"]}


def test_stars_are_kept_as_they_were_typed(job: Job) -> None:
    job.write([row % 5 + 1 if row < 30 else "" for row in range(ROWS)])
    assert job.run() == 2, "it waits for labels"
    asked = job.asked(1)
    typed = dict(zip([line["row"] for line in asked], [4, "4", 2, 1], strict=True))
    assert all(line["classes"] == ["1", "2", "3", "4", "5"] for line in asked)
    job.answer(1, lambda line: typed[line["row"]])
    assert job.run("--resume_from_checkpoint", "true") == 2
    assert {row: job.kept()[row] for row in typed} == {row: str(label) for row, label in typed.items()}
    assert [line["label"] for line in job.asked(1)] == [4, "4", 2, 1], "and their file is theirs"


def test_answers_from_another_file_come_back_as_names(job: Job, tmp_path: Path) -> None:
    job.write([["bad", "ok", "good"][row % 3] if row < 30 else "" for row in range(ROWS)])
    job.run()
    answers = tmp_path / "answers.jsonl"
    rows = [line["row"] for line in job.asked(1)]
    typed = ["ok", "bad", " good ", 1]  # found in the order bad, good, ok
    answers.write_text(
        "".join(json.dumps({"row": row, "label": name}) + "\n" for row, name in zip(rows, typed, strict=True))
    )
    before = answers.read_bytes()
    job.run("--resume_from_checkpoint", "true", "--label_file", str(answers))
    assert [line["label"] for line in job.asked(1)] == ["ok", "bad", "good", "good"]
    assert answers.read_bytes() == before


@pytest.mark.parametrize("name", ["mine.csv", "mine.jsonl"])
def test_empty_labels_are_missing_in_every_file(job: Job, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    job.write([["bad", "ok", "good"][row % 3] if row < 20 else "" if row % 2 else "  " for row in range(ROWS)], name)
    job.run()
    assert job.asked(1)[0]["classes"] == ["bad", "good", "ok"]
    assert "40 of 60 rows of the pool have no label yet" in capsys.readouterr().err


def test_sentiment_from_minus_one_to_one_has_three_classes_and_takes_a_minus_one(job: Job) -> None:
    job.write([row % 3 - 1 if row < 30 else "" for row in range(ROWS)])
    job.run()
    assert job.asked(1)[0]["classes"] == ["-1", "0", "1"]
    job.answer(1, lambda line: -1)
    job.run("--resume_from_checkpoint", "true")
    assert [job.kept()[line["row"]] for line in job.asked(1)] == ["-1"] * 4


def test_minus_one_is_missing_where_the_named_classes_have_none(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.write([row % 2 if row < 30 else -1 for row in range(ROWS)])
    job.run("--class_names", "bad", "good")
    assert job.asked(1)[0]["classes"] == ["bad", "good"]
    assert "30 of 60 rows of the pool have no label yet: they stay unlabeled: 30 times -1" in capsys.readouterr().err


# ---- the classes of a checkpoint -----------------------------------------------------------------------------------


def test_a_checkpoint_keeps_its_order_of_the_same_classes(job: Job) -> None:
    job.write([["good", "bad"][row % 2] for row in range(ROWS)])
    job.run("--class_names", "good", "bad", rounds=1)
    trained = job.out
    assert AutoConfig.from_pretrained(trained).id2label == {0: "good", 1: "bad"}
    job.run(rounds=1, model=trained, out="again")
    assert AutoConfig.from_pretrained(job.out).id2label == {0: "good", 1: "bad"}
    state = read_state(job.out)
    assert state["fingerprint"]["classes"] == ["good", "bad"]
    assert all(job.kept()[row] == ["good", "bad"][row % 2] for row in job.kept())


def test_a_checkpoint_of_other_classes_gets_a_new_head_and_it_is_said(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    job.write([["good", "bad"][row % 2] for row in range(ROWS)])
    job.run(rounds=1)
    trained = job.out
    job.write([["yes", "no"][row % 2] for row in range(ROWS)], "other.csv")
    assert job.run("--max_steps", "1", "--learning_rate", "0", rounds=1, model=trained, out="other") == 0
    assert "(bad, good), made new for no, yes: classifier.bias, classifier.weight." in capsys.readouterr().err
    heads = [AutoModelForSequenceClassification.from_pretrained(out).classifier for out in (trained, job.out)]
    assert not heads[0].weight.equal(heads[1].weight)
    bodies = [AutoModelForSequenceClassification.from_pretrained(out).bert.pooler.dense for out in (trained, job.out)]
    assert bodies[0].weight.equal(bodies[1].weight)
    assert job.run("--class_names", "yes", "no", verb="query", model=trained, out="asked") == 2
    assert "would be new (2 outputs: yes, no); its own classes are bad, good." in capsys.readouterr().err


def test_a_checkpoint_whose_classes_have_no_names_is_told(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.write([["good", "bad"][row % 2] for row in range(ROWS)])
    job.run(rounds=1)
    assert (
        "has an output head and does not name its classes: its outputs are taken to be bad, good"
        in capsys.readouterr().err
    )


NAMED = st.one_of(
    st.text(min_size=1, max_size=6),
    st.integers(-2, 12).map(str),
    st.sampled_from(
        ["NA", "null", "None", "True", "false", "-1", "-100", "01", "1.0", " a ", "a\u2028b", "\\", '"', "\ud83d"]
    ),
)


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(NAMED, min_size=2, max_size=5, unique_by=str.strip).filter(lambda names: all(map(str.strip, names))),
    st.data(),
)
def test_names_typed_are_names_kept_are_names_in_the_file_after_a_resume(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("run")

    def trainer() -> ActiveTrainer:
        pool = make_pool(12).remove_columns("label").add_column("label", [None] * 12, feature=ClassLabel(names=names))
        model = make_model(num_labels=len(names), id2label=dict(enumerate(names)), label2id={})
        own = {"model": model, "eval_dataset": None, "annotator": LabelFile(folder / "queries")}
        return make_trainer(folder, pool=pool, trainer=own, acquisition="random", acquisition_kwargs={}, initial_size=4)

    asks = trainer()
    rows = asks.query(4).indices.tolist()
    typed = [data.draw(st.sampled_from(names)) for _ in rows]
    path = folder / "queries" / "round-00.jsonl"
    shown = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert [(line["row"], line["classes"]) for line in shown] == [(row, names) for row in rows]
    path.write_text(
        "".join(json.dumps({**line, "label": name}) + "\n" for line, name in zip(shown, typed, strict=True))
    )
    asks.annotate(rows, typed)
    resumed = trainer()
    resumed.resume()
    assert [resumed.reader.spell(resumed.pool.label(row)) for row in rows] == typed
    again = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert [(line["row"], line["label"]) for line in again] == list(zip(rows, typed, strict=True))
    path.unlink()
    resumed.annotate(rows, [f" {name} " for name in typed])
    written = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert [line["label"] for line in written] == typed, "as the data calls them"


# ---- rows ----------------------------------------------------------------------------------------------------------


def test_rows_are_those_of_the_file_and_rows_that_measure_are_not_asked_for(job: Job) -> None:
    job.write(
        [["bad", "good"][row % 2] if row % 3 == 0 else "" for row in range(ROWS)],
        size=[row * 1.5 for row in range(ROWS)],
    )
    job.run()
    with job.file.open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    aside = json.loads((job.out / "set_aside.json").read_text())
    assert 1 <= len(aside) and all(table[row]["label"] for row in aside)
    assert not set(aside) & set(job.kept())
    assert job.kept() == {row: table[row]["label"] for row in range(0, ROWS, 3) if row not in aside}
    for line in job.asked(1):
        own = table[line["row"]]
        assert (line["id"], line["text"], line["size"]) == (own["id"], own["text"], float(own["size"]))
        assert not own["label"]


def test_a_query_after_a_run_leaves_out_what_it_labeled_and_what_it_is_measured_on(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    job.write([["bad", "good"][row % 2] if row < 30 else "" for row in range(ROWS)])
    job.run()
    job.answer(1, lambda line: "good")
    job.run("--resume_from_checkpoint", "true")
    known = set(job.kept())
    aside = json.loads((job.out / "set_aside.json").read_text())
    job.answer(2, lambda line: "bad")
    assert job.run("--resume_from_checkpoint", "true") == 0
    known = set(job.kept())
    trained, left = job.out, ROWS - len(known) - len(aside)
    capsys.readouterr()
    assert job.run("--query_size", str(left), verb="query", model=trained, out="asked") == 0
    assert (
        "8 rows that were labeled for" in (told := capsys.readouterr()).err
        and f"{len(aside)} that it was measured on" in told.err
    )
    assert {line["row"] for line in job.asked(0)} == set(range(ROWS)) - known - set(aside)


def test_rows_that_measure_stay_the_same_when_labels_are_added_to_the_file(job: Job) -> None:
    def aside(labeled: int) -> set[int]:
        job.write([["bad", "good"][row % 2] if row < labeled else "" for row in range(ROWS)])
        job.run(rounds=1, out=f"out-{labeled}")
        return set(json.loads((job.out / "set_aside.json").read_text()))

    few, many = aside(30), aside(50)
    assert len(few) == 3 and few < many and len(many) == 5


def test_a_row_is_told_with_its_line_and_its_key(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.write(["bad", "good", "bad", "godo", *["good"] * 20])
    assert job.run("--class_names", "bad", "good") == 2
    assert (
        "row 3 (mine.csv, line 5, id k3): 'godo' is not a known class. Did you mean 'good'?" in capsys.readouterr().err
    )


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(20)))
def test_whatever_the_order_of_the_file_row_finds_the_text(job: Job, order: list[int]) -> None:
    job.write([["bad", "good"][row % 2] if row < 8 else "" for row in order], rank=order)
    job.run("--start_afresh", "true", rounds=2)
    with job.file.open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    for line in job.asked(1):
        assert table[line["row"]]["text"] == line["text"] and int(table[line["row"]]["rank"]) == line["rank"]


def test_columns_called_as_ours_are_shown(job: Job) -> None:
    job.write(
        [["bad", "good"][row % 2] if row < 30 else "" for row in range(ROWS)],
        score=[f"s{row}" for row in range(ROWS)],
        row=[f"r{row}" for row in range(ROWS)],
    )
    header, *rest = job.file.read_text().splitlines()
    job.file.write_text("\n".join([header.replace("label", "intent").replace("text", "label"), *rest]) + "\n")
    assert job.run("--label_column", "intent", "--text_column", "label") == 2
    for line in job.asked(1):
        assert line["label"] is None and line["label (column)"].endswith(f" {line['row']}")
        assert (line["score (column)"], line["row (column)"]) == (f"s{line['row']}", f"r{line['row']}")


def test_a_file_saved_with_semicolons_goes_on_and_one_in_another_order_is_refused(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    job.write([["bad", "good"][row % 2] if row < 30 else "" for row in range(ROWS)])
    job.run()
    job.answer(1, lambda line: "good")
    with job.file.open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    with job.file.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=";").writerows(table)
    assert job.run("--resume_from_checkpoint", "true") == 2
    assert "has no label for 4 of the 4 rows asked for" in capsys.readouterr().err, "round 2 waits"
    assert [job.kept()[line["row"]] for line in job.asked(1)] == ["good"] * 4
    with job.file.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([table[0], *reversed(table[1:])])
    before = (job.out / "labels.jsonl").read_bytes()
    assert job.run("--resume_from_checkpoint", "true") == 2
    assert "The rows of the data, their order or their labels changed: put the file back" in capsys.readouterr().err
    assert (job.out / "labels.jsonl").read_bytes() == before


# ---- new classes ---------------------------------------------------------------------------------------------------


def test_a_class_that_is_met_while_labeling_joins_the_others(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.write([["bad", "good"][row % 2] if row < 30 else "" for row in range(ROWS)])
    job.run()
    before, typed = job.kept(), iter(["bad", "awful", "good", "awful"])
    job.answer(1, lambda line: next(typed))
    assert job.run("--resume_from_checkpoint", "true") == 2
    assert "'awful' is not a known class" in (told := capsys.readouterr().err) and "--new_classes allow" in told
    asked = [line["row"] for line in job.asked(1)]
    assert job.run("--resume_from_checkpoint", "true", "--new_classes", "allow") == 2, "it waits for round 2"
    assert [line["row"] for line in job.asked(1)] == asked
    assert job.kept() == {**before, **dict(zip(asked, ["bad", "awful", "good", "awful"], strict=True))}
    assert job.asked(2)[0]["classes"] == ["bad", "good", "awful"]
    job.answer(2, lambda line: "awful")
    assert job.run("--resume_from_checkpoint", "true") == 0, "what the run knows need not be said again"
    assert AutoConfig.from_pretrained(job.out).id2label == {0: "bad", 1: "good", 2: "awful"}


def test_classes_may_be_added_by_name_behind_those_of_the_run(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.write([["bad", "good"][row % 2] if row < 30 else "" for row in range(ROWS)])
    job.run()
    job.answer(1, lambda line: "awful")
    assert job.run("--resume_from_checkpoint", "true", "--class_names", "awful", "bad", "good") == 2
    assert read_state(job.out)["fingerprint"]["classes"] == ["bad", "good", "awful"]
    assert [job.kept()[line["row"]] for line in job.asked(1)] == ["awful"] * 4
    capsys.readouterr()
    assert job.run("--resume_from_checkpoint", "true", "--class_names", "bad", "good") == 2
    assert "`class_names` was ['awful', 'bad', 'good'], is ['bad', 'good']" in capsys.readouterr().err


def test_a_finished_run_can_be_extended_with_a_new_class(job: Job) -> None:
    job.write([["bad", "good"][row % 2] if row < 30 else "" for row in range(ROWS)])
    assert job.run(rounds=1) == 0
    job.run("--resume_from_checkpoint", "true", "--class_names", "bad", "good", "awful", rounds=2)
    assert job.asked(1)[0]["classes"] == ["bad", "good", "awful"]
    job.answer(1, lambda line: "awful")
    assert job.run("--resume_from_checkpoint", "true", rounds=2) == 0
    assert len(LearningCurve.load(job.out).points) == 2


def test_another_order_of_classes_is_refused_on_a_resume_and_its_absence_is_none(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    job.write([row % 2 if row < 30 else "" for row in range(ROWS)])
    job.run("--class_names", "good", "bad")
    before = job.kept()
    assert before == {row: ["good", "bad"][row % 2] for row in before}
    job.answer(1, lambda line: "bad")
    assert job.run("--resume_from_checkpoint", "true", "--class_names", "bad", "good") == 2
    assert "`class_names` was ['good', 'bad'], is ['bad', 'good']" in capsys.readouterr().err
    job.run("--resume_from_checkpoint", "true")
    assert job.kept() == {**before, **{line["row"]: "bad" for line in job.asked(1)}}


def test_a_run_of_several_classes_a_row_says_how_to_get_new_ones(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.write([[["a"], ["a", "b"], []][row % 3] if row < 30 else None for row in range(ROWS)], "mine.jsonl")
    job.run()
    assert job.asked(1)[0]["classes"] == ["a", "b"]
    job.answer(1, lambda line: ["b", "c"])
    assert job.run("--resume_from_checkpoint", "true", "--new_classes", "allow") == 2
    assert "cannot get new ones (a, b, c). Start afresh with all of them in `class_names`" in capsys.readouterr().err
    job.run("--start_afresh", "true", "--class_names", "a", "b", "c")
    kept = {a["row"]: a["label"] for a in read_state(job.out)["annotations"]}
    assert [kept[line["row"]] for line in job.asked(1) if line["row"] in kept] == [[0.0, 1.0, 1.0]] * 4
