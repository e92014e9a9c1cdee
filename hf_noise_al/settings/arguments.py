"""The settings of a run, as three dataclasses; their checks are beside them."""

import json
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

from ..annotators import ANNOTATORS, Annotator, LabelFile
from ..training_args import ActiveTrainingArguments
from .recipe import InvalidArgument, did_you_mean

AUGMENTATIONS = ("flip", "crop")


@dataclass
class ModelArguments:
    """Which model is fine-tuned, and what prepares its inputs."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Checkpoint to start from: a Hub id or a local folder. Wins over model_config."}
    )
    model_config: dict | str | None = field(  # type: ignore[type-arg]  # HfArgumentParser knows plain `dict` only
        default=None,
        metadata={
            "help": "A model made from a configuration, without checkpoint: a mapping (JSON as a flag) with "
            "`model_type` and the fields of that model's configuration."
        },
    )
    processor_name_or_path: str | None = field(
        default=None, metadata={"help": "Tokenizer or image processor, where it is not that of model_name_or_path."}
    )
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of the model on the Hub."})
    trust_remote_code: bool = field(
        default=False,
        metadata={
            "help": "Run code that comes with a model of the Hub, or as a metric of the Hub or a folder. Read it first."
        },
    )

    def __post_init__(self) -> None:
        if isinstance(self.model_config, str):
            self.model_config = json_mapping("model_config", self.model_config)
        if self.model_config is not None and "model_type" not in self.model_config:
            raise InvalidArgument("`model_config` has no `model_type`. Add one, such as `model_type: resnet`.")
        if self.model_name_or_path is None and self.model_config is None:
            raise InvalidArgument(
                "No model is named. Set `model_name_or_path` (a Hub id or a folder), or `model_config`."
            )


@dataclass
class DataArguments:
    """Which data is the pool, which measures the rounds, and how rows become model inputs and metrics."""

    task: str = field(
        default="text_classification",
        metadata={"help": "What is learned: {tasks}."},  # the help fills them in: tasks are made above this layer
    )
    dataset_name: str | None = field(
        default=None,
        metadata={"help": "A Hub id, a local folder, a csv, json, jsonl or parquet file, or `sklearn:digits`."},
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Configuration of a data set on the Hub, such as `mrpc`."}
    )
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the data set."})
    train_split: str = field(default="train", metadata={"help": "Split that is the pool."})
    eval_split: list[str] = field(
        default_factory=lambda: ["validation"],
        metadata={"help": "Split that measures every round; several are measured apart (MNLI)."},
    )
    validation_fraction: float = field(
        default=0.1,
        metadata={
            "help": "Share of the pool set aside to measure with, where the data has no other split; 0 with eval_folds "
            "alone."
        },
    )
    split_seed: int = field(
        default=0, metadata={"help": "Seed of that set-aside part. Not `seed`: repeats measure on the same rows."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Keep only the first rows of the pool."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Keep only the first rows of eval_split."})
    text_column: str | None = field(
        default=None, metadata={"help": "Column of the text, of the first text, or of lists of words."}
    )
    text_pair_column: str | None = field(default=None, metadata={"help": "Column of the second text of a pair."})
    id_column: str | None = field(
        default=None,
        metadata={
            "help": "Column that names each row, such as a key of your own, for query files and messages; default: a "
            "column called `id`, where there is one."
        },
    )
    image_column: str | None = field(default=None, metadata={"help": "Column of the image."})
    feature_columns: list[str] | None = field(
        default=None,
        metadata={
            "help": "Input columns of a tabular task; default: all but the label and what only names or numbers "
            "the rows."
        },
    )
    ignore_columns: list[str] | None = field(
        default=None, metadata={"help": "Columns that are no input of a tabular task, such as row numbers and names."}
    )
    categorical_columns: list[str] | None = field(
        default=None, metadata={"help": "Columns of numbers that a tabular task reads as categories, such as codes."}
    )
    class_names: list[str] | None = field(
        default=None,
        metadata={
            "help": "The classes in their order, where the data does not name them (such as an unlabeled pool). For "
            "masks also one json file: a list, or names by mask value."
        },
    )
    unlabeled_folder: str = field(
        default="unlabeled",
        metadata={
            "help": 'Folder whose images have no label yet, among those that are named like classes; "" for none. '
            "Where class_names lists it, it is a class."
        },
    )
    void_label: list[int] | None = field(
        default=None, metadata={"help": "Mask values of pixels that do not count; default: 255."}
    )
    max_seq_length: int = field(default=128, metadata={"help": "Longer texts are cut to this many tokens."})
    image_size: int | None = field(
        default=None,
        metadata={
            "help": "Height and width that images are resized to, where there is no processor; for segmentation always."
        },
    )
    augmentation: list[str] | None = field(
        default=None,
        metadata={
            "help": "Random changes of the images that are trained on, and of no others: flip (left to right), crop "
            "(moved by up to crop_padding pixels)."
        },
    )
    crop_padding: int = field(default=4, metadata={"help": "Zeros around an image before it is cropped."})
    metric: list[str] | None = field(
        default=None,
        metadata={
            "help": "Metrics by their names in `evaluate`, such as `accuracy f1` or `glue/mrpc`. What the library does "
            "not compute itself is code that needs trust_remote_code."
        },
    )
    metric_for_curve: str | None = field(
        default=None,
        metadata={
            "help": "Metric of the learning curve, with or without `eval_`, or `cv_...` with eval_folds; default: the "
            "first."
        },
    )
    metric_greater_is_better: bool | None = field(
        default=None, metadata={"help": "Whether metric_for_curve should rise; default: known from its name."}
    )

    def __post_init__(self) -> None:
        if self.dataset_name is None:
            raise InvalidArgument("No data is named. Set `dataset_name` (a Hub id, a folder or a file).")
        if not 0 <= self.validation_fraction < 1:  # 0 is refused where there are no `eval_folds`
            raise InvalidArgument(f"`validation_fraction` is {self.validation_fraction}. Set it between 0 and 1.")
        for word in self.augmentation or ():
            if word not in AUGMENTATIONS:
                raise InvalidArgument(
                    f"Unknown `augmentation` {word}.{did_you_mean(word, AUGMENTATIONS)} "
                    f"There are: {', '.join(AUGMENTATIONS)}."
                )
        if not 0 <= self.split_seed < 2**32:
            raise InvalidArgument(f"`split_seed` is {self.split_seed}. Set it between 0 and {2**32 - 1}.")
        for name in ("max_train_samples", "max_eval_samples", "max_seq_length", "image_size", "crop_padding"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidArgument(f"`{name}` is {value}. Set it to at least 1.")


@dataclass
class RunArguments(ActiveTrainingArguments):
    """`ActiveTrainingArguments` and what only the command line knows: repeats, baselines, starting afresh."""

    seeds: list[int] | None = field(
        default=None, metadata={"help": "Repeat the run with each of these seeds, each in a folder of its own."}
    )
    baselines: list[str] | None = field(
        default=None, metadata={"help": "Acquisitions to run beside `acquisition`, for comparison."}
    )
    label_file: str | None = field(
        default=None,
        metadata={
            "help": "Where people's answers are: a JSON lines file, or the folder `queries` of the run with the labels "
            "filled in. Without it the labels of the data are held out and revealed when queried."
        },
    )
    annotator: str | None = field(
        default=None,
        metadata={
            "help": "Who answers queries, where it is neither label_file nor the data's own labels: {annotators}, or a "
            "name that another package brings."
        },
    )
    annotator_kwargs: dict | str | None = field(  # type: ignore[type-arg]  # HfArgumentParser knows plain `dict` only
        default=None, metadata={"help": "Settings of the annotator as JSON: what its class takes."}
    )
    new_classes: str = field(
        default="refuse",
        metadata={
            "help": "What happens to an answer in label_file that is none of the classes: refuse, or allow: it becomes "
            "one, with the next start of `run` (labels and queries so far are kept)."
        },
    )
    start_afresh: bool = field(
        default=False,
        metadata={
            "help": "Start from round 0 although output_dir already holds a run; labels, queries and curve of that run "
            "are moved to previous-1 there."
        },
    )
    resume_from_checkpoint: str | None = field(
        default=None, metadata={"help": "true: go on with the run in output_dir where it was interrupted."}
    )

    @property
    def resumes(self) -> bool:
        """Return whether the run in ``output_dir`` is to be continued."""
        return str(self.resume_from_checkpoint or "false").lower() not in ("false", "no", "none", "0")

    def __post_init__(self) -> None:
        if isinstance(self.acquisition_kwargs, str):
            self.acquisition_kwargs = json_mapping("acquisition_kwargs", self.acquisition_kwargs)
        super().__post_init__()
        self._check_annotator()
        if self.new_classes not in ("refuse", "allow"):
            raise InvalidArgument(f"`new_classes` is {self.new_classes}. Set it to refuse or to allow.")
        if self.resumes and self.start_afresh:
            raise InvalidArgument("`resume_from_checkpoint` and `start_afresh` exclude each other. Choose one.")
        if self.resumes and str(self.resume_from_checkpoint).lower() not in ("true", "yes", "1"):
            self._check_resumed_folder()

    def make_annotator(self) -> Annotator | None:
        """Return who answers queries; None where the labels of the data are held out and revealed."""
        if self.label_file is not None:
            return LabelFile(self.label_file)
        assert isinstance(self.annotator_kwargs, dict | None)  # a JSON text was read in `__post_init__`
        return None if self.annotator is None else ANNOTATORS[self.annotator](**(self.annotator_kwargs or {}))

    def _check_annotator(self) -> None:
        if isinstance(self.annotator_kwargs, str):
            self.annotator_kwargs = json_mapping("annotator_kwargs", self.annotator_kwargs)
        if self.annotator is None:
            if self.annotator_kwargs is not None:
                raise InvalidArgument("`annotator_kwargs` are set, and no `annotator`. Name one, or leave them out.")
            return
        if self.label_file is not None:
            raise InvalidArgument("`annotator` and `label_file` both say who answers queries. Leave one of them out.")
        if self.annotator not in ANNOTATORS:
            raise InvalidArgument(
                f"Unknown `annotator` {self.annotator}.{did_you_mean(self.annotator, list(ANNOTATORS))} "
                f"There are: {', '.join(ANNOTATORS)}."
            )
        takes = signature(ANNOTATORS[self.annotator])
        try:
            takes.bind(**(self.annotator_kwargs or {}))
        except TypeError as error:
            raise InvalidArgument(
                f"Cannot make the annotator {self.annotator}: {error}. Its `annotator_kwargs` are "
                f"{', '.join(takes.parameters) or 'none'}."
            ) from error
        if self.annotator == "label_file":  # also new classes and masks are looked for in it
            self.annotator, self.label_file = None, str(self.annotator_kwargs["path"])  # type: ignore[index]
            self.annotator_kwargs = None

    def _check_resumed_folder(self) -> None:
        """Refuse a folder beside ``output_dir``: a run goes on where it is."""
        asked = Path(str(self.resume_from_checkpoint)).expanduser().resolve()
        folder = Path(str(self.output_dir)).expanduser().resolve()
        is_repeat = bool(self.seeds or self.baselines) and folder.name == f"{self.acquisition}-seed-{self.seed}"
        if asked != folder and not (is_repeat and asked == folder.parent):
            raise InvalidArgument(
                f"Cannot resume from {self.resume_from_checkpoint}: a run goes on in its own folder, and `output_dir` "
                f"is {self.output_dir}. Set `output_dir` to {self.resume_from_checkpoint} and "
                "`resume_from_checkpoint` to true."
            )


def json_mapping(name: str, text: str) -> dict[str, Any]:
    """Return the mapping that `text` is in JSON; `name` is the setting, for messages."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidArgument(f"`{name}` is not valid JSON: {error}. Found {text}.") from error
    if not isinstance(value, dict):
        raise InvalidArgument(f"`{name}` is not a mapping. Found {text}.")
    return value
