"""Load the data, the processor and the model that the arguments name: from the Hub, from folders and files, or made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
import transformers
from datasets import (
    ClassLabel,
    Dataset,
    DatasetBuilder,
    DatasetDict,
    Features,
    Image,
    disable_progress_bars,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)
from datasets.exceptions import DatasetGenerationError, DatasetsError
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..files.shown_text import listed
from ..files.typed_text import UnreadableFile
from ..pool.columns import ID_COLUMN
from ..pool.label_values import classes_found, is_missing
from ..pool.places import Source
from ..pool.problem_type import classes_of_config
from ..settings.arguments import DataArguments, ModelArguments
from ..settings.recipe import did_you_mean
from .csv_files import read_csv_files
from .json_files import has_mixed_columns, read_json_files, refuse_other_text
from .unlabeled_folder import are_folder_names, without_labels_of

logger = logging.get_logger(__name__)

LABELS = ("labels", "label")
"""Names of the label column where none is asked for, the first that is there."""
_BUILDERS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".tsv": "csv"}


@dataclass(frozen=True)
class LoadedData:
    """The rows of a job, as they are stored."""

    pool: Dataset
    """All rows of the pool, also those that are set aside."""
    evaluation: dict[str, Dataset]
    """Evaluation sets by name, ``""`` for a single one."""
    source: Source
    """Where the rows of the pool come from, for messages."""
    set_aside: tuple[int, ...] = ()
    """The rows of the pool that the evaluation set is made of, ascending; none where it has rows of its own."""


def load_pool(arguments: DataArguments, label_columns: Sequence[str] = LABELS) -> LoadedData:
    """Return the pool alone, every row of it, as it is stored."""
    pool = _split(_splits(arguments, label_columns), arguments.train_split, arguments.dataset_name or "", "train_split")
    if not len(pool):
        raise ValueError(f"The split `{arguments.train_split}` of {arguments.dataset_name} is empty. Name another.")
    pool = _first_rows(pool, arguments.max_train_samples)
    return LoadedData(pool, {}, _source(pool, arguments))


def load_data(arguments: DataArguments, label_columns: Sequence[str] = LABELS) -> LoadedData:
    """Return the pool and the evaluation sets, as they are stored.

    Where there is no other split, `validation_fraction` of the rows that have a label, in the first of `label_columns`
    that is there, is set aside to measure with. They keep their place in the pool.
    """
    name = arguments.dataset_name or ""
    splits = _splits(arguments, label_columns)
    pool = _split(splits, arguments.train_split, name, "train_split")
    aside: tuple[int, ...] = ()
    if set(splits) == {arguments.train_split} and not arguments.validation_fraction:
        evaluation: dict[str, Dataset] = {}  # the labeled rows are cross-validated
    elif set(splits) == {arguments.train_split}:
        aside = _set_aside(pool, arguments, label_columns)
        evaluation = {"": pool.select(aside)}
    else:
        wanted = arguments.eval_split
        evaluation = {
            label: _split(splits, split, name, "eval_split")
            for label, split in zip(_short_names(wanted), wanted, strict=True)
        }
    pool = _first_rows(pool, arguments.max_train_samples)
    aside = tuple(row for row in aside if row < len(pool))
    evaluation = {key: _first_rows(rows, arguments.max_eval_samples) for key, rows in evaluation.items()}
    for what, rows in {f"The split `{arguments.train_split}`": pool, **_described(evaluation)}.items():
        if not len(rows):
            raise ValueError(f"{what} of {name} is empty. Name another split, or look at the file.")
    return LoadedData(pool, evaluation, _source(pool, arguments), aside)


def hide_progress_bars() -> None:
    """Hide the bars of datasets and transformers, which do not ask `TrainingArguments.disable_tqdm`."""
    disable_progress_bars()
    logging.disable_progress_bar()


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


def load_tokenizer(arguments: ModelArguments, **options: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the model, made with `options` beside its own."""
    source = arguments.processor_name_or_path or arguments.model_name_or_path
    if source is None:
        raise ValueError("A model made from `model_config` has no tokenizer. Name one with `processor_name_or_path`.")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, revision=arguments.model_revision, trust_remote_code=arguments.trust_remote_code, **options
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot load the tokenizer of {source}: {_first_line(error)}") from error
    return tokenizer


def load_image_processor(arguments: ModelArguments, image_size: int | None = None) -> Any:
    """Return the image processor of the model; where it has none, one that resizes and scales pixels to 0..1.

    ``do_convert_rgb`` of the result says whether the model looks at three channels.
    """
    config = load_model_config(arguments, {})
    processor = _own_image_processor(arguments, needed=image_size is None)
    if processor is None:
        logger.info(f"No image processor: images are resized to {image_size} x {image_size}, pixels scaled to 0..1.")
        processor = plain_image_processor(image_size, image_size, do_normalize=False)
    processor.do_convert_rgb = getattr(config, "num_channels", 3) == 3
    return processor


def plain_image_processor(height: int | None, width: int | None, **fields: Any) -> Any:
    """Return a processor that resizes and scales pixels, on Pillow; `fields` are others of its settings."""
    plain: Any = getattr(transformers, "ViTImageProcessorPil", None) or transformers.ViTImageProcessor
    return plain(size={"height": height, "width": width}, **fields)


def _own_image_processor(arguments: ModelArguments, needed: bool) -> Any | None:
    source = arguments.processor_name_or_path or arguments.model_name_or_path
    if source is None:
        if needed:
            raise ValueError("A model made from `model_config` has no image processor. Set `image_size`, such as 32.")
        return None
    pillow = {"backend": "pil"} if int(transformers.__version__.split(".")[0]) >= 5 else {"use_fast": False}
    try:
        auto: Any = AutoImageProcessor
        return auto.from_pretrained(
            source, revision=arguments.model_revision, trust_remote_code=arguments.trust_remote_code, **pillow
        )
    except (OSError, ValueError) as error:
        if needed or arguments.processor_name_or_path is not None:
            raise ValueError(
                f"Cannot load the image processor of {source}: {_first_line(error)} Set `image_size` to do without one."
            ) from error
        return None


def load_model_config(arguments: ModelArguments, head: Mapping[str, Any]) -> Any:
    """Return the configuration of the model, with the output head's fields `head` (`num_labels`, `id2label` ...)."""
    if arguments.model_name_or_path is not None:
        try:
            return AutoConfig.from_pretrained(
                arguments.model_name_or_path,
                revision=arguments.model_revision,
                trust_remote_code=arguments.trust_remote_code,
                **head,
            )
        except (OSError, ValueError) as error:
            raise ValueError(
                f"Cannot load the model {arguments.model_name_or_path}: {_first_line(error)} "
                "Name a Hub id, or a folder with config.json."
            ) from error
    fields = dict(arguments.model_config) if isinstance(arguments.model_config, dict) else {}
    model_type = str(fields.pop("model_type", ""))
    known = list(transformers.CONFIG_MAPPING)
    if model_type not in known:
        raise ValueError(f"Unknown `model_type` {model_type} in `model_config`.{did_you_mean(model_type, known)}")
    default = AutoConfig.for_model(model_type)
    for name in fields:
        if not hasattr(default, name):
            near = did_you_mean(name, list(default.to_dict()))
            raise ValueError(f"`model_config` has `{name}`, which a {model_type} configuration does not have.{near}")
    try:
        return AutoConfig.for_model(model_type, **fields, **head)
    except Exception as error:  # configurations raise what they like, in transformers 5 an error of huggingface_hub
        raise ValueError(f"Cannot use `model_config`: {_first_line(error.__cause__ or error)}") from error


def model_factory(
    arguments: ModelArguments,
    auto_model: Any,
    head: Mapping[str, Any],
    pad_token_id: int | None = None,
    trained_head: bool = False,
) -> Callable[[], PreTrainedModel]:
    """Return a function that makes the model in its initial state, for the trainer's `model_init`.

    Random weights come from torch's global generator, which the trainer seeds before each call. Where the checkpoint
    has no head, or one for other classes, a new one is made; with `trained_head` that is refused.
    """
    config = load_model_config(arguments, head)
    known = checkpoint_classes(arguments)
    asked = tuple(map(str, head.get("id2label", {}).values()))
    others = known is not None and bool(asked) and len(known) == len(asked) and known != asked
    if getattr(config, "pad_token_id", None) is None and pad_token_id is not None:
        config.pad_token_id = pad_token_id
    told = False

    def make() -> PreTrainedModel:
        nonlocal told
        if arguments.model_name_or_path is None:
            made: PreTrainedModel = auto_model.from_config(config, dtype=torch.float32)
            return made
        try:
            with _without_load_report():
                model, report = auto_model.from_pretrained(
                    arguments.model_name_or_path,
                    config=config,
                    revision=arguments.model_revision,
                    trust_remote_code=arguments.trust_remote_code,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                    dtype=torch.float32,
                )
        except (OSError, ValueError) as error:
            raise ValueError(f"Cannot load {arguments.model_name_or_path}: {_first_line(error)}") from error
        new = _new_weights(report)
        if others and not new and not trained_head:
            new = _renew_head(model, auto_model, config)
        own = f" ({listed(known, 12)})" if known else ""
        if trained_head and (new or others):
            raise ValueError(
                f"{arguments.model_name_or_path} has no trained weights for this task: "
                f"{', '.join(new) or 'its output head'} would be new ({config.num_labels} outputs"
                f"{': ' + listed(asked, 12) if asked else ''}); its own classes are "
                f"{listed(known or ('unnamed',), 12)}. Name a model that was fine-tuned on these classes."
            )
        if new and not told:
            logger.info(
                f"Not in {arguments.model_name_or_path}{own}, made new for {listed(asked, 12) or 'this task'}: "
                f"{', '.join(new)}."
            )
        elif known is None and len(asked) > 1 and not told and not trained_head:
            logger.warning(
                f"{arguments.model_name_or_path} has an output head and does not name its classes: its outputs are "
                f"taken to be {listed(asked, 12)}, in this order. Set `class_names` where they are others."
            )
        told = True
        loaded: PreTrainedModel = model
        return loaded

    if trained_head and arguments.model_name_or_path is None:
        raise ValueError("A query needs a trained model. Name its folder with `model_name_or_path`.")
    return make


def checkpoint_classes(arguments: ModelArguments) -> tuple[str, ...] | None:
    """Return the classes that the checkpoint names, in the order of its outputs; None where it names none."""
    return None if arguments.model_name_or_path is None else classes_of_config(load_model_config(arguments, {}))


def _renew_head(model: PreTrainedModel, auto_model: Any, config: Any) -> list[str]:
    """Give `model` new weights where their shape depends on the number of classes; return their names."""
    more = copy.deepcopy(config)
    more.num_labels = config.num_labels + 1
    with torch.device("meta"):
        larger = auto_model.from_config(more).state_dict()
    fresh = auto_model.from_config(config, dtype=torch.float32).state_dict()
    own = model.state_dict()
    names = sorted(name for name, tensor in own.items() if name in larger and tensor.shape != larger[name].shape)
    with torch.no_grad():
        for name in names:
            own[name].copy_(fresh[name])
    return names


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Keep transformers from telling in every round which weights are new: that is told here, once."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _new_weights(report: Mapping[str, Any]) -> list[str]:
    mismatched = [key if isinstance(key, str) else key[0] for key in report.get("mismatched_keys", ())]
    return sorted({*report.get("missing_keys", ()), *mismatched})


def _load_splits(
    name: str, arguments: DataArguments, label_columns: Sequence[str]
) -> tuple[Mapping[str, Dataset], bool]:
    """Return the splits that `name` holds, and whether it is local."""
    path = Path(name).expanduser()
    if name.startswith("sklearn:"):
        if name != "sklearn:digits":
            raise ValueError(f"Unknown bundled data {name}. Only `sklearn:digits` comes with the library.")
        return load_digits_images(), True
    known = path.suffix.lower() in _BUILDERS
    if not path.exists() and (known or name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ValueError(f"There is no file or folder {name}. Correct `dataset_name`.")
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
        raise ValueError(f"Cannot load the data set {name}: {_load_failure(error, path)}{what}") from error
    if isinstance(loaded, Dataset):
        return {arguments.train_split: loaded}, path.exists()
    return loaded, path.exists()


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
    if isinstance(error, DatasetGenerationError):  # says no more than that something went wrong
        return _first_line(error.__cause__ or error)
    return _first_line(error)


def _builder(path: Path) -> str:
    if path.suffix.lower() not in _BUILDERS:
        raise ValueError(f"Cannot read {path}: `{path.suffix}` is none of {', '.join(_BUILDERS)}.")
    return _BUILDERS[path.suffix.lower()]


def _split(splits: Mapping[str, Dataset], split: str, name: str, argument: str) -> Dataset:
    if split not in splits:
        raise ValueError(
            f"{name} has no split `{split}`.{did_you_mean(split, list(splits))} "
            f"Set `{argument}` to one of: {', '.join(splits)}."
        )
    return splits[split]


def _splits(arguments: DataArguments, label_columns: Sequence[str]) -> Mapping[str, Dataset]:
    name = arguments.dataset_name or ""
    splits, local = _load_splits(name, arguments, label_columns)
    if local and arguments.dataset_config_name:
        logger.info(f"{name} is local: `dataset_config_name: {arguments.dataset_config_name}` does not select data.")
    return splits


def _set_aside(pool: Dataset, arguments: DataArguments, label_columns: Sequence[str]) -> tuple[int, ...]:
    """Return the rows that measure: of each block of rows in the file one, where it has a label.

    Which row of a block that is follows from its place in the file and `split_seed` alone. Rows that were set aside
    therefore stay so when labels are added to the file.
    """
    if len(pool) < 2:
        raise ValueError(f"{arguments.dataset_name} has {len(pool)} rows: too few for a pool and rows to measure with.")
    if arguments.eval_split not in ([], ["validation"]):
        raise ValueError(
            f"{arguments.dataset_name} has no split {', '.join(arguments.eval_split)}: `{arguments.train_split}` is "
            "all there is. Leave `eval_split` out to set rows aside, or pass a folder with a file for each split."
        )
    labeled = _labeled_rows(pool, arguments, label_columns)
    if not labeled:
        raise ValueError(
            f"{arguments.dataset_name} has no other split and no row with a label: nothing to measure rounds with. "
            "Label some rows, or pass a folder with a file for each split."
        )
    chosen = _measuring_rows(labeled, len(pool), arguments.validation_fraction, arguments.split_seed)
    logger.info(
        f"{arguments.dataset_name} has no split beside `{arguments.train_split}`: {len(chosen)} of its {len(labeled)} "
        "labeled rows are set aside to measure with (`validation_fraction`, `split_seed`)."
    )
    return tuple(chosen)


def _measuring_rows(labeled: Sequence[int], size: int, fraction: float, seed: int) -> list[int]:
    """Return the rows of `labeled` whose turn it is, ascending; where it is the turn of none, one that is drawn."""
    draw = numpy.random.RandomState(seed)
    share = min(fraction, 1 - fraction)
    starts = numpy.arange(int(size * share) + 1) / share  # where blocks of 1 / share rows begin
    turns = set((starts + draw.random_sample(len(starts)) / share).astype(int).tolist())
    chosen = [row for row in labeled if (row in turns) == (fraction == share)]
    chosen = chosen or [labeled[int(draw.randint(len(labeled)))]]
    return chosen if len(chosen) < size else chosen[:-1]


def _labeled_rows(pool: Dataset, arguments: DataArguments, label_columns: Sequence[str]) -> list[int]:
    column = next((name for name in label_columns if name in pool.column_names), None)
    if column is None:
        return list(range(len(pool)))  # which column it is is asked, and refused, later
    values = pool.with_format(None)[column][:]
    names: Sequence[str] | None = arguments.class_names or ()
    if not names and not isinstance(pool.features[column], ClassLabel):
        try:
            names = classes_found(values)
        except ValueError:  # numbers
            names = None
    return [row for row, label in enumerate(values) if label == [] or not is_missing(label, names)]


def _source(pool: Dataset, arguments: DataArguments) -> Source:
    path = Path(arguments.dataset_name or "").expanduser()
    named = arguments.id_column
    if named is not None and named not in pool.column_names:
        raise ValueError(
            f"The data has no column `{named}` (`id_column`).{did_you_mean(named, pool.column_names)} "
            f"It has: {', '.join(pool.column_names)}."
        )
    found = named or (ID_COLUMN if ID_COLUMN in pool.column_names else None)
    return Source(pool, path if path.is_file() else None, found)


def _short_names(splits: list[str]) -> list[str]:
    """Return what tells `splits` apart: ``validation_matched, validation_mismatched -> matched, mismatched``."""
    if len(splits) == 1:
        return [""]
    if len(set(splits)) < len(splits):
        raise ValueError(f"`eval_split` names a split twice: {', '.join(splits)}.")
    first = splits[0].split("_")
    same = next((at for at in range(len(first)) if any(s.split("_")[: at + 1] != first[: at + 1] for s in splits)), 0)
    return ["_".join(split.split("_")[same:]) or split for split in splits]


def _first_rows(rows: Dataset, count: int | None) -> Dataset:
    return rows if count is None or count >= len(rows) else rows.select(range(count))


def _described(evaluation: Mapping[str, Dataset]) -> dict[str, Dataset]:
    return {f"The evaluation split {name}".strip(): rows for name, rows in evaluation.items()}


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
