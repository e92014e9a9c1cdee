"""Checksums of a folder: what is read is what was written."""

from pathlib import Path

import pytest

from hf_noise_al.files.checksums import check_folder, write_checksums
from hf_noise_al.files.run_names import CHECKSUMS_FILE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "one").write_bytes(b"1" * 5_000_000)
    (tmp_path / "two").write_bytes(b"")
    write_checksums(tmp_path)
    return tmp_path


def test_files_as_they_were_written_are_taken(folder: Path) -> None:
    check_folder(folder)
    (folder / "three").write_text("beside them")
    check_folder(folder)


@pytest.mark.parametrize(("name", "content"), [("one", b"1" * 4_999_999 + b"2"), ("one", b"1"), ("two", b"2")])
def test_a_changed_file_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"Cannot resume: .*/{name} is damaged .it is not what was written.. Restore"):
        check_folder(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"/{name} is damaged"):
        check_folder(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"one": 1}'])
def test_damaged_checksums_are_refused(folder: Path, content: bytes) -> None:
    (folder / CHECKSUMS_FILE).write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        check_folder(folder)


def test_a_folder_without_checksums_is_taken_and_an_empty_one_is_not(folder: Path, tmp_path: Path) -> None:
    (folder / CHECKSUMS_FILE).unlink()
    check_folder(folder)
    (tmp_path / "empty").mkdir()
    for gone in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=f"the weights in {gone} are gone. Restore the folder"):
            check_folder(gone)


def test_a_folder_may_be_written_again_and_what_is_in_its_folders_counts(folder: Path) -> None:
    (folder / "part").mkdir()
    (folder / "part" / "three").write_bytes(b"3")
    for _ in range(2):
        write_checksums(folder)
        check_folder(folder)
    (folder / "part" / "three").write_bytes(b"4")
    with pytest.raises(ValueError, match="part/three is damaged"):
        check_folder(folder)
