"""Answers: labels that came with the data, and those of people and annotators, read and compared with the run."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Sequence

import pyarrow as pa
import torch
from datasets import Dataset
from transformers.utils.logging import get_logger

from ..annotators import Annotator, HeldOutLabels, LabelFile
from ..annotators.label_file import KnownRows
from ..exchange.query_file import refuse_other_rows
from ..pool.label_reader import LabelReader
from ..pool.pool import Annotation, Pool
from ..pool.pool_dataset import PoolDataset
from ..refusals import Refusal
from ..run_folder.earlier_run import refuse_own_file
from ..run_folder.state import ActiveState
from ..run_folder.stored_run import StoredRun

logger = get_logger(__name__)


def labels_of_data(
    data: PoolDataset, reader: LabelReader, set_aside: Collection[int], annotator: Annotator | None
) -> tuple[list[Annotation], Annotator | None]:
    """Return the labels that count as given, and who answers queries.

    Where every row that can be asked for has a label and nobody else answers, the labels are held out and revealed by
    queries: nothing is given.
    """
    asked = [row for row in range(len(data)) if row not in set_aside]
    given = {row: label for row in asked if (label := data.labels[row]) is not None}
    labels = data.restore(reader, list(given), list(given.values()))
    if len(given) == len(asked) and annotator is None:
        logger.info("Every row of `train_dataset` has a label: they are held out and revealed when queried.")
        return [], HeldOutLabels(dict(zip(given, labels, strict=True)))
    return [Annotation(row, label, 0, given=True) for row, label in zip(given, labels, strict=True)], annotator


def some_labeled(run: StoredRun, annotator: Annotator | None, most: int) -> Dataset | None:
    """Return at most two rows with labels, those of the pool or held out; None where nobody told any so far."""
    known, data = run.pool.annotations[:2], run.data
    if not known and isinstance(annotator, HeldOutLabels):
        told = [(row, label) for row, label in annotator.labels.items() if 0 <= row < len(data)][:2]
        rows, labels = [row for row, _ in told], [label for _, label in told]
        restored = data.restore(run.reader, rows, labels)
        known = [Annotation(row, label, 0) for row, label in zip(rows, restored, strict=True)]
    known = known[:most]
    return data.labeled_split(Pool(len(data), known)) if known else None


def ask(run: StoredRun, annotator: Annotator, rows: list[int]) -> list[object]:
    """Return what `annotator` says of `rows`, the same on every process."""
    _compare_label_file(run, annotator, run.pool)
    return list(run.trainer.from_main_process(lambda: annotator.annotate(rows)))


def check_label_file(run: StoredRun, annotator: Annotator | None, state: ActiveState) -> None:
    """Raise ValueError where what people wrote so far cannot be read, or says otherwise than the run."""
    asked = state.pending.rows if state.pending is not None else []
    if isinstance(annotator, LabelFile):
        refuse_own_file(run.folder, annotator.path)
        _compare_label_file(run, annotator, state.pool)
        run.trainer.from_main_process(lambda: annotator.check(asked))


def _compare_label_file(run: StoredRun, annotator: Annotator, pool: Pool) -> None:
    """Have what people wrote compared with the rows and the labels of the run, whenever it is read."""
    if not isinstance(annotator, LabelFile):
        return
    known = KnownRows(
        told={row: run.reader.spell(pool.label(row)) for row in pool.labeled_rows},
        read=lambda row, label: run.data.read(run.reader, [row], [label])[0],
        refuse_other_rows=lambda lines: refuse_other_rows(run.shown(), lines),
        size=pool.size,
        set_aside=pool.set_aside,
    )
    annotator.compare_with(known)


def tell(run: StoredRun, rows: list[int], labels: list[object], given: bool, held_out: bool = False) -> None:
    """Add the labels of `rows` to the run, all or none, and to its query file.

    Args:
        run: The run.
        rows: Rows of the data set.
        labels: One each, as people write them.
        given: Whether they were told by `annotate`, and not asked for by a query.
        held_out: Whether the labels have the form of the data, and not that of people.
    """
    pending = run.state.pending
    scores = dict(zip(pending.rows, pending.scores, strict=True)) if pending is not None else {}
    if len(rows) != len(labels):
        raise Refusal(f"Cannot label {len(rows)} rows with {len(labels)} labels: give one label per row.")
    read = run.data.restore if held_out else run.data.read
    parsed = read(run.reader, rows, labels)
    blanks = sum(isinstance(label, str) and label != label.strip() for label in labels)
    if blanks:
        logger.info(f"{blanks} answers have blanks around them: these are taken off.")
    number = run.state.round
    new = [Annotation(r, y, number, scores.get(r), given) for r, y in zip(rows, parsed, strict=True)]
    if not run.pool.holds(new):
        _check_form(run, new)
        run.weights.resumed_round = None  # what a killed training left had not seen these labels
        with run.change() as state:
            state.pool.add(new)
            state.pending = None if pending is None else pending.without(rows)
    run.write_query_file()


def _check_form(run: StoredRun, new: list[Annotation]) -> None:
    """Raise ValueError where the labels of `new` cannot be trained on beside those that are there."""
    try:
        run.data.as_column([annotation.label for annotation in (*run.pool.annotations, *new)])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        rows = ", ".join(str(annotation.row) for annotation in new[:5])
        raise Refusal(
            f"Cannot label rows {rows}: their labels do not go with those that are there ({error}). Give labels of "
            "one form to all rows."
        ) from error


def plain_rows(indices: Sequence[int] | torch.Tensor) -> list[int]:
    """Return row numbers as plain integers, whatever they are listed in.

    Raises:
        ValueError: something else stands there.
    """
    listed = indices.tolist() if hasattr(indices, "tolist") else indices
    if not isinstance(listed, Iterable) or isinstance(listed, str):
        raise Refusal(f"Rows must be a list of whole numbers, got {listed!r}.")
    rows = list(listed)
    for row in rows:
        if isinstance(row, bool) or not hasattr(row, "__index__"):
            raise Refusal(f"Rows must be whole numbers, got {row!r}.")
    return [operator.index(row) for row in rows]
