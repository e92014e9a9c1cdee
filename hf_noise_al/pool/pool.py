"""The pool: which examples are labeled, with what label, since which round."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

from ..refusals import Refusal

Label: TypeAlias = "int | float | str | list[int] | list[float]"


@dataclass(frozen=True)
class Annotation:
    """One label that was given."""

    row: int
    """Row of the data set."""
    label: Label
    """The label as plain JSON."""
    round: int
    """The round it was first trained in: 0 for the initial set."""
    score: float | None = None
    """The score that the acquisition gave it, if a query chose it."""
    given: bool = False
    """Came with the data set or by `annotate`, not from the annotator of a run: kept when a run starts afresh."""


class Pool:
    """Labeled and unlabeled rows of one data set, in order of annotation; append-only.

    Args:
        size: How many rows the data set has.
        annotations: What is labeled.
        set_aside: Rows that are neither asked for nor trained on, such as those that rounds are measured on.
    """

    def __init__(self, size: int, annotations: Iterable[Annotation] = (), set_aside: Iterable[int] = ()) -> None:
        self.size = size
        self.set_aside = frozenset(set_aside)
        self._annotations: dict[int, Annotation] = {}
        for annotation in annotations:
            self._add(annotation)

    @property
    def annotations(self) -> list[Annotation]:
        """Every annotation, in the order given."""
        return list(self._annotations.values())

    def annotations_from(self, start: int) -> list[Annotation]:
        """Return the annotations after the first `start`, in the order given."""
        return list(itertools.islice(self._annotations.values(), start, None))

    @property
    def num_labeled(self) -> int:
        """How many rows are labeled."""
        return len(self._annotations)

    @property
    def labeled_rows(self) -> list[int]:
        """The labeled rows, ascending."""
        return sorted(self._annotations)

    @property
    def unlabeled_rows(self) -> list[int]:
        """The unlabeled rows, ascending."""
        return [row for row in range(self.size) if row not in self._annotations and row not in self.set_aside]

    def leave_out(self, rows: Iterable[int]) -> None:
        """Set `rows` aside too, where they are not labeled."""
        self.set_aside |= frozenset(rows) - self._annotations.keys()

    def label(self, row: int) -> Label:
        """Return the label of a labeled row."""
        return self._annotations[row].label

    def annotate(self, rows: Sequence[int], labels: Sequence[Label], round: int, **details: bool) -> None:
        """Add labels, all or none.

        Raises:
            ValueError: lengths differ, or a row is outside the pool, named twice or labeled already.
        """
        self.add([Annotation(row, label, round, **details) for row, label in _pairs(rows, labels)])

    def add(self, annotations: Sequence[Annotation]) -> None:
        """Add annotations, all or none; errors as `annotate`."""
        before = self.num_labeled
        try:
            for annotation in annotations:
                self._add(annotation)
        except BaseException:
            self.forget_after(before)
            raise

    def holds(self, annotations: Sequence[Annotation]) -> bool:
        """Return whether every row of `annotations` has the same label already; False where there are none."""
        known = [self._annotations.get(annotation.row) for annotation in annotations]
        same = (old is not None and old.label == new.label for old, new in zip(known, annotations, strict=True))
        return bool(annotations) and all(same)

    def forget_after(self, count: int) -> None:
        """Take back all annotations but the first `count`."""
        while len(self._annotations) > count:
            self._annotations.popitem()

    def _add(self, annotation: Annotation) -> None:
        row = annotation.row
        if isinstance(row, bool) or not isinstance(row, int) or not 0 <= row < self.size:
            raise Refusal(f"Cannot label row {row!r}: rows of this pool are the integers 0 to {self.size - 1}.")
        if row in self.set_aside:
            raise Refusal(
                f"Cannot label row {row}: it is set aside, and what is measured on must not be trained on. Leave it "
                "out."
            )
        if row in self._annotations:
            raise Refusal(
                f"Cannot label row {row} twice: it already has the label {self._annotations[row].label!r} "
                f"(round {self._annotations[row].round})."
            )
        self._annotations[row] = annotation

    def given(self) -> Pool:
        """Return the pool that a run starting afresh begins with."""
        kept = [annotation for annotation in self.annotations if annotation.given]
        return Pool(self.size, [Annotation(a.row, a.label, 0, a.score, True) for a in kept], self.set_aside)

    def to_json(self) -> list[dict[str, object]]:
        """Return the annotations as plain JSON."""
        return [asdict(annotation) for annotation in self.annotations]


def _pairs(rows: Sequence[int], labels: Sequence[Label]) -> list[tuple[int, Label]]:
    if len(rows) != len(labels):
        raise Refusal(f"Cannot label {len(rows)} rows with {len(labels)} labels: give one label per row.")
    return list(zip(rows, labels, strict=True))
