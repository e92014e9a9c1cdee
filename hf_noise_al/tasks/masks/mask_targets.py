"""Masks as labels: which mask values are classes and which void, for columns of masks and for annotators' answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Value
from transformers.utils import logging

from ...pool.columns import declared_classes
from ...pool.places import row_at
from ...pool.pool import Label
from ...refusals import Refusal
from ...settings.arguments import DataArguments
from ..columns import find_image_column
from ..label_column import with_label_column
from ..label_kinds import LabelKind
from ..pictures import as_stored, open_image, place_of
from ..targets import Targets, by_place
from .mask_arrays import VOID, Mask, decode_mask, encode_mask, is_encoded, read_mask

logger = logging.get_logger(__name__)

SEMANTIC_SEGMENTATION = "semantic_segmentation"
DEFAULT_VOID = (255,)


@dataclass(frozen=True)
class MaskTargets(Targets):
    """Classes of pixels: their names, the mask value of each, and the values that do not count."""

    problem_type: str = field(default=SEMANTIC_SEGMENTATION, init=False)
    values: tuple[int, ...] = ()
    """Mask value of each class; the class numbers are their positions."""
    void: tuple[int, ...] = DEFAULT_VOID
    image_column: str = ""
    """Column of the images, whose sizes the masks must have."""

    @property
    def feature(self) -> Any:
        """Return the feature of the column ``labels``: masks as text, see `mask_arrays.encode_mask`."""
        return Value("string")

    def head(self) -> dict[str, Any]:
        """Return the fields of a model's configuration that describe its output head."""
        return {name: value for name, value in super().head().items() if name != "problem_type"}

    def arranged(self, names: Sequence[str]) -> MaskTargets:
        """Return the same with the classes `names` first, in that order, each with the mask value that it has here.

        Raises:
            ValueError: one of them is none of the classes here.
        """
        values = dict(zip(self.class_names, self.values, strict=True))
        lost = [name for name in names if name not in values]
        if lost:
            raise Refusal(f"The class {lost[0]} has no mask value. List all classes in `class_names`.")
        ordered = tuple(dict.fromkeys((*names, *self.class_names)))
        return replace(self, class_names=ordered, values=tuple(values[name] for name in ordered))

    def classes(self, mask: Mask, where: str) -> Mask:
        """Return class numbers for the values of `mask`, `VOID` for void ones: (H, W).

        Raises:
            ValueError: a value is neither a class nor void.
        """
        known = {**dict.fromkeys(self.void, VOID), **{value: number for number, value in enumerate(self.values)}}
        low, high = int(mask.min()), int(mask.max())
        unknown = np.iinfo(np.int64).min
        if high - low > 2**16:
            raise self._no_class(low if low not in known else high, where)
        table = np.full(high - low + 1, unknown)
        for value, number in known.items():
            if low <= value <= high:
                table[value - low] = number
        found = table[mask - low]
        if (found == unknown).any():
            raise self._no_class(int(mask[found == unknown].flat[0]), where)
        return found

    def text(self, value: Any, where: str, size: tuple[int, int], folders: Sequence[Path] = ()) -> str:
        """Return a mask in any form as `encode_mask` writes it.

        Args:
            value: A picture, an array or the path of a picture, with values of the data's masks; or text as
                `encode_mask` writes it, with class numbers.
            where: For messages.
            size: Height and width of the image.
            folders: Where relative paths are looked for, beside the present folder.
        """
        if is_encoded(value):
            classes = decode_mask(value, where)
            if int(classes.max()) >= self.num_labels:
                raise Refusal(f"{where}: class {classes.max()} is outside the {self.num_labels} classes.")
        else:
            classes = self.classes(read_mask(_file(value, where, folders), where), where)
        if classes.shape != size:
            found, wanted = (f"{height} x {width}" for height, width in (classes.shape, size))
            raise Refusal(
                f"{where}: the mask has {found} pixels (height x width), its image {wanted}. Give both the same size."
            )
        return encode_mask(classes)

    def _no_class(self, value: int, where: str) -> Refusal:
        ends = f"{self.values[0]} to {self.values[-1]}" if len(self.values) > 8 else ", ".join(map(str, self.values))
        return Refusal(
            f"{where}: the mask value {value} is none of the {self.num_labels} classes ({ends}) and not void "
            f"({', '.join(map(str, self.void))}). Correct the mask, list all classes in `class_names`, or add the "
            "value to `void_label`."
        )


def read_mask_classes(
    pool: Dataset, evaluation: dict[str, Dataset], column: str, arguments: DataArguments
) -> MaskTargets:
    """Return the classes of pixels: `class_names`, else those of nested ClassLabels, else every value that is found.

    Names stand for the mask values 0, 1, ... without void ones, in this order; in a json file, for the value that is
    their key.
    """
    void = tuple(arguments.void_label or DEFAULT_VOID)
    named = _named(arguments.class_names, pool.features[column], void)
    if named is None:
        parts = by_place(pool, evaluation)
        values = sorted({value for place, part in parts.items() for value in _values(part, column, place)} - {*void})
        named = tuple(map(str, values)), tuple(values)
        logger.info(f"Column `{column}` names no classes: found the mask values {', '.join(named[0])}.")
    return _targets(*named, void, find_image_column(pool, arguments.image_column))


def trained_mask_classes(pool: Dataset, column: str, config: Any, arguments: DataArguments) -> MaskTargets:
    """Return the classes that a trained model tells apart: `class_names`, else the model's own."""
    void = tuple(arguments.void_label or DEFAULT_VOID)
    named = _named(arguments.class_names, None, void)
    if named is None:
        names = tuple(str(config.id2label[number]) for number in range(config.num_labels))
        numbers = all(name.isdecimal() for name in names)  # values that were found in masks without names
        named = names, tuple(map(int, names)) if numbers else _first_values(len(names), void)
    return _targets(*named, void, find_image_column(pool, arguments.image_column))


def with_masks(dataset: Dataset, column: str, targets: Targets, place: str, complete: bool) -> Dataset:
    """Return `dataset` with the masks of `column` as text in the column ``labels``; a missing mask is None.

    Raises:
        ValueError: a mask has another size than its image or a value outside the classes, or is missing where the
            labels must be `complete`.
    """
    assert isinstance(targets, MaskTargets)
    labels: list[str | None] = []
    for row, example in enumerate(_undecoded(dataset, column, targets.image_column)):
        mask, image = example[column], example[targets.image_column]
        if mask is None and complete:
            raise Refusal(
                f"Column `{column}` of {place} has no mask in {row_at(place, row)}. Rounds are measured on labeled "
                "rows: name another `eval_split`, or remove such rows."
            )
        size = open_image(image, place_of(image, targets.image_column, place, row)).size[::-1]
        labels.append(None if mask is None else targets.text(mask, place_of(mask, column, place, row), size))
    if missing := labels.count(None):
        logger.info(f"{missing} of {len(labels)} rows of {place} have no label yet: they stay unlabeled.")
    return with_label_column(dataset, column, labels, targets)


def answers_as_masks(images: Dataset, targets: Targets, label_file: str | None) -> Callable[[int, object], Label]:
    """Return what reads an annotator's answer for a row: an array, a picture, its path, or text of `encode_mask`.

    Args:
        images: The pool, with its images in the column ``pixel_values``.
        targets: Its classes.
        label_file: The file or folder that answers come from; paths in it may be relative to its folder.
    """
    assert isinstance(targets, MaskTargets)
    file = None if label_file is None else Path(label_file)
    folders = [] if file is None else [file if file.is_dir() else file.parent]

    def read(row: int, answer: object) -> Label:
        image = open_image(images[row]["pixel_values"], f"Row {row}")
        where = f"the answer {answer}" if isinstance(answer, str) and not is_encoded(answer) else "the answer"
        return targets.text(answer, where, image.size[::-1], folders)

    return read


MASKS = LabelKind(read_mask_classes, trained_mask_classes, with_masks)


def _undecoded(dataset: Dataset, *columns: str) -> Dataset:
    for column in columns:
        dataset = as_stored(dataset, column)
    return dataset.select_columns(list(dict.fromkeys(columns))).with_format(None)


def _targets(names: tuple[str, ...], values: tuple[int, ...], void: tuple[int, ...], image_column: str) -> MaskTargets:
    if len(names) < 2:
        raise Refusal(
            f"The masks have {len(names)} class{'' if len(names) == 1 else 'es'} beside void "
            f"({', '.join(map(str, void))}): nothing to tell apart. List all classes in `class_names`."
        )
    return MaskTargets(class_names=names, values=values, void=void, image_column=image_column)


def _named(
    given: Sequence[str] | None, feature: Any, void: tuple[int, ...]
) -> tuple[tuple[str, ...], tuple[int, ...]] | None:
    """Return names of classes and their mask values, where they are given or declared."""
    names = list(given or declared_classes(feature, levels=math.inf) or ())
    if len(names) == 1 and names[0].endswith(".json"):
        loaded = _from_json(Path(names[0]))
        if isinstance(loaded, dict):
            kept = {value: name for value, name in sorted(loaded.items()) if value not in void}
            return tuple(kept.values()), tuple(kept)
        names = loaded
    return (tuple(names), _first_values(len(names), void)) if names else None


def _first_values(count: int, void: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(value for value in range(count + len(void)) if value not in void)[:count]


def _from_json(path: Path) -> dict[int, str] | list[str]:
    expected = 'a list of names, or names by mask value as in {"0": "road", "1": "car"}'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, list):
            return [str(name) for name in content]
        return {int(value): str(name) for value, name in content.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise Refusal(f"Cannot read `class_names` from {path}: {error}. It should hold {expected}.") from error


def _values(dataset: Dataset, column: str, place: str) -> set[int]:
    found: set[int] = set()
    for row, example in enumerate(_undecoded(dataset, column)):
        value = example[column]
        if value is None:
            continue
        where = place_of(value, column, place, row)
        mask = decode_mask(value, where) if is_encoded(value) else read_mask(_file(value, where, ()), where)
        found.update(np.unique(mask[mask != VOID]).tolist())
    return found


def _file(value: Any, where: str, folders: Sequence[Path]) -> Any:
    """Return the picture at a path; anything else as it is."""
    if not isinstance(value, str):
        return value
    for path in (Path(value).expanduser(), *(folder / value for folder in folders)):
        if path.is_file():
            return {"bytes": None, "path": str(path)}
    raise Refusal(f"{where}: there is no file {value}. Write the path of a PNG, or the mask as rows of numbers.")
