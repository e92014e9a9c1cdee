"""Every recipe is found, has its header, can be parsed, and runs for one tiny round and a query on a local stand-in."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from datasets import Sequence as SequenceFeature
from segmentation_data import make_folder
from tiny_images import SMALL, make_images
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from hf_noise_al.commands.main import main
from hf_noise_al.experiments.learning_curve import LearningCurve
from hf_noise_al.settings.parsing import parse
from hf_noise_al.settings.recipe import find_recipe, list_recipes

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILES = sorted((ROOT / "recipes" / "accelerate").glob("*.yaml"))
RECIPES = sorted(set((ROOT / "recipes").rglob("*.yaml")) - set(LAUNCH_FILES))
NAMES = [path.relative_to(ROOT / "recipes").with_suffix("").as_posix() for path in RECIPES]
GLUE_CLASSES = {"mnli": 3, "stsb": 0}
HEADER = ("What", "Settings", "Command", "Hardware", "Expected")

each_recipe = pytest.mark.parametrize("path", RECIPES, ids=NAMES)
each_file = pytest.mark.parametrize("path", RECIPES + LAUNCH_FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")


def header(path: Path) -> list[str]:
    """Return the comment lines that a recipe starts with."""
    lines = path.read_text().splitlines()
    return lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]


def test_there_are_twenty_four_recipes_and_the_command_finds_them_all() -> None:
    assert len(RECIPES) == 24
    assert list(list_recipes()) == NAMES


def test_there_is_a_recipe_for_every_task_of_glue() -> None:
    assert {path.stem for path in RECIPES if path.parent.name == "glue"} == set(
        "cola sst2 mrpc stsb qqp mnli qnli rte wnli".split()
    )


@each_file
def test_header_says_what_from_where_how_and_what_to_expect(path: Path) -> None:
    first, second, *rest = header(path)
    assert re.fullmatch(r"# \S.{10,100}\.", first), "the first line is what `hf-noise-al recipes` shows"
    assert second == "#"
    assert [name for name in HEADER if any(line.startswith(f"# {name}: ") for line in rest)] == list(HEADER)


def test_configurations_of_accelerate_are_there_and_are_no_recipes() -> None:
    assert [path.stem for path in LAUNCH_FILES] == ["ddp", "fsdp2", "zero3"]
    assert not any("accelerate" in name for name in list_recipes())


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.stem)
def test_accelerate_reads_its_configurations_and_the_command_names_them(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert config.mixed_precision == "no" and config.num_processes == 2
    command = next(line for line in header(path) if line.startswith("# Command: "))
    assert f"accelerate launch --config_file {path.relative_to(ROOT).as_posix()} --num_processes 2" in command


@each_recipe
def test_command_of_the_header_can_be_parsed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command = next(line for line in header(path) if line.startswith("# Command: ")).removeprefix("# Command:")
    words = [word for word in shlex.split(command) if "=" not in word]
    assert words[:3] == ["hf-noise-al", "run", path.relative_to(ROOT).as_posix()]
    parse(find_recipe(words[2]), words[3:])


def test_the_table_lists_every_recipe_with_its_first_line() -> None:
    table = (ROOT / "recipes" / "README.md").read_text()
    for path in RECIPES:
        name = path.relative_to(ROOT / "recipes").as_posix()
        title = header(path)[0].removeprefix("# ").removesuffix(".")
        assert f"| [{name}]({name}) | {title} |" in table, f"recipes/README.md: | [{name}]({name}) | {title} |"


def text_stand_in(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Save a few texts with the splits and the columns of the recipe's data on the Hub."""
    generator = np.random.default_rng(0)
    num_classes = GLUE_CLASSES.get(recipe.get("dataset_config_name"), 2)
    label = ClassLabel(num_classes=num_classes) if num_classes else Value("float32")
    texts = [recipe[role] for role in ("text_column", "text_pair_column") if role in recipe]
    features = Features(
        {**{name: Value("string") for name in texts}, recipe["label_column"]: label, "idx": Value("int32")}
    )

    def split(rows: int, labeled: bool = True) -> Dataset:
        words = np.array(["the film is good", "a bad book", "not very fine", "the cat and the dog"])
        labels = [row % num_classes if num_classes else 5 * row / rows for row in range(rows)]
        columns = {name: generator.choice(words, size=rows).tolist() for name in texts}
        hidden = [-1] * rows  # as the test splits of GLUE are on the Hub
        columns |= {recipe["label_column"]: labels if labeled else hidden, "idx": list(range(rows))}
        return Dataset.from_dict(columns, features=features)

    parts = {name: split(9) for name in recipe.get("eval_split", ["validation"])}
    splits = {"test": split(5, labeled=False), "train": split(40), **parts}
    if recipe["label_column"] == "label_text":  # names beside the numbers
        splits = {name: rows.rename_column("label_text", "label") for name, rows in splits.items()}
        splits = {
            name: rows.add_column("label_text", [f"about {label}" for label in rows["label"]])
            for name, rows in splits.items()
        }
    DatasetDict(splits).save_to_disk(folder / "data")
    return {"dataset_name": folder / "data"}


def word_stand_in(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Save a few sentences with the splits and the columns of CoNLL-2003."""
    generator = np.random.default_rng(0)
    names = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
    tags = {name: SequenceFeature(ClassLabel(names=names)) for name in ("pos_tags", "chunk_tags", "ner_tags")}
    features = Features({"id": Value("string"), "tokens": SequenceFeature(Value("string")), **tags})

    def split(rows: int) -> Dataset:
        lengths = generator.integers(1, 9, rows).tolist()
        words = [generator.choice(["the", "Dog", "was", "in", "Rome"], length).tolist() for length in lengths]
        columns = {name: [generator.integers(9, size=length).tolist() for length in lengths] for name in tags}
        return Dataset.from_dict({"id": list(map(str, range(rows))), "tokens": words, **columns}, features=features)

    sizes = {"train": 40, "validation": 9, "test": 5}
    DatasetDict({name: split(rows) for name, rows in sizes.items()}).save_to_disk(folder / "data")
    return {"dataset_name": folder / "data"}


def image_stand_in(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Save a few images with the columns and the splits of the recipe's; return flags for them and a small network."""
    columns = recipe["image_column"], recipe["label_column"]
    mode = "L" if recipe["dataset_name"] == "ylecun/mnist" else "RGB"
    size = recipe.get("image_size", 40)

    def split(rows: int) -> Dataset:
        images = make_images(rows, size, mode, classes=4, columns=columns)
        return images.add_column("coarse_label", [0] * rows) if "fine_label" in columns else images

    parts = {"train": split(40), **{name: split(9) for name in recipe.get("eval_split", [])}}
    DatasetDict(parts).save_to_disk(folder / "data")
    flags = {"dataset_name": folder / "data", "max_steps": 2}
    if "model_name_or_path" in recipe:
        ResNetForImageClassification(
            ResNetConfig(embedding_size=4, hidden_sizes=[4, 4], depths=[1, 1], layer_type="basic")
        ).save_pretrained(folder / "model")
        ViTImageProcessor(size={"height": 40, "width": 40}).save_pretrained(folder / "model")
        return flags | {"model_name_or_path": folder / "model"}
    kind = recipe["model_config"]["model_type"]
    own = {} if kind == "small_cnn" else SMALL[kind]
    return flags | {"model_config": json.dumps({"model_type": kind, **own})}


def table_stand_in(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Save a little table as a csv file: the columns that the recipe names, numbers and categories, with gaps."""
    lines = [f"Id,{','.join(recipe['categorical_columns'])},LotFrontage,Street,Alley,{recipe['label_column']}"]
    for row in range(50):
        frontage = "NA" if row % 5 == 0 else str(40 + 3 * row)
        alley = "Pave" if row % 7 == 0 else "NA"
        lines.append(f"{row},{20 * (row % 3)},{frontage},{'Grvl' if row % 4 else 'Pave'},{alley},{100000 + 500 * row}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return {"dataset_name": folder / "table.csv", "max_steps": 2}


def scene_stand_in(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Save small pictures and masks that hold every value of the recipe's data on the Hub."""
    generator = np.random.default_rng(0)
    classes, void = len(recipe.get("class_names", range(150))), recipe["void_label"]
    values = np.array([*[value for value in range(256) if value not in void][:classes], *void], np.uint8)

    def split(rows: int) -> Dataset:
        masks = [np.resize(generator.permutation(values), (32, 48)) for _ in range(rows)]
        pictures = [generator.integers(0, 255, (32, 48, 3)).astype(np.uint8) for _ in range(rows)]
        columns = {recipe["image_column"]: pictures, recipe["label_column"]: masks}
        images = {name: [PIL.Image.fromarray(each) for each in column] for name, column in columns.items()}
        return Dataset.from_dict(images, features=Features(dict.fromkeys(images, Image())))

    DatasetDict({"train": split(40), "validation": split(5)}).save_to_disk(folder / "data")
    flags = {"dataset_name": folder / "data", "max_steps": 1, "dataloader_num_workers": 0}
    if "model_name_or_path" in recipe:
        flags |= {"model_name_or_path": make_folder(folder / "mit", "segformer"), "image_size": 16}
    return flags


def digits_in_two_steps(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return flags for the digits themselves, which need no stand-in."""
    return {"max_steps": 2}


STAND_INS = {
    "quickstart": digits_in_two_steps,
    "glue": text_stand_in,
    "text": text_stand_in,
    "conll2003": word_stand_in,
    "images": image_stand_in,
    "segmentation": scene_stand_in,
    "tabular": table_stand_in,
}
"""By the recipe's name, else its folder. Each returns flags."""


@each_recipe
def test_runs_on_a_stand_in(path: Path, tmp_path: Path, tiny_bert_folder: Path) -> None:
    recipe = yaml.safe_load(path.read_text())
    flags = {
        "output_dir": tmp_path / "run",
        "use_cpu": "true",
        "num_rounds": 2,
        "initial_size": 10,
        "query_size": 4,
        "candidate_size": 8,
        "num_train_epochs": 1,
        "acquisition_kwargs": '{"num_perturbations": 2}',
        "max_train_samples": 40,
        "max_eval_samples": 20,
    }
    if "seeds" in recipe:
        recipe["seeds"] = [0]
        flags["seeds"] = 0
    make = STAND_INS.get(path.stem) or STAND_INS[path.parent.name]
    flags |= make(recipe, tmp_path)
    if make in (text_stand_in, word_stand_in):
        flags["model_name_or_path"] = tiny_bert_folder

    words = ["run", str(path), *(str(word) for name, value in flags.items() for word in (f"--{name}", value))]
    assert main(words) == 0

    acquisitions = [recipe["acquisition"], *recipe.get("baselines", [])]
    repeats = [f"{name}-seed-{seed}" for seed in recipe.get("seeds", []) for name in acquisitions]
    for run in [tmp_path / "run" / repeat for repeat in repeats] or [tmp_path / "run"]:
        curve = LearningCurve.load(run)
        assert curve.num_labeled == (10, 14)
        assert all(np.isfinite(curve.values))
        assert len((run / "queries" / "round-01.jsonl").read_text().splitlines()) == 4
        assert (run / "model.safetensors").exists()
    assert (tmp_path / "run" / "learning_curve.png").stat().st_size > 1000
