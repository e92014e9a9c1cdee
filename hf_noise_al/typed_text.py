"""Text files that people wrote: read as UTF-8, or refused with file, line and what to do."""

from __future__ import annotations

import codecs
from pathlib import Path

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_typed_text(path: Path) -> str:
    """Return the text of the file at `path`, without the byte order mark that some editors put in front.

    Raises:
        ValueError: there is no file, it cannot be read, or it is not UTF-8.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError(
                f"Cannot read {path}: it is {'a folder' if path.is_dir() else 'no file'}. Name a file that can be read."
            )
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror or error}. Name a file that can be read.") from error
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            raise _not_utf8(path, 1, f"it is {name}")
    if b"\0" in data:
        raise _not_utf8(path, _line_of(data, data.index(b"\0")), "a NUL byte, as in UTF-16 or in what is no text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # the position counts from behind the mark
        place = len(data) - len(error.object) + error.start
        raise _not_utf8(path, _line_of(data, place), f"the byte 0x{data[place]:02x}, as in Latin-1") from error


def _line_of(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


def _not_utf8(path: Path, line: int, found: str) -> ValueError:
    return ValueError(f"{path}, line {line}: this is not UTF-8 text ({found}). Save the file as UTF-8.")
