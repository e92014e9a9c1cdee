"""Text files that people wrote: read as UTF-8, or refused with file, line and what to do."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..refusals import Refusal

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_BLOCK = 1 << 20


class UnreadableFile(Refusal):
    """A file that cannot be used; the message says which one, where, and what to do."""


def read_typed_text(path: Path) -> str:
    """Return the text of the file at `path`, without the byte order mark that some editors put in front.

    Raises:
        UnreadableFile: there is no file, it cannot be read, or it is not UTF-8.
    """
    _require_file(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    return "".join(_texts(path, [data], others=False))


def find_encoding(path: Path, others: bool = True) -> str:
    """Return what Python calls the encoding of the file at `path`; all of the file is checked, block by block.

    Args:
        path: The file.
        others: Whether UTF-16 and UTF-32 with a byte order mark will do, beside UTF-8.

    Raises:
        UnreadableFile: there is no file, it cannot be read, or it is not in that encoding.
    """
    _require_file(path)
    try:
        with path.open("rb") as stream:
            name = _marked(stream.read(4))
            stream.seek(0)
            for _ in _texts(path, iter(lambda: stream.read(_BLOCK), b""), others):
                pass
    except OSError as error:
        raise _unreadable(path, error) from error
    return _codec(name)


def _texts(path: Path, blocks: Iterable[bytes], others: bool) -> Iterator[str]:
    """Yield the text of the bytes in `blocks`; the first block has the whole mark."""
    decoder: codecs.IncrementalDecoder | None = None
    name, line = "UTF-8", 1
    try:
        for block in blocks:
            if decoder is None:
                name = _marked(block)
                if name != "UTF-8" and not others:
                    raise _not_text(path, 1, f"it is {name}")
                decoder = codecs.getincrementaldecoder(_codec(name))()
            if name == "UTF-8" and b"\0" in block:
                line += block.count(b"\n", 0, block.index(b"\0"))
                raise _not_text(path, line, "a NUL byte, as in UTF-16 or in what is no text")
            text = decoder.decode(block)
            line += text.count("\n")
            yield text
        if decoder is not None:
            yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        line += error.object[: error.start].decode(error.encoding, "ignore").count("\n")
        found = f"the byte 0x{error.object[error.start]:02x}" + (", as in Latin-1" if name == "UTF-8" else "")
        raise _not_text(path, line, found, name) from error


def _marked(head: bytes) -> str:
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), "UTF-8")


def _codec(name: str) -> str:
    return "utf-8-sig" if name == "UTF-8" else name.lower()


def _require_file(path: Path) -> None:
    try:
        is_other = path.exists() and not path.is_file()
    except OSError as error:
        raise _unreadable(path, error) from error
    if is_other:
        raise UnreadableFile(
            f"Cannot read {path}: it is {'a folder' if path.is_dir() else 'no file'}. Name a file that can be read."
        )


def _unreadable(path: Path, error: OSError) -> UnreadableFile:
    return UnreadableFile(f"Cannot read {path}: {error.strerror or error}. Name a file that can be read.")


def _not_text(path: Path, line: int, found: str, name: str = "UTF-8") -> UnreadableFile:
    return UnreadableFile(f"{path}, line {line}: this is not {name} text ({found}). Save the file as UTF-8.")
