"""Text from elsewhere, such as names in data, made fit for a log line, a message or a picture."""

from __future__ import annotations

from collections.abc import Iterable


def one_line(text: object, most: int = 80) -> str:
    r"""Return `text` as one line of printable characters, cut where it is longer than `most`.

    Characters that would move a terminal's cursor, color it or end the line become escapes.

    Example:
        >>> print(one_line("two\nlines, \x1b[31mred"))
        two lines, \x1b[31mred
    """
    whole = str(text)
    cut = whole if len(whole) <= most else whole[: most - 3] + "..."
    return "".join(_printable(character) for character in cut)


def listed(names: Iterable[object], most: int = 50) -> str:
    """Return the first `most` of `names`, each on one line, with commas between them."""
    every = list(names)
    return ", ".join([*(one_line(name) for name in every[:most]), *(["..."] if len(every) > most else [])])


def printable(text: str) -> str:
    """Return `text` with the lines that it has, and the escapes of all that a terminal would not print."""
    return "\n".join("".join(map(_printable, line)) for line in text.split("\n"))


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode("ascii")


def first_line(error: BaseException) -> str:
    """Return the first line of what `error` says; the name of its class where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
