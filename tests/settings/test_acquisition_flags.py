"""Settings of the acquisition as flags and keys: typed as its fields say, the same run however they are given."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

import pytest

from hf_noise_al.acquisition import ACQUISITIONS, RandomSampling
from hf_noise_al.run_folder.fingerprint import argument_fingerprint
from hf_noise_al.settings.acquisition_flags import options_of, read_value, without_options
from hf_noise_al.settings.parsing import parse
from hf_noise_al.settings.recipe import InvalidArgument


@dataclass(frozen=True)
class Various(RandomSampling):
    """Has a field of each kind."""

    scale: float = field(default=0.5, metadata={"help": "How much."})
    count: int = 3
    on: bool = False
    name: str | None = None
    mode: Literal["fast", "exact"] | int = "fast"
    bound: Optional[float] = None  # noqa: UP045 (as authors of plug-ins may write it)
    key: Callable[[int], int] | None = None


OPTIONS = options_of(Various)


@pytest.fixture
def parsed(tmp_path: Path) -> Callable[..., Any]:
    """Return a function that reads a recipe with these lines, and flags; it returns the arguments of the run."""

    def read(text: str, *flags: str) -> Any:
        path = tmp_path / "recipe.yaml"
        path.write_text(f"model_name_or_path: m\ndataset_name: d\noutput_dir: {tmp_path}/out\n{text}")
        return parse(path, flags)[2]

    return read


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("scale", "1e-3", 1e-3),
        ("scale", "2", 2),
        ("count", "-4", -4),
        ("on", "Yes", True),
        ("on", "false", False),
        ("name", "none", None),
        ("name", "a b", "a b"),
        ("mode", "exact", "exact"),
        ("mode", "12", 12),
        ("bound", "null", None),
        ("bound", "inf", float("inf")),
    ],
)
def test_text_is_read_as_the_type_of_the_field(name: str, text: str, value: object) -> None:
    read = read_value(OPTIONS[name], text, "it")
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("scale", "much", "Cannot use `--x`: it takes float, found 'much'."),
        ("count", "1.5", "Cannot use `--x`: it takes int, found '1.5'."),
        ("count", "9" * 5000, "Cannot use `--x`: it takes int, found '99"),
        ("on", "maybe", "Cannot use `--x`: it takes true | false, found 'maybe'."),
        ("mode", "slow", "Cannot use `--x`: it takes fast | exact | int, found 'slow'."),
        ("bound", "low", "Cannot use `--x`: it takes float | none, found 'low'."),
        ("key", "len", "Cannot use `--x`: no text stands for its value. Set it as JSON in `acquisition_kwargs`"),
    ],
)
def test_text_of_another_type_is_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_value(OPTIONS[name], text, "`--x`")
    assert str(refused.value).startswith(message)


def test_an_option_has_the_default_and_the_help_of_its_field() -> None:
    assert (OPTIONS["scale"].default, OPTIONS["scale"].help, OPTIONS["scale"].kind) == (0.5, "How much.", "float")
    assert OPTIONS["key"].kind == ""


@pytest.mark.parametrize("name", sorted(ACQUISITIONS))
def test_every_setting_of_ours_is_explained_and_typed(name: str) -> None:
    for option in options_of(ACQUISITIONS[name]).values():
        assert option.help, option.name
        assert option.kind or option.name == "observable"


SAME = [
    ("", ["--acquisition.noise_scale", "1e-2", "--acquisition.num-perturbations=7"]),
    ("", ["--acquisition_kwargs", '{"noise_scale": 1e-2, "num_perturbations": 7}']),
    ("", ['--acquisition-kwargs={"noise_scale": 0.01}', "--acquisition.num_perturbations", "7"]),
    ("acquisition.noise_scale: 1e-2\nacquisition.num_perturbations: 7\n", []),
    ("acquisition_kwargs: {noise_scale: 1e-2}\nacquisition.num_perturbations: 7\n", []),
    ("acquisition_kwargs: {noise_scale: 1e-2, num_perturbations: 9}\n", ["--acquisition.num_perturbations", "7"]),
    ("acquisition.noise_scale: 5\n", ["--acquisition.num_perturbations=7", "--acquisition.noise_scale=0.01"]),
]


@pytest.mark.parametrize(("text", "flags"), SAME)
def test_a_run_is_the_same_however_its_settings_are_given(
    parsed: Callable[..., Any], text: str, flags: list[str]
) -> None:
    training = parsed(text, *flags)
    assert training.acquisition_kwargs == {"noise_scale": 0.01, "num_perturbations": 7}
    usual = parsed("acquisition_kwargs: {noise_scale: 1e-2, num_perturbations: 7}\n")
    one, other = (argument_fingerprint(args, args.make_acquisition()) for args in (training, usual))
    assert json.dumps(one) == json.dumps(other)


def test_a_whole_number_is_the_same_in_a_fingerprint_as_a_flag_and_in_the_mapping(parsed: Callable[..., Any]) -> None:
    for text, flags in (("", ["--acquisition.noise_scale=1"]), ("acquisition_kwargs: {noise_scale: 1}\n", [])):
        made = parsed(text, *flags)
        assert argument_fingerprint(made, made.make_acquisition())["acquisition"]["noise_scale"] == "1"  # type: ignore[index]


def test_another_acquisition_leaves_the_recipes_settings_of_its_own_behind(parsed: Callable[..., Any]) -> None:
    text = "acquisition.noise_scale: 1e-2\nacquisition_kwargs: {num_perturbations: 7}\n"
    assert parsed(text, "--acquisition", "random").acquisition_kwargs is None
    assert parsed(text, "--acquisition=bald", "--acquisition.num_samples=5").acquisition_kwargs == {"num_samples": 5}


def test_the_mapping_as_a_flag_replaces_all_that_the_recipe_sets(parsed: Callable[..., Any]) -> None:
    training = parsed("acquisition.noise_scale: 1e-2\n", '--acquisition_kwargs={"num_perturbations": 7}')
    assert training.acquisition_kwargs == {"num_perturbations": 7}


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        (
            "",
            ["--acquisition.noise_scal", "1"],
            r"Unknown flag `--acquisition\.noise_scal`\. Did you mean "
            r"`--acquisition\.noise_scale`\? The acquisition noise_stability has noise_scale, ",
        ),
        ("", ["--noise_scale", "1"], r"Unknown flag `--noise_scale`\. Did you mean `--acquisition\.noise_scale`\?"),
        ("", ["--acquisition=random", "--acquisition.noise_scale=1"], "The acquisition random has no settings"),
        ("", ["--acquisition.noise_scale", "much"], r"Cannot use `--acquisition\.noise_scale`: it takes float, found"),
        ("", ["--acquisition.noise_scale"], r"Cannot use `--acquisition\.noise_scale`: expected one argument"),
        ("", ["--acquisition.noise_scale", "--seed=1"], "noise_scale`: expected one argument"),
        ("", ["--acquisition.noise_scale=-1"], "`noise_scale` must be"),
        (
            "",
            ["--acquisition.noise_scale=1", '--acquisition_kwargs={"noise_scale": 2}'],
            r"`acquisition\.noise_scale` is 1, and `acquisition_kwargs` says 2\. Set it in one of them",
        ),
        ("acquisition.noise_scale: 1\nacquisition_kwargs: {noise_scale: 2}\n", [], "says 2. Set it in one of them"),
        ("acquisition.noise_scal: 1\n", [], r"line 4: unknown key `acquisition\.noise_scal`\. Did you mean `acq"),
        ("acquisition.noise_scale: a\n", [], r"Cannot use `acquisition\.noise_scale` \(.*line 4\): it takes float, "),
        ("acquisition.noise_scale: [1]\n", [], r"\(.*line 4\): it takes one value, found \[1\]"),
        ("acquisition.parameter_filter: no\n", [], r"line 4\): it is not a yes-or-no setting; put text in quotes"),
        ("", ["--acquisition=nois", "--acquisition.noise_scale=1"], "Unknown `acquisition` 'nois'"),
        ("", ["--acquisition_kwargs={", "--acquisition.noise_scale=1"], "`acquisition_kwargs` is not valid JSON"),
    ],
)
def test_what_cannot_be_set_is_refused_by_the_name_that_was_written(
    parsed: Callable[..., Any], text: str, flags: list[str], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parsed(text, *flags)


def test_repeats_with_another_acquisition_drop_these_flags() -> None:
    flags = ["--seed=1", "--acquisition.noise_scale", "-1", "--query_size", "5", "--acquisition.selection=top_k", "--x"]
    assert without_options(flags) == ["--seed=1", "--query_size", "5", "--x"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"mode": "sideways"}, "`mode` takes fast | exact | int, found 'sideways'"),
        ({"mode": True}, "`mode` takes fast | exact | int, found True"),
        ({"count": 2.5}, "`count` takes int, found 2.5"),
        ({"count": "2"}, "`count` takes int, found '2'"),
        ({"count": None}, "`count` takes int, found None"),
        ({"on": 1}, "`on` takes true | false, found 1"),
        ({"scale": "much"}, "`scale` takes float, found 'much'"),
    ],
)
def test_a_value_of_the_mapping_that_has_another_type_is_refused(
    monkeypatch: pytest.MonkeyPatch, parsed: Callable[..., Any], value: dict[str, Any], kind: str
) -> None:
    monkeypatch.setitem(ACQUISITIONS, "various", Various)
    with pytest.raises(InvalidArgument) as refused:
        parsed("", "--acquisition=various", f"--acquisition_kwargs={json.dumps(value)}")
    assert str(refused.value) == f"Cannot use `acquisition_kwargs`: {kind}."


def test_values_of_the_mapping_are_taken_where_they_fit(
    monkeypatch: pytest.MonkeyPatch, parsed: Callable[..., Any]
) -> None:
    monkeypatch.setitem(ACQUISITIONS, "various", Various)
    fitting = {"mode": 12, "count": 2, "on": True, "scale": 1, "name": None, "bound": 2, "key": "of any type"}
    assert (
        parsed("", "--acquisition=various", f"--acquisition_kwargs={json.dumps(fitting)}").acquisition_kwargs == fitting
    )


def test_a_setting_without_a_default_has_to_be_set(monkeypatch: pytest.MonkeyPatch, parsed: Callable[..., Any]) -> None:
    @dataclass(frozen=True)
    class Demanding(RandomSampling):
        share: float

    monkeypatch.setitem(ACQUISITIONS, "demanding", Demanding)
    with pytest.raises(
        InvalidArgument, match=r"'demanding' needs the setting 'share'\. Set it in `acquisition_kwargs` \("
    ):
        parsed("", "--acquisition=demanding")
    assert parsed("", "--acquisition=demanding", "--acquisition.share=0.5").make_acquisition() == Demanding(0.5)
