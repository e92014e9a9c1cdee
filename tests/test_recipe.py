"""Recipes: found by path or name, read with their lines, refused with file and line."""

from pathlib import Path

import pytest

from hf_noise_al import recipe
from hf_noise_al.recipe import InvalidArgument, did_you_mean, find_recipe, list_recipes, read_recipe


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
