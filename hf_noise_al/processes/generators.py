"""Generators of random numbers by name or round: the same on every process, and after a resume."""

from __future__ import annotations

import hashlib

import torch


def named_generator(seed: int, name: str) -> torch.Generator:
    """Return a generator that depends on `seed` and `name` alone, such as the name of the tensor that gets noise."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def round_generator(seed: int, number: int) -> torch.Generator:
    """Return the generator of round `number`; neighboring seeds share no round, as they would by ``seed + number``."""
    return torch.Generator().manual_seed(seed * 2**20 + number)
