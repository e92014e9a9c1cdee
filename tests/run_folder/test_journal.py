"""The journal of labels: only added to, read as far as its mark says, refused where it is not what was written."""

import json
from pathlib import Path

import pytest

from hf_noise_al.files.atomic import append_at
from hf_noise_al.pool.pool import Annotation
from hf_noise_al.run_folder.journal import Journal

NOTES = [Annotation(4, 1, 0), Annotation(2, [0.5, 1.0], 1, 0.25), Annotation(0, "é\u2028", 1, given=True)]


def written(path: Path, notes: list[Annotation]) -> Journal:
    journal = Journal(path)
    for note in notes:
        longer, data = journal.extended([note])
        append_at(path, journal.size, data)
        journal = longer
    return journal


def test_labels_come_back_in_their_order_as_plain_lines(tmp_path: Path) -> None:
    journal = written(tmp_path / "labels.jsonl", NOTES)
    again, notes = Journal.load(journal.path, journal.mark)
    assert notes == NOTES and again.mark == journal.mark and again.count == 3
    lines = journal.path.read_text().split("\n")
    assert json.loads(lines[0]) == {"row": 4, "label": 1, "round": 0, "score": None, "given": False}
    assert lines[3] == ""


def test_a_longer_journal_leaves_the_one_before_as_it_was(tmp_path: Path) -> None:
    journal = written(tmp_path / "labels.jsonl", NOTES[:1])
    mark = journal.mark
    longer, data = journal.extended(NOTES[1:])
    assert journal.mark == mark and longer.mark["count"] == 3
    assert longer.size == journal.size + len(data)
    assert longer.mark == written(tmp_path / "other.jsonl", NOTES).mark, "in one step or in several"


def test_what_stands_behind_the_mark_is_not_read(tmp_path: Path) -> None:
    journal = written(tmp_path / "labels.jsonl", NOTES[:2])
    with open(journal.path, "ab") as file:
        file.write(b"half a li")
    assert Journal.load(journal.path, journal.mark)[1] == NOTES[:2]


def test_a_file_that_is_not_as_it_was_written_is_refused(tmp_path: Path) -> None:
    journal = written(tmp_path / "labels.jsonl", NOTES)
    whole = journal.path.read_bytes()
    for content in (whole[:-1], b"", whole.replace(b'"row": 4', b'"row": 5')):
        journal.path.write_bytes(content)
        with pytest.raises(ValueError, match="is not as it was written"):
            Journal.load(journal.path, journal.mark)
    journal.path.unlink()
    with pytest.raises(FileNotFoundError):
        Journal.load(journal.path, journal.mark)


def test_without_labels_there_need_be_no_file(tmp_path: Path) -> None:
    journal, notes = Journal.load(tmp_path / "labels.jsonl", Journal(tmp_path / "labels.jsonl").mark)
    assert notes == [] and journal.size == 0
