"""Files: whole or old, never half, and on the disk when the writer returns."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from hf_noise_al.files.atomic import append_at, set_aside, write_atomically


def test_writing_makes_folders_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_atomically(path, "é")
    write_atomically(path, "ü\n")
    assert path.read_bytes() == "ü\n".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["b.json"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "old")

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(error):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def _write_for_ever(path: Path) -> None:
    texts = [json.dumps([i] * 20_000) for i in range(2)]
    while True:
        for text in texts:
            write_atomically(path, text)


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    for pause in (0.002, 0.005, 0.011):
        writer = multiprocessing.get_context("fork").Process(target=_write_for_ever, args=(path,))
        writer.start()
        while not path.exists():
            time.sleep(0.001)
        time.sleep(pause)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        assert len(json.loads(path.read_text())) == 20_000


def test_set_aside_takes_the_first_free_name(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert set_aside(path) is None
    kept = []
    for text in ("one", "two"):
        path.write_text(text)
        kept.append(set_aside(path))
        assert not path.exists()
    assert [entry.name for entry in kept if entry] == ["state.previous-1.json", "state.previous-2.json"]
    assert [entry.read_text() for entry in kept if entry] == ["one", "two"]


def test_bytes_are_added_where_the_acknowledged_ones_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    append_at(path, 0, b"one\n")
    append_at(path, 4, b"two\nthree\n")
    append_at(path, 8, b"3\n")
    assert path.read_bytes() == b"one\ntwo\n3\n"


def test_nothing_is_added_to_a_file_that_lost_its_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    for place in (path, tmp_path / "gone"):
        with pytest.raises(ValueError, match=r"has [30] bytes where 4 were written\. Restore it from a copy"):
            append_at(place, 4, b"two\n")
    assert path.read_bytes() == b"one" and not (tmp_path / "gone").exists()
