"""What a query costs, in plain forward passes of the same candidates: ours, as published, rivals and peers.

    python recipes/benchmarks/acquisition.py recipes/glue/mrpc.yaml --candidates 1000 --json costs.json
    python recipes/benchmarks/acquisition.py recipes/glue/sst2.yaml --scaling --sizes 1000 8000 64000 --processes 1 2
    python recipes/benchmarks/acquisition.py --selection

The first argument is a recipe; its settings can be overridden as those of `hf-noise-al run` can
(`--model_name_or_path`, `--dataset_name`, `--query_size`, `--per_device_eval_batch_size` ...). Nothing is trained.

The unit of cost is one pass of the candidates, collated before, in batches sorted by length, without gradients, in the
same precision. It is taken before each variant of each repeat, all variants interleaved; a cost is the median over
repeats of a variant's seconds divided by the median unit of that repeat. A variant has to collate anew in each run.

Peak memory is measured for each variant in a process of its own: the bytes of the model's tensors, plus what resident
memory (on a GPU: allocated memory) grew by, at its highest, during one query. A variant whose settings are refused, or
whose library is missing, says so in its row.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring import Row, describe_machine, measure, peak_bytes
from tqdm import tqdm
from variants import VARIANTS, Bench, prepare_bench

from hf_noise_al.commands.main import part_from_other_processes
from hf_noise_al.settings.recipe import InvalidArgument, find_recipe


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--selection" in words:
        return _selection([word for word in words if word != "--selection"])
    options, flags = _parser().parse_known_args(words)
    try:
        _check(options)
        recipe = find_recipe(options.recipe)
        if options.scaling:
            from scaling import scale

            for text, rows in scale(recipe, flags, options):
                _tell(text, rows, options.json)
        else:
            with tempfile.TemporaryDirectory() as folder:
                bench = prepare_bench(recipe, flags, options.candidates, options.dtype, folder)
                if options.memory_of:
                    options.json.write_text(json.dumps(peak_bytes(bench, options.memory_of)))
                    return 0
                text, rows = _compare(bench, options, recipe, flags)
                if bench.is_main_process:
                    _tell(text, rows, options.json)
                part_from_other_processes()
    except InvalidArgument as error:
        print(f"acquisition.py: {error}", file=sys.stderr)
        return 2
    return 0


def _tell(text: str, rows: Sequence[dict[str, Any]], file: Path | None) -> None:
    print(text, flush=True)
    if file is not None:
        file.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


def _compare(
    bench: Bench, options: argparse.Namespace, recipe: Path, flags: Sequence[str]
) -> tuple[str, list[dict[str, Any]]]:
    """Return what to print, and the rows."""
    rows = measure(bench, options.variants, options.repeats)
    if not options.skip_memory and bench.is_main_process:
        rows = [
            row if row.reason else row.with_peak(_peak_in_a_child(row.name, options, recipe, flags))
            for row in tqdm(rows, desc="peak memory", unit="variant")
        ]
    memory = "not measured" if options.skip_memory else "the model and what a query adds, each in its own process"
    head = [
        *describe_machine(bench),
        f"{len(bench.rows)} candidates, queries of {bench.query_size}, batches of {bench.batch_size}, {options.dtype}; "
        f"medians of {options.repeats} interleaved repeats; peak memory: {memory}",
    ]
    return "\n".join([*head, "", *_table(rows)]), [row.as_json() for row in rows]


def _peak_in_a_child(name: str, options: argparse.Namespace, recipe: Path, flags: Sequence[str]) -> int | None:
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "peak.json"
        command = [sys.executable, __file__, str(recipe), "--memory_of", name, "--json", str(answer)]
        command += ["--candidates", str(options.candidates), "--dtype", options.dtype, *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name}: no peak memory: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            return None
        peak: int | None = json.loads(answer.read_text())
        return peak


def _table(rows: Sequence[Row]) -> list[str]:
    lines = ["| variant | forward passes | seconds | peak memory |", "| --- | --: | --: | --: |"]
    for row in rows:
        if row.reason:
            lines.append(f"| {row.name} | not available: {row.reason} | | |")
        else:
            peak = "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:,.0f} MiB"
            lines.append(f"| {row.name} | {row.cost:.2f} | {row.seconds:.2f} | {peak} |")
    return lines


def _selection(words: list[str]) -> int:
    try:
        from selection import main as selection
    except ImportError as error:
        print(f"acquisition.py: `--selection` is not available: {error}", file=sys.stderr)
        return 2
    return int(selection(words) or 0)


def _check(options: argparse.Namespace) -> None:
    for name in ("candidates", "repeats", "sizes", "processes"):
        value = getattr(options, name)
        if min(value if isinstance(value, list) else [value], default=1) < 1:
            raise InvalidArgument(f"`--{name}` is {value}. Set it to at least 1.")
    if options.json is not None and not options.json.parent.is_dir():
        raise InvalidArgument(f"There is no folder {options.json.parent} to write `--json` to. Make it first.")
    for name in [*options.variants, *([options.memory_of] if options.memory_of else [])]:
        if name not in VARIANTS:
            raise InvalidArgument(f"Unknown variant {name}. There are: {', '.join(VARIANTS)}.")
    if options.memory_of and options.json is None:
        raise InvalidArgument("`--memory_of` writes to a file. Name it with `--json`.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("recipe", help="a YAML file, or a name that `hf-noise-al recipes` lists")
    parser.add_argument("--candidates", type=int, default=500, help="how many rows are asked about (default: 500)")
    parser.add_argument("--repeats", type=int, default=3, help="how often each variant runs (default: 3)")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), metavar="NAME", help=", ".join(VARIANTS))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16: by autocast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    parser.add_argument("--skip_memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--memory_of", metavar="NAME", help="write only the peak memory of this variant to --json")
    parser.add_argument("--selection", action="store_true", help="run selection.py with the other arguments instead")
    parser.add_argument("--scaling", action="store_true", help="costs against candidates and processes instead")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 4000, 16000, 64000], help="of --scaling")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2], help="of --scaling, one thread each")
    return parser


if __name__ == "__main__":
    sys.exit(main())
