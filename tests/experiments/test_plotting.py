import dataclasses
import math
import struct
import subprocess
import sys

import pytest
from matplotlib.colors import to_hex
from test_learning_curve import make_curve, make_study, with_rows

from hf_noise_al.experiments.comparison import compare
from hf_noise_al.experiments.plotting import BASELINE_COLOR, draw_curves, plot_curves


def lines_of(figure):
    return {line.get_label().split()[0]: line for line in figure.axes[0].get_lines()}


def test_writes_a_png_of_the_stated_size(tmp_path):
    file = tmp_path / "new" / "learning_curve.png"
    plot_curves(compare(make_study()), file)
    content = file.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (1200, 675)


def test_writes_the_format_of_the_suffix(tmp_path):
    plot_curves(compare(make_study()), tmp_path / "curve.svg")
    assert "<svg" in (tmp_path / "curve.svg").read_text()


def test_draws_one_line_per_acquisition_with_exactly_the_means():
    comparisons = compare(make_study())
    lines = lines_of(draw_curves(comparisons))
    assert list(lines) == ["noise_stability", "random"]
    for comparison in comparisons:
        line = lines[comparison.acquisition]
        assert tuple(line.get_xdata()) == comparison.budgets
        assert tuple(line.get_ydata()) == comparison.mean


def test_band_is_the_interval():
    comparisons = compare(make_study())
    figure = draw_curves(comparisons)
    bands = figure.axes[0].collections
    assert len(bands) == len(comparisons)
    for band, comparison in zip(bands, comparisons, strict=True):
        edges = {tuple(corner) for corner in band.get_paths()[0].vertices}
        for budget, mean, half in zip(comparison.budgets, comparison.mean, comparison.half_width, strict=True):
            assert {(budget, mean - half), (budget, mean + half)} <= edges


def test_single_seed_has_a_line_and_no_band():
    figure = draw_curves(compare([make_curve([0.5, 0.7, 0.8])]))
    assert list(lines_of(figure)) == ["noise_stability"]
    assert len(figure.axes[0].collections) == 0
    assert figure.axes[0].get_legend().get_title().get_text() == "area under the curve (1 seed)"


def test_single_seed_has_the_intervals_of_its_rows_as_bars_and_their_number():
    curve = with_rows(make_curve([0.5, 0.7, 0.8]), [6, 6, 6], [[0.1, 0.9], None, [0.5, 1.0]])
    axes = draw_curves(compare([curve])).axes[0]
    _, *bars = axes.get_lines()
    assert [(tuple(bar.get_xdata()), tuple(bar.get_ydata())) for bar in bars] == [
        ((100, 100), (0.1, 0.9)),
        ((400, 400), (0.5, 1.0)),
    ]
    low, high = axes.get_ylim()
    assert low < 0.1 and high > 1.0, "bars stay in the picture"
    assert axes.get_ylabel() == "accuracy (n = 6)"
    title = axes.get_legend().get_title().get_text()
    assert title == "area under the curve (1 seed, 95 % interval of the n rows as bars)"
    assert len(axes.get_legend().get_texts()) == 1


def test_several_seeds_say_their_rows_and_have_no_bars():
    runs = [with_rows(make_curve([0.5, 0.7, 0.8 + seed / 10], seed=seed), [20, 30, 40]) for seed in (0, 1)]
    axes = draw_curves(compare(runs)).axes[0]
    assert len(axes.get_lines()) == 1 and axes.get_ylabel() == "accuracy (n = 20-40)"


def test_one_point_is_visible(tmp_path):
    comparisons = compare([make_curve([0.5], budgets=(100,))])
    (line,) = draw_curves(comparisons).axes[0].get_lines()
    assert line.get_marker() == "o"
    plot_curves(comparisons, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 0


def test_says_what_is_drawn():
    axes = draw_curves(compare(make_study())).axes[0]
    assert axes.get_title(loc="left") == "mrpc, minilm"
    assert axes.get_xlabel() == "labeled examples"
    assert axes.get_ylabel() == "accuracy"
    assert axes.get_legend().get_title().get_text() == "area under the curve (2 seeds, 95 % interval shaded)"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "noise_stability  0.721 ± 0.265",
        "random  0.650 ± 0.635",
    ]
    assert list(axes.get_xticks()) == [100, 200, 400]


def test_long_paths_are_shortened_to_their_last_part_and_hub_names_are_not():
    run = make_curve([0.5, 0.7, 0.8], dataset="nyu-mll/glue", model="/home/someone/models/minilm")
    assert draw_curves(compare([run])).axes[0].get_title(loc="left") == "nyu-mll/glue, minilm"


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        (r"a$\frac$b", r"a$\frac$b"),
        ("cost in $ or $", "cost in $ or $"),
        (r"\$x$", r"\$x$"),
        ("two\nlines", "two lines"),
        ("\x1b[31mred\x00", r"\x1b[31mred\x00"),
        ("\udc80", r"\udc80"),
        ("数据 😀", "数据 😀"),
        ("_hidden", "_hidden"),
        ("long " * 100, "long " * 7 + "lo..."),
    ],
)
def test_names_are_drawn_as_they_are_written(tmp_path, name, drawn):
    run = make_curve([0.5, 0.7, 0.8], name, dataset=name, model=name)
    comparison = dataclasses.replace(compare([run])[0], metric=f"eval_{name}")
    plot_curves([comparison], tmp_path / "curve.png")
    axes = draw_curves([comparison]).axes[0]
    assert axes.get_title(loc="left") == f"{drawn}, {drawn}"
    assert axes.get_ylabel() == drawn.replace("_", " ")
    (text,) = axes.get_legend().get_texts()
    assert text.get_text().strip().startswith(drawn)


def test_baseline_is_gray_and_dashed_and_rivals_all_differ():
    names = ["random", *(f"rival_{i}" for i in range(12))]
    lines = lines_of(draw_curves(compare([make_curve([0.5, 0.7, 0.8], name) for name in names])))
    assert to_hex(lines["random"].get_color()) == BASELINE_COLOR
    assert lines["random"].get_linestyle() == "--"
    assert len({(line.get_color(), line.get_linestyle()) for line in lines.values()}) == 13


def test_height_follows_the_means_not_the_bands_of_two_seeds():
    runs = [make_curve([0.5, 0.7, 0.8], seed=0), make_curve([0.6, 0.9, 0.9], seed=1)]
    (comparison,) = compare(runs)
    low, high = draw_curves([comparison]).axes[0].get_ylim()
    span = max(comparison.mean) - min(comparison.mean)
    assert comparison.half_width[1] > 1
    assert low == pytest.approx(min(comparison.mean) - 0.4 * span)
    assert high == pytest.approx(max(comparison.mean) + 0.4 * span)


def test_nan_rounds_leave_a_gap(tmp_path):
    comparisons = compare([make_curve([math.nan, 0.7, 0.8]), make_curve([math.nan] * 3, "random")])
    ydata = lines_of(draw_curves(comparisons))["noise_stability"].get_ydata()
    assert math.isnan(ydata[0])
    assert tuple(ydata[1:]) == (0.7, 0.8)
    plot_curves(comparisons, tmp_path / "curve.png")


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="Nothing to draw"):
        draw_curves([])


def test_importing_the_module_does_not_import_matplotlib():
    package = "hf_noise_al.experiments"
    imports = f"import sys, {package}.learning_curve; before = set(sys.modules); import {package}.plotting"
    code = f"{imports}; print([name for name in set(sys.modules) - before if name.startswith('matplotlib')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
