"""Splits by the name of their data set: on the Hub, in a folder, in one file, or bundled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy
from datasets import (
    ClassLabel,
    Dataset,
    DatasetBuilder,
    DatasetDict,
    Features,
    Image,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)
from datasets.exceptions import DatasetGenerationError, DatasetsError

from ..files.shown_text import first_line
from ..files.typed_text import UnreadableFile
from ..refusals import Refusal
from ..settings.arguments import DataArguments
from .csv_files import read_csv_files
from .json_files import has_mixed_columns, read_json_files, refuse_other_text
from .unlabeled_folder import are_folder_names, without_labels_of

_BUILDERS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".tsv": "csv"}


def load_splits(
    name: str, arguments: DataArguments, label_columns: Sequence[str]
) -> tuple[Mapping[str, Dataset], bool]:
    """Return the splits that `name` holds, and whether it is local."""
    path = Path(name).expanduser()
    if name.startswith("sklearn:"):
        if name != "sklearn:digits":
            raise Refusal(f"Unknown bundled data {name}. Only `sklearn:digits` comes with the library.")
        return load_digits_images(), True
    known = path.suffix.lower() in _BUILDERS
    if not path.exists() and (known or name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise Refusal(f"There is no file or folder {name}. Correct `dataset_name`.")
    try:
        if path.is_dir() and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
            loaded = load_from_disk(path)
        elif path.is_dir():
            loaded = _load_files(load_dataset_builder(str(path.resolve())), path.resolve(), arguments, label_columns)
        elif path.is_file():
            builder = load_dataset_builder(_builder(path), data_files={arguments.train_split: str(path)})
            loaded = _load_files(builder, path, arguments, label_columns)
        else:
            loaded = load_dataset(name, arguments.dataset_config_name, revision=arguments.dataset_revision)
    except UnreadableFile:
        raise
    except (OSError, ValueError, RuntimeError, StopIteration, DatasetsError) as error:
        what = "" if path.exists() else " Is the Hub reachable, and the id right? A local folder or file works too."
        raise Refusal(f"Cannot load the data set {name}: {_load_failure(error, path)}{what}") from error
    if isinstance(loaded, Dataset):
        return {arguments.train_split: loaded}, path.exists()
    return loaded, path.exists()


def load_digits_images() -> DatasetDict:
    """Return scikit-learn's 1,797 scans of handwritten digits, 8 x 8 pixels of 17 grays, split 2 to 1 by class."""
    import PIL.Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    scans = load_digits()
    grays = numpy.round(scans.images * (255 / 16)).astype("uint8")
    train, validation = train_test_split(
        numpy.arange(len(grays)), test_size=1 / 3, stratify=scans.target, random_state=0
    )
    features = Features({"image": Image(), "label": ClassLabel(names=[str(digit) for digit in range(10)])})
    return DatasetDict(
        {
            name: Dataset.from_dict(
                {
                    "image": [PIL.Image.fromarray(grays[row]) for row in rows],
                    "label": [int(scans.target[row]) for row in rows],
                },
                features=features,
            )
            for name, rows in (("train", numpy.sort(train)), ("validation", numpy.sort(validation)))
        }
    )


def _load_files(
    builder: DatasetBuilder, root: Path, arguments: DataArguments, label_columns: Sequence[str]
) -> Mapping[str, Dataset]:
    """Return the splits of the local files that `builder` found at `root`."""
    if not root.is_dir() and root.stat().st_size == 0:
        raise StopIteration
    files = _plain_files(builder)
    if builder.name == "csv" and files:
        splits: Mapping[str, Dataset] = read_csv_files(files, label_columns, arguments.class_names or ())
        if not root.is_dir() and not any(map(len, splits.values())):
            raise StopIteration
        return splits
    if builder.name == "json" and files:
        return _load_json(builder, files)
    splits = _prepared(builder)
    folder = arguments.unlabeled_folder
    made = builder.name.endswith("folder") and are_folder_names(splits)
    if not made or not folder or folder in (arguments.class_names or ()):
        return splits
    return without_labels_of(folder, splits, root, required=folder != DataArguments.unlabeled_folder)


def _load_json(builder: DatasetBuilder, files: Mapping[str, Sequence[Path]]) -> Mapping[str, Dataset]:
    """Return the splits as `datasets` reads them; where it finds no one type for a column, by all rows of it."""
    refuse_other_text(files)
    try:
        splits = _prepared(builder)
    except (DatasetGenerationError, ValueError):
        by_line = read_json_files(files)
        if any(map(len, by_line.values())):
            return by_line
        raise
    return read_json_files(files) if any(map(has_mixed_columns, splits.values())) else splits


def _prepared(builder: DatasetBuilder) -> Mapping[str, Dataset]:
    builder.download_and_prepare()
    splits: Mapping[str, Dataset] = builder.as_dataset()
    return splits


def _plain_files(builder: DatasetBuilder) -> dict[str, list[Path]]:
    """Return the files of `builder` by split; none where one is packed, or the folder says how they are read."""
    asked = {name: value for name, value in vars(builder.config).items() if name not in ("name", "data_dir", "sep")}
    usual = {**vars(type(builder.config)()), "data_files": asked.get("data_files")}
    files = {str(split): [Path(file) for file in paths] for split, paths in (asked["data_files"] or {}).items()}
    plain = all(path.suffix.lower() in _BUILDERS and path.is_file() for part in files.values() for path in part)
    return files if plain and all(value == usual[name] for name, value in asked.items()) else {}


def _load_failure(error: BaseException, path: Path) -> str:
    """Return why `path`, or a data set of the Hub, could not be loaded."""
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty. Name another, or look at the file."
    if path.exists() and (isinstance(error, StopIteration) or "corresponds to no data" in str(error)):
        return "it has no rows. Name another, or look at the file."
    if isinstance(error, DatasetGenerationError):  # its own text has no reason
        return first_line(error.__cause__ or error)
    return first_line(error)


def _builder(path: Path) -> str:
    if path.suffix.lower() not in _BUILDERS:
        raise Refusal(f"Cannot read {path}: `{path.suffix}` is none of {', '.join(_BUILDERS)}.")
    return _BUILDERS[path.suffix.lower()]
