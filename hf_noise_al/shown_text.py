"""Text that is not ours, such as names in data, as a log line, a message or a picture can show it."""

from __future__ import annotations


def one_line(text: object, most: int = 80) -> str:
    r"""Return `text` as one line of printable characters, cut where it is longer than `most`.

    What would move a terminal's cursor, color it or end the line is written as its escape.

    Example:
        >>> print(one_line("two\nlines, \x1b[31mred"))
        two lines, \x1b[31mred
    """
    whole = str(text)
    cut = whole if len(whole) <= most else whole[: most - 3] + "..."
    return "".join(_printable(character) for character in cut)


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode("ascii")
