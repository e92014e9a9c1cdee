"""What other packages bring: names found by entry points, each imported when it is asked for and not before."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from .refusals import Refusal

Value = TypeVar("Value")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class Registry(MutableMapping[str, Value], Generic[Value]):
    """Values by name: the library's own, those that were put here, and those of the packages that are installed.

    A package brings one by an entry point of the group. It is listed by its name alone, and imported when that name is
    looked up.
    """

    def __init__(
        self, group: str, kind: str, own: Mapping[str, Value], wanted: str, fits: Callable[[str, object], bool]
    ):
        """Keep what the library has itself.

        Args:
            group: Of the entry points, such as ``hf_noise_al.tasks``.
            kind: What a value is called in messages, such as ``task``.
            own: What the library has.
            wanted: What an entry point must lead to, for messages.
            fits: ``(name, what an entry point leads to) -> whether it is that``.
        """
        self.group, self.kind, self._wanted, self._fits = group, kind, wanted, fits
        self._shipped = frozenset(own)
        self._values = dict(own)
        self._loaded: dict[EntryPoint, Value] = {}

    def __getitem__(self, name: str) -> Value:
        """Return the value called `name`.

        Raises:
            KeyError: there is none.
            Refusal: a package brings one that cannot be used, or one of a name that is taken.
        """
        brought = self._brought().get(name, ())
        self._refuse_taken(name, brought)
        return self._values[name] if name in self._values or not brought else self._load(brought[0])

    def __setitem__(self, name: str, value: Value) -> None:
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._values, *self._brought())))

    def __contains__(self, name: object) -> bool:
        return name in self._values or name in self._brought()

    def __len__(self) -> int:
        return len(set(self))

    def __repr__(self) -> str:
        return f"<{', '.join(self)}>"

    def _brought(self) -> Mapping[str, tuple[EntryPoint, ...]]:
        return _entry_points(self.group, tuple(sys.path))

    def _refuse_taken(self, name: str, brought: tuple[EntryPoint, ...]) -> None:
        """Refuse a name of the library that a package brings too, one that two packages bring, and one with a path."""
        if brought and not _NAME.fullmatch(name):
            raise Refusal(
                f"The package {_package(brought[0])} brings the {self.kind} `{name}`. A name begins with a letter and "
                "has letters, digits, `_` and `-` only, as folders are called by it. Rename it there."
            )
        if brought and name in self._shipped:
            raise Refusal(
                f"The package {_package(brought[0])} brings the {self.kind} `{name}`, which is a name of hf_noise_al "
                "itself. Rename it there, or uninstall that package."
            )
        if len(brought) > 1 and name not in self._values:
            packages = " and ".join(map(_package, brought))
            raise Refusal(f"The packages {packages} each bring the {self.kind} `{name}`. Uninstall one of them.")

    def _load(self, point: EntryPoint) -> Value:
        if point not in self._loaded:
            place = f"the {self.kind} `{point.name}` of the package {_package(point)} ({point.value})"
            try:
                value = point.load()
            except (Exception, SystemExit) as error:  # importing a package of others may fail in any way
                raise Refusal(
                    f"Cannot load {place}: {type(error).__name__}: {error}. Repair or uninstall that package."
                ) from error
            if not self._fits(point.name, value):
                raise Refusal(f"Cannot use {place}: it must be {self._wanted}, found {value!r}.")
            self._loaded[point] = value
        return self._loaded[point]


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Return the entry points of `group` by name; `path` is where they are looked for, so that a new one counts."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=group):
        others = found.get(point.name, ())
        found[point.name] = others if point in others else (*others, point)
    return found


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "of an unknown name"
