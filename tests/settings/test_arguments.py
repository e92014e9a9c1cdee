"""Arguments: YAML and flags are read by the same rules, and what cannot be used is named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hf_noise_al import ActiveTrainingArguments, LabelFile
from hf_noise_al.settings.parsing import parse
from hf_noise_al.settings.recipe import InvalidArgument

BASE = "model_name_or_path: some/model\ndataset_name: some/data\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(f"{BASE}output_dir: {tmp_path}/out\n{text}")
        return path

    return write


def test_yaml_values_get_the_types_of_the_fields(recipe: Callable[[str], Path]) -> None:
    model, data, training = parse(
        recipe(
            "learning_rate: 5e-5\nquery_size: 7\nwarm_start: true\neval_split: [a, b]\nseeds: [3, 4]\n"
            "acquisition_kwargs: {noise_scale: 1e-3, num_perturbations: 5}\nmetric: f1\nmax_steps: -1\n"
            "candidate_size:\nmodel_config: {model_type: bert, hidden_size: 8}\nreport_to: [none]\n"
        )
    )
    assert training.learning_rate == 5e-5
    assert (training.query_size, training.max_steps, training.warm_start) == (7, -1, True)
    assert (training.seeds, training.candidate_size, training.report_to) == ([3, 4], None, [])
    assert training.acquisition_kwargs == {"noise_scale": 1e-3, "num_perturbations": 5}
    assert (data.eval_split, data.metric) == (["a", "b"], ["f1"])
    assert model.model_config == {"model_type": "bert", "hidden_size": 8}
    assert isinstance(training, ActiveTrainingArguments)


def test_flags_override_the_recipe(recipe: Callable[[str], Path]) -> None:
    path = recipe("query_size: 7\nmetric: [accuracy, f1]\nwarm_start: true\n")
    _, data, training = parse(path, ["--query-size", "8", "--metric", "f1", "--warm_start", "false", "--seed=5"])
    assert (training.query_size, training.warm_start, training.seed, data.metric) == (8, False, 5, ["f1"])


@pytest.mark.parametrize(
    "flag", [["--model_config", '{"model_type": "bert"}'], ['--model-config={"model_type": "bert"}']]
)
def test_a_model_made_by_a_flag_wins_over_the_recipes_checkpoint(
    recipe: Callable[[str], Path], flag: list[str]
) -> None:
    path = recipe("model_revision: v2\n")
    model = parse(path, flag)[0]
    assert (model.model_name_or_path, model.model_config) == (None, {"model_type": "bert"})
    assert model.model_revision == "main", "that was of the recipe's checkpoint"
    both = parse(path, [*flag, "--model_name_or_path", "mine"])[0]
    assert (both.model_name_or_path, both.model_config) == ("mine", {"model_type": "bert"})


def test_a_checkpoint_named_by_a_flag_wins_over_the_recipes_configuration(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model_config: {model_type: bert}\ndataset_name: some/data\noutput_dir: out\n")
    assert parse(path, ["--model_name_or_path", "mine"])[0].model_name_or_path == "mine"


def test_another_acquisition_leaves_the_settings_of_the_recipes_own_behind(recipe: Callable[[str], Path]) -> None:
    path = recipe("acquisition: noise_stability\nacquisition_kwargs: {num_perturbations: 5}\n")
    for flags in (["--acquisition", "random"], ["--acquisition=random"]):
        assert parse(path, flags)[2].acquisition_kwargs is None
    assert parse(path, ["--acquisition", "noise_stability"])[2].acquisition_kwargs == {"num_perturbations": 5}
    assert parse(path, [])[2].acquisition_kwargs == {"num_perturbations": 5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quary_size: 5\n", r"line 4: unknown key `quary_size`\. Did you mean `query_size`\?"),
        ("query_size: many\n", r"Cannot use `query_size` \(.*recipe.yaml, line 4\): invalid int value: 'many'"),
        ("learning_rate: [1, 2]\n", r"`learning_rate` \(.*line 4\): it takes one value, found the list \[1, 2\]"),
        ("query_size: {a: 1}\n", r"`query_size` \(.*line 4\): it takes no mapping, found {\"a\": 1}"),
        ("text_column: no\n", r"`text_column` \(.*line 4\): it is not a yes-or-no setting; put text in quotes"),
        ("warm_start: maybe\n", r"Cannot use `warm_start` \(.*line 4\): Truthy value expected: got maybe"),
        ("eval_split: [[a]]\n", r"`eval_split` \(.*line 4\): it takes a list of plain values"),
        ("acquisition: nois_stability\n", "Unknown `acquisition` 'nois_stability'"),
        ("model_config: {hidden_size: 8}\n", "`model_config` has no `model_type`"),
        ("validation_fraction: 2\n", r"`validation_fraction` is 2\.0\. Set it between 0 and 1"),
        ("max_seq_length: 0\n", r"`max_seq_length` is 0\. Set it to at least 1"),
        ("load_best_model_at_end: true\neval_strategy: epoch\n", "save and eval strategy to match"),
    ],
)
def test_what_a_recipe_cannot_say_is_refused(recipe: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse(recipe(text))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--quary_size", "5"], r"Unknown flag `--quary_size`\. Did you mean `--query_size`\?"),
        (["--query", "5"], "Unknown flag `--query`"),  # no abbreviations
        (["--query_size", "many"], r"Cannot use `query_size`: invalid int value: 'many'"),
        (["--query_size"], "Cannot use `query_size`: expected one argument"),
        (["stray"], "Cannot use 'stray': write flags as `--name value`"),
        (["--model_config", "{"], "`model_config` is not valid JSON"),
        (["--model_config", "[1]"], "`model_config` is not a mapping"),
        (["--resume_from_checkpoint", "true", "--start_afresh", "true"], "exclude each other"),
    ],
)
def test_what_flags_cannot_say_is_refused(recipe: Callable[[str], Path], flags: list[str], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse(recipe(""), flags)


def test_a_wrong_flag_is_not_blamed_on_the_recipe(recipe: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidArgument, match="Cannot use `query_size`: invalid"):
        parse(recipe("query_size: 5\n"), ["--query_size", "many"])


def test_model_and_data_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="No model is named"):
        parse(None, ["--dataset_name", "x", "--output_dir", str(tmp_path)])
    with pytest.raises(InvalidArgument, match="No data is named"):
        parse(None, ["--model_name_or_path", "x", "--output_dir", str(tmp_path)])


@pytest.mark.parametrize(("value", "resumes"), [("true", True), ("false", False), ("no", False), ("yes", True)])
def test_resumes_says_whether_the_run_goes_on(recipe: Callable[[str], Path], value: str, resumes: bool) -> None:
    assert parse(recipe(""), ["--resume_from_checkpoint", value])[2].resumes is resumes


def test_a_run_is_resumed_in_its_own_folder_only(
    recipe: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe("")
    monkeypatch.chdir(tmp_path)
    for own in (f"{tmp_path}/out", "out/", "./elsewhere/../out"):
        assert parse(path, ["--resume_from_checkpoint", own])[2].resumes
    for other in ("out/checkpoint-4", "elsewhere"):
        message = rf"Cannot resume from {other}: .* `output_dir` is .*out\. Set `output_dir` to {other} and"
        with pytest.raises(InvalidArgument, match=message):
            parse(path, ["--resume_from_checkpoint", other])


def test_repeats_are_resumed_in_the_folder_that_holds_them(recipe: Callable[[str], Path], tmp_path: Path) -> None:
    flags = ["--seeds", "0", "1", "--resume_from_checkpoint", f"{tmp_path}/out", "--seed=1"]
    assert parse(recipe(""), [*flags, f"--output_dir={tmp_path}/out/noise_stability-seed-1"])[2].resumes
    with pytest.raises(InvalidArgument, match="Cannot resume from .*out: a run goes on in its own folder"):
        parse(recipe(""), [*flags, f"--output_dir={tmp_path}/out/other"])


def test_settings_of_an_acquisition_that_are_no_json_are_named() -> None:
    with pytest.raises(InvalidArgument, match=r"`acquisition_kwargs` is not valid JSON: .* Found \{estimator: auto\}"):
        parse(
            None,
            ["--dataset_name=x", "--model_name_or_path=x", "--output_dir=x", "--acquisition_kwargs={estimator: auto}"],
        )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--annotator", "label_fil"], r"Unknown `annotator` label_fil\. Did you mean `label_file`\? There are: "),
        (
            ["--annotator", "label_file"],
            r"Cannot make the annotator label_file: missing a required .*kwargs` are path\.",
        ),
        (
            ["--annotator", "label_file", '--annotator_kwargs={"path": "x", "pth": "x"}'],
            "Cannot make the annotator label_file: .*pth",
        ),
        (["--annotator", "label_file", "--annotator_kwargs={"], "`annotator_kwargs` is not valid JSON"),
        (["--annotator_kwargs={}"], "`annotator_kwargs` are set, and no `annotator`. Name one, or leave them out"),
        (["--annotator", "label_file", "--label_file", "x"], "both say who answers queries. Leave one of them out"),
    ],
)
def test_an_annotator_that_cannot_be_made_is_refused(
    recipe: Callable[[str], Path], flags: list[str], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse(recipe(""), flags)


def test_an_annotator_is_made_of_its_name_and_settings(recipe: Callable[[str], Path]) -> None:
    assert parse(recipe(""))[2].make_annotator() is None
    for text in ("label_file: a.jsonl\n", "annotator: label_file\nannotator_kwargs: {path: a.jsonl}\n"):
        training = parse(recipe(text))[2]
        made = training.make_annotator()
        assert isinstance(made, LabelFile) and made.path == Path("a.jsonl")
        assert (training.label_file, training.annotator) == ("a.jsonl", None), "one run, however it was asked for"
    held_out = parse(recipe("annotator: held_out_labels\nannotator_kwargs: {labels: [1, 0]}\n"))[2].make_annotator()
    assert held_out is not None and held_out.annotate([1, 0]) == [0, 1]
