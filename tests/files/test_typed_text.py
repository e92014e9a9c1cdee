"""Text that people wrote: UTF-8 is read, anything else is refused with file and line."""

import re
from pathlib import Path

import pytest

from hf_noise_al.files.typed_text import read_typed_text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "typed.txt"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_utf8_is_read_with_and_without_its_mark(path: Path, mark: bytes) -> None:
    path.write_bytes(mark + "é\r\n\u2028\n".encode())
    assert read_typed_text(path) == "é\r\n\u2028\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a\n".encode("utf-16"), "line 1: this is not UTF-8 text (it is UTF-16). Save the file as UTF-8."),
        ("a\n".encode("utf-32"), "line 1: this is not UTF-8 text (it is UTF-32)"),
        ("a\nb".encode("utf-16-le"), "line 1: this is not UTF-8 text (a NUL byte"),
        (b"a\nb\0", "line 2: this is not UTF-8 text (a NUL byte"),
        (b"a\n\nna\xefve", "line 3: this is not UTF-8 text (the byte 0xef, as in Latin-1)"),
        (b"\xef\xbb\xbfa\nna\xefve", "line 2: this is not UTF-8 text (the byte 0xef, as in Latin-1)"),
        (b"a\ncut \xe2\x82", "line 2: this is not UTF-8 text (the byte 0xe2"),
    ],
)
def test_other_encodings_are_refused_with_the_line(path: Path, data: bytes, message: str) -> None:
    path.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(f"{path}, {message}")):
        read_typed_text(path)


def test_what_is_no_file_or_may_not_be_read_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=re.escape(f"Cannot read {path}: No such file or directory")):
        read_typed_text(path)
    with pytest.raises(ValueError, match=re.escape(f"Cannot read {path.parent}: it is a folder")):
        read_typed_text(path.parent)

    def refused(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path.write_text("a")
    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(ValueError, match=re.escape(f"Cannot read {path}: Permission denied")):
        read_typed_text(path)
