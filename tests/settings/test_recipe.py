"""Recipes: found by path or name, read with their lines, refused with file and line."""

import re
from pathlib import Path

import pytest

from hf_noise_al.settings import recipe
from hf_noise_al.settings.recipe import InvalidArgument, did_you_mean, find_recipe, list_recipes, read_recipe


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_reads_settings_in_order_with_their_lines(tmp_path: Path) -> None:
    settings = read_recipe(write(tmp_path, "# what it is\ntask: x\n\nseeds: [1, 2]\n"))
    assert [(item.name, item.value, item.line) for item in settings] == [("task", "x", 2), ("seeds", [1, 2], 4)]


def test_broken_yaml_is_refused_with_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, "task: x\nseeds: [1, 2\nmetric: y\n")
    with pytest.raises(InvalidArgument, match=rf"{path}, line 3: not valid YAML"):
        read_recipe(path)


def test_a_key_that_stands_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="line 3: `task` was already set in line 1"):
        read_recipe(write(tmp_path, "task: x\nseed: 1\ntask: y\n"))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words\n"])
def test_a_file_without_settings_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidArgument, match="holds no settings"):
        read_recipe(write(tmp_path, text))


def test_yaml_cannot_make_python_objects(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="not valid YAML"):
        read_recipe(write(tmp_path, "task: !!python/object/apply:os.getcwd []\n"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"task: x\nmetric: caf\xe9\n", "line 2: this is not UTF-8 text (the byte 0xe9, as in Latin-1). Save"),
        ("task: x\n".encode("utf-16"), "line 1: this is not UTF-8 text (it is UTF-16). Save the file as UTF-8"),
        ("task: x\n".encode("utf-16-be"), "line 1: this is not UTF-8 text (a NUL byte"),
        (b"task: x\nseed: " + b"1" * 5000, "line 2: found a number of 5000 digits"),
        (b"task: x\nseed: 0x" + b"f" * 6000, "line 2: found a number of 6002 digits"),
        (b"task: x\nseeds: " + b"[" * 100_000, "line 2: the values are more than 20 deep"),
        (b"task: x\nseeds: &a [*a]\n", "line 2: the values are more than 20 deep"),
        (b"1: x\n", "line 1: the key `1` is not the name of a setting"),
        (b"task: x\non: x\n", "line 2: the key `on` is not the name"),
        (b"task: x\n? [a]\n: x\n", "line 2: the key a list or a mapping is not the name"),
        (b"model_config:\n  a: 1\n  b: 1\n  a: 2\n", "line 4: `a` was already set in line 2"),
        (b"model_config:\n  2001-01-01: 1\n", "line 2: the key `2001-01-01` is not the name"),
        (b"task: x\nseed: 2001-99-99\n", "line 2: not valid YAML (`2001-99-99` is no value: month must be in 1..12)"),
        (b"seed: !!bool foo\n", "line 1: not valid YAML (`foo` is no value"),
        (b"task: x\nmetric: a\x01\n", "line 2: not valid YAML (the character U+0001 may not stand in it)"),
    ],
)
def test_what_no_setting_is_is_refused_with_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=re.escape(f"{path}, {message}")):
        read_recipe(path)


@pytest.mark.parametrize("item", ["[{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}]", "{{<<: [{0}, {0}, {0}]}}"])
def test_aliases_that_grow_without_end_are_refused(tmp_path: Path, item: str) -> None:
    steps = [f"k{n}: &k{n} {item.format(f'*k{n - 1}')}\n" for n in range(1, 15)]
    with pytest.raises(InvalidArgument, match=r"recipe.yaml, line \d+: the values are .* aliases written out"):
        read_recipe(write(tmp_path, "".join(["k0: &k0 {a: 1}\n", *steps])))


def test_what_is_unusual_and_right_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes("\ufeffshared: &s {a: 1}\r\nmodel_config: {<<: *s, id2label: {0: n, 1: y}}\r\n".encode())
    settings = {item.name: (item.value, item.line) for item in read_recipe(path)}
    assert settings == {"shared": ({"a": 1}, 1), "model_config": ({"a": 1, "id2label": {0: "n", 1: "y"}}, 2)}


@pytest.mark.parametrize("place", ["a folder", "nothing"])
def test_a_recipe_that_cannot_be_read_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(InvalidArgument, match=f"Cannot read {tmp_path}"):
        read_recipe(tmp_path if place == "a folder" else tmp_path / "nothing.yaml")


def test_lists_every_recipe_below_the_folder_with_its_first_comment(tmp_path: Path) -> None:
    (tmp_path / "glue").mkdir()
    (tmp_path / "glue" / "cola.yaml").write_text("# CoLA, acceptable or not\n# more\ntask: x\n")
    (tmp_path / "plain.yaml").write_text("task: x\n")
    assert list_recipes(tmp_path) == {"glue/cola": "CoLA, acceptable or not", "plain": ""}


def test_finds_a_recipe_by_path_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "glue").mkdir()
    path = tmp_path / "glue" / "cola.yaml"
    path.write_text("task: x\n")
    monkeypatch.setattr(recipe, "recipe_folder", lambda: tmp_path)
    monkeypatch.chdir(tmp_path / "glue")  # where no path of that name leads to a recipe
    for name in (str(path), "glue/cola", "glue/cola.yaml", "recipes/glue/cola.yaml"):
        assert find_recipe(name) == path
    with pytest.raises(InvalidArgument, match=r"Found no recipe glue/colla\. Did you mean `glue/cola`\?"):
        find_recipe("glue/colla")


def test_suggests_only_names_that_are_near() -> None:
    assert did_you_mean("quary_size", ["query_size", "seed"]) == " Did you mean `query_size`?"
    assert did_you_mean("zzz", ["query_size", "seed"]) == ""
