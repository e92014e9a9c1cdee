"""Settings of the active-learning loop, beside those of `transformers.TrainingArguments`."""

import math
import operator
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from numbers import Real
from typing import Any

from transformers import TrainingArguments

from .acquisition import ACQUISITIONS, Acquisition
from .refusals import Refusal
from .selection.checks import check_whole_number

INITIAL_SELECTIONS = ("random", "stratified", "balanced")

WHOLE = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
}
"""Settings that are whole numbers, and the least that each may be."""

WHOLE_OR_UNSET = {"eval_accumulation_steps": 1, "dataloader_prefetch_factor": 1, "data_seed": -(2**63)}
"""The same for settings that may be None."""

NOT_NEGATIVE = ("learning_rate", "weight_decay", "warmup_steps", "warmup_ratio", "neftune_noise_alpha")
"""Settings that are finite numbers of at least 0, where they are set and this version of transformers has them."""

BELOW_ONE = ("adam_beta1", "adam_beta2", "label_smoothing_factor")
INTERVALS = {"logging_strategy": "logging_steps", "eval_strategy": "eval_steps", "save_strategy": "save_steps"}
MOST_SEED = 2**32 - 1
"""The largest seed that NumPy takes."""


@dataclass
class ActiveTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` and the settings of the rounds."""

    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "acquisition_kwargs"]  # noqa: RUF012

    num_rounds: int = field(
        default=10, metadata={"help": "How many times to fine-tune; there is a query between two of them."}
    )
    initial_size: int = field(
        default=100, metadata={"help": "Examples labeled before the first round, where none has a label yet."}
    )
    initial_selection: str = field(
        default="random",
        metadata={
            "help": "How the initial set is chosen: random; stratified (classes in the pool's proportions) or balanced "
            "(classes equally) where labels are held out.",
            "choices": INITIAL_SELECTIONS,
        },
    )
    query_size: int = field(default=100, metadata={"help": "Examples to label after each round but the last."})
    candidate_size: int | None = field(
        default=None,
        metadata={"help": "Unlabeled examples looked at in each query, drawn at random; all of them when not set."},
    )
    max_tokens_per_batch: int | None = field(
        default=None,
        metadata={
            "help": "Tokens in a batch of candidates, padding included; as many as per_device_eval_batch_size of the "
            "longest have when not set. The gradient sketch takes no more than half of "
            "per_device_train_batch_size of the longest have. Shrunk by itself when memory runs out."
        },
    )
    warm_start: bool = field(
        default=False,
        metadata={"help": "Start each round from the weights of the one before, not from the initial weights."},
    )
    keep_round_files: bool = field(
        default=False,
        metadata={"help": "Keep the checkpoints and the model of every round, not only what a resumed run needs."},
    )
    eval_folds: int | None = field(
        default=None,
        metadata={
            "help": "Cross-validate over the labeled rows of each round: this many folds, so many more trainings. "
            "Metrics are called cv_...; they are of the labeled rows, no random sample where queries chose them. With "
            "validation_fraction 0 no rows are set aside."
        },
    )
    acquisition: str = field(default="noise_stability", metadata={"help": "How queries are chosen: {acquisitions}."})
    acquisition_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": 'Settings of the acquisition as JSON, for example {"num_perturbations": 50}. On the command line '
            "and in recipes each is a setting of its own too, such as acquisition.num_perturbations."
        },
    )
    label_column: str | None = field(
        default=None, metadata={"help": "Column of the labels; found by itself if called labels or label."}
    )

    def __post_init__(self) -> None:
        """Check the settings before any work starts."""
        check_numbers(self)
        super().__post_init__()  # type: ignore[no-untyped-call]
        for name in ("num_rounds", "initial_size", "query_size"):
            check_whole_number(name, getattr(self, name))
        for name in ("candidate_size", "max_tokens_per_batch"):
            if getattr(self, name) is not None:
                check_whole_number(name, getattr(self, name))
        if self.candidate_size is not None and self.candidate_size < self.query_size:
            raise Refusal(
                f"Cannot query {self.query_size} of {self.candidate_size} candidates. "
                "Raise `candidate_size` or lower `query_size`."
            )
        self._check_folds()
        if self.initial_selection not in INITIAL_SELECTIONS:
            raise Refusal(
                f"Unknown `initial_selection` {self.initial_selection!r}. Use one of {', '.join(INITIAL_SELECTIONS)}."
            )
        self._check_acquisition()
        self._check_upstream_settings()

    def make_acquisition(self) -> Acquisition:
        """Return the acquisition that these arguments name, with its settings."""
        assert isinstance(self.acquisition_kwargs, dict | None)  # a JSON text was read in `__post_init__`
        return ACQUISITIONS[self.acquisition](**(self.acquisition_kwargs or {}))

    def _check_folds(self) -> None:
        if self.eval_folds is None:
            return
        check_whole_number("eval_folds", self.eval_folds, 2)
        if self.warm_start:
            raise Refusal(
                "`eval_folds` cannot be used with `warm_start`: each fold would start from weights that were trained "
                "on its rows. Leave one of them out."
            )
        if self.include_for_metrics:
            raise Refusal(
                f"`eval_folds` cannot be used with `include_for_metrics` ({', '.join(self.include_for_metrics)}): "
                "predictions of the folds are measured together, and only these are kept. Leave one of them out."
            )

    def _check_acquisition(self) -> None:
        if self.acquisition not in ACQUISITIONS:
            raise Refusal(f"Unknown `acquisition` {self.acquisition!r}. Use one of {', '.join(ACQUISITIONS)}.")
        if not isinstance(self.acquisition_kwargs, dict | None):
            raise Refusal(f"`acquisition_kwargs` must be a JSON object, got {self.acquisition_kwargs!r}.")
        acquisition_class = ACQUISITIONS[self.acquisition]
        known = list(getattr(acquisition_class, "__dataclass_fields__", {}))
        unknown = [name for name in self.acquisition_kwargs or {} if name not in known]
        if unknown:
            raise Refusal(
                f"The acquisition {self.acquisition!r} has no setting {unknown[0]!r}. "
                f"It has {', '.join(known) if known else 'none'}."
            )
        missing = [name for name in required_settings(acquisition_class) if name not in (self.acquisition_kwargs or {})]
        if missing:
            raise Refusal(
                f"The acquisition {self.acquisition!r} needs the setting {missing[0]!r}. Set it in "
                f"`acquisition_kwargs` (`--acquisition.{missing[0]}`)."
            )
        self.make_acquisition()

    def _check_upstream_settings(self) -> None:
        for name in ("fp16_full_eval", "bf16_full_eval"):
            if getattr(self, name):
                raise Refusal(
                    f"`{name}` is not supported: it converts the model in place, and the training of the next round "
                    "would find weights of another type. Use `bf16` or `fp16` alone."
                )
        if "trackio" in (self.report_to or ()) and self.run_name is None:
            raise Refusal(
                "Trackio starts a new run at each round unless it has a name. "
                "Set `run_name` to keep the rounds together."
            )


def default_of(setting: Field[Any]) -> object:
    """Return the default of a field of a dataclass; MISSING where it has none."""
    return setting.default if setting.default_factory is MISSING else setting.default_factory()


def required_settings(acquisition: type) -> list[str]:
    """Return the settings of an acquisition class that have no default."""
    settings = fields(acquisition) if is_dataclass(acquisition) else ()
    return [item.name for item in settings if item.init and item.default is item.default_factory is MISSING]


def check_numbers(arguments: TrainingArguments) -> None:
    """Raise ValueError for a number that would stop a training, let it do nothing, or leave weights that are NaN."""
    values = vars(arguments)
    for name, least in WHOLE.items():
        check_whole_number(name, _whole(values[name]), least)
    for name, least in WHOLE_OR_UNSET.items():
        if values[name] is not None:
            check_whole_number(name, _whole(values[name]), least)
    check_whole_number("seed", values["seed"], 0, MOST_SEED)
    _check_length(values)
    for name in NOT_NEGATIVE:
        if values.get(name) is not None:
            _check(name, values[name], 0 <= _number(values[name]) < math.inf, "a finite number of at least 0")
    for name in BELOW_ONE:
        _check(name, values[name], 0 <= _number(values[name]) < 1, "at least 0 and below 1")
    epsilon = _number(values["adam_epsilon"])
    _check("adam_epsilon", values["adam_epsilon"], 0 < epsilon < math.inf, "a finite number above 0, such as 1e-8")
    norm = values["max_grad_norm"]
    if norm is not None:
        _check("max_grad_norm", norm, _number(norm) >= 0, "at least 0, which stands for gradients of any length")
    for strategy, name in INTERVALS.items():
        if getattr(values[strategy], "value", values[strategy]) == "steps" and values[name] is not None:
            _check(name, values[name], math.isfinite(_number(values[name])), "a finite number")
    if values["dataloader_persistent_workers"] and not values["dataloader_num_workers"]:
        raise Refusal(
            "`dataloader_persistent_workers` is set, and `dataloader_num_workers` is 0: there are no workers to keep. "
            "Raise `dataloader_num_workers`, or leave the setting out."
        )


def _check_length(values: Mapping[str, object]) -> None:
    steps, epochs = _whole(values["max_steps"]), values["num_train_epochs"]
    check_whole_number("max_steps", steps, -math.inf)
    if steps == 0:
        raise Refusal(
            "`max_steps` is 0, and a round must train. Set the steps of a round, or -1 to go by `num_train_epochs`."
        )
    if isinstance(steps, int) and steps < 0:
        _check("num_train_epochs", epochs, 0 < _number(epochs) < math.inf, "a finite number above 0")


def _whole(value: object) -> object:
    """Return an integer of NumPy as Python's, and anything else as it is."""
    return operator.index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else value


def _number(value: object) -> float:
    """Return `value` as a float, and what is no number as NaN."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan


def _check(name: str, value: object, fits: bool, wanted: str) -> None:
    if not fits:
        raise Refusal(f"`{name}` must be {wanted}, got {value!r}. Correct it, or leave it out for the default.")
