"""What the user is told and can act upon: the one class of error whose traceback helps nobody."""

from __future__ import annotations


class Refusal(ValueError):
    """What was asked cannot be done; the message says what was asked, what was found and what to do.

    The command shows it as one line and ends with exit code 2; any other error keeps its traceback. In Python it is a
    ValueError, and can be caught as one.
    """


class MissingFile(Refusal, FileNotFoundError):
    """A file or folder that was named is not there."""


def retold(error: Exception, text: str) -> Refusal:
    """Return a refusal that says `text`, of the kind of `error` where that is a refusal itself."""
    kind = type(error) if isinstance(error, Refusal) else Refusal
    return kind(text)


def reason_of(error: Exception) -> str:
    """Return what `error` says; where nobody wrote it for users, with its class before it."""
    return str(error) if type(error) in (ValueError, Refusal) else f"{type(error).__name__}: {error}"
