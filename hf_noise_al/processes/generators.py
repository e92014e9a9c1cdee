"""Random numbers by name, the same on every process."""

from __future__ import annotations

import hashlib

import torch


def named_generator(seed: int, name: str) -> torch.Generator:
    """Return a generator that depends on `seed` and `name` alone, such as the name of the tensor that gets noise."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
