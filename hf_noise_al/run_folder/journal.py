"""The labels of a run as JSON lines that are only ever added to, so that telling one costs the same at any time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..pool.pool import Annotation
from ..refusals import Refusal


class Journal:
    """The file ``labels.jsonl``, one annotation a line, as far as the state of the run says that it goes.

    What stands behind that was never acknowledged: nobody reads it, and the next labels are written over it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.size = 0
        """In bytes."""
        self._hash = hashlib.blake2b(digest_size=16)

    @property
    def mark(self) -> dict[str, object]:
        """What the state keeps of it: how many labels, how many bytes, and their checksum."""
        return {"count": self.count, "bytes": self.size, "checksum": self._hash.hexdigest()}

    def extended(self, annotations: Sequence[Annotation]) -> tuple[Journal, bytes]:
        """Return the journal that ends with `annotations`, and the bytes to add to the file for it."""
        data = "".join(json.dumps(asdict(annotation)) + "\n" for annotation in annotations).encode()
        longer = Journal(self.path)
        longer.count, longer.size, longer._hash = self.count + len(annotations), self.size, self._hash.copy()
        longer._take(data)
        return longer, data

    def _take(self, data: bytes) -> None:
        self.size += len(data)
        self._hash.update(data)

    @classmethod
    def load(cls, path: Path, mark: Any) -> tuple[Journal, list[Annotation]]:
        """Read the file as far as `mark` says.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is shorter than `mark` says, or something else stands in it.
        """
        journal = cls(path)
        if mark == journal.mark:
            return journal, []
        with open(path, "rb") as file:
            data = file.read(mark["bytes"])
        lines = data.split(b"\n")[:-1]
        journal.count = len(lines)
        journal._take(data)
        if journal.mark != mark:
            raise Refusal(
                f"{path.name} is not as it was written: {journal.mark} found, {mark} expected. Restore it from a copy"
            )
        return journal, [Annotation(**json.loads(line)) for line in lines]
