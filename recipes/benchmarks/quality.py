"""What the labels are worth that each acquisition asks for: learning curves beside random, over seeds.

    python recipes/benchmarks/quality.py recipes/glue/stsb.yaml --seeds 0 1 2 --num_rounds 4 --output_dir runs/quality

The first argument is a recipe; every other flag is one of `hf-noise-al run`, but for `--methods`, which stands for
the acquisition and its settings. Each method is run with each seed, in a folder of its own in `--output_dir`; runs that
are finished are not repeated, so that a comparison that was interrupted goes on, and several can be run side by side
with other seeds or methods; runs of other settings are refused. The table at the end is about all finished runs of the
folder: AUBC and its difference to random with the same seeds, 95 % intervals.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hf_noise_al.commands.existing_runs import is_finished, refuse_other_settings
from hf_noise_al.commands.prepare import prepare, refuse_settings
from hf_noise_al.commands.run import train
from hf_noise_al.experiments.comparison import compare, to_json
from hf_noise_al.experiments.learning_curve import LearningCurve
from hf_noise_al.experiments.tables import format_table
from hf_noise_al.settings.arguments import DataArguments, ModelArguments, RunArguments
from hf_noise_al.settings.parsing import parse
from hf_noise_al.settings.recipe import InvalidArgument, find_recipe
from hf_noise_al.tasks import TASKS


def _noise_stability(estimator: str, selection: str) -> list[str]:
    settings = json.dumps({"estimator": estimator, "selection": selection})
    return ["--acquisition=noise_stability", f"--acquisition_kwargs={settings}"]


METHODS = {
    "random": ["--acquisition=random"],
    "sketch_k_center": _noise_stability("gradient_sketch", "k_center"),
    "sketch_k_means_plus_plus": _noise_stability("gradient_sketch", "k_means_plus_plus"),
    "finite_difference_k_center": _noise_stability("finite_difference", "k_center"),
    "finite_difference_k_means_plus_plus": _noise_stability("finite_difference", "k_means_plus_plus"),
    "margin": ["--acquisition=margin"],
    "badge": ["--acquisition=badge"],
}


def main(arguments: Sequence[str] | None = None) -> int:
    options, flags = _parser().parse_known_args(arguments)
    folder = options.output_dir
    try:
        _refuse_flags(flags)
        recipe = find_recipe(options.recipe)
        if not options.methods:
            useless = TASKS[_parse(recipe, flags, folder)[1].task].refused_acquisitions
            options.methods = [name for name, words in METHODS.items() if _acquisition(words) not in useless]
        runs = [
            _parse(recipe, [*flags, *METHODS[method], f"--seed={seed}"], folder / f"{method}-seed-{seed}")
            for seed in options.seeds
            for method in options.methods
        ]
        refuse_other_settings(runs)
        _refuse_other_lengths(folder, runs)
        refuse_settings(runs)  # last: it makes their folders
        for run in runs:
            if not is_finished(run[2]):
                print(f"{run[2].output_dir}\n{train(prepare(*run))}\n", flush=True)
    except InvalidArgument as error:
        return _refuse(error)
    try:
        comparisons = compare([curve for _, curve in _finished(folder)])
    except ValueError as error:  # runs of other lengths, or of another data set
        return _refuse(error)
    (folder / "comparison.json").write_text(to_json(comparisons))
    print(format_table(comparisons))
    return 0


def _refuse(error: ValueError) -> int:
    print(f"quality.py: {error}", file=sys.stderr)
    return 2


def _acquisition(words: Sequence[str]) -> str:
    return words[0].removeprefix("--acquisition=")


def _refuse_flags(flags: Sequence[str]) -> None:
    for flag in flags:
        if flag.partition("=")[0] in ("--acquisition", "--acquisition_kwargs", "--seed"):
            raise InvalidArgument(f"`{flag}` is set by `--methods` and `--seeds` here. Leave it out.")


def _refuse_other_lengths(folder: Path, runs: Sequence[tuple[ModelArguments, DataArguments, RunArguments]]) -> None:
    """Refuse, before anything is trained, what could not be compared with the other finished runs of the folder."""
    asked = {Path(str(run[2].output_dir)).name for run in runs}
    for path, curve in _finished(folder):
        if path.name not in asked and len(curve.points) != runs[0][2].num_rounds:
            raise InvalidArgument(
                f"{path} has {len(curve.points)} rounds, and {runs[0][2].num_rounds} are asked for: they cannot be "
                f"compared. Pass `--num_rounds {len(curve.points)}`, or another `--output_dir`."
            )


def _parse(recipe: Path, flags: Sequence[str], folder: Path) -> tuple[ModelArguments, DataArguments, RunArguments]:
    return parse(recipe, [*flags, f"--output_dir={folder}", "--resume_from_checkpoint=true"])


def _finished(folder: Path) -> list[tuple[Path, LearningCurve]]:
    """Return all finished runs of the folder with their curves, under the names of their methods."""
    found = []
    for method in METHODS:
        for run in sorted(folder.glob(f"{method}-seed-*")):
            if (run / "README.md").exists():  # written last
                found.append((run, replace(LearningCurve.load(run), acquisition=method)))
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("recipe", help="a YAML file, or a name that `hf-noise-al recipes` lists")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/quality"), help="default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--methods", nargs="+", choices=list(METHODS), metavar="NAME", help="default: all that the task can use"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
