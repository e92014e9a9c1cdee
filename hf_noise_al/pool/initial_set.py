"""The initial set: what to label before there is anything to learn from."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..refusals import Refusal
from .pool import Label


def initial_set(
    rows: Sequence[int], size: int, how: str, labels: Sequence[Label] | None, generator: torch.Generator
) -> list[int]:
    """Choose `size` of `rows` at random, or at random within classes.

    Args:
        rows: Unlabeled rows.
        size: How many to choose.
        how: ``"random"``; ``"stratified"``, each class in its proportion; ``"balanced"``, classes equally as far as
            they last.
        labels: Class of each of `rows`; needed but for ``"random"``.
        generator: Source of randomness.

    Raises:
        ValueError: there are not enough rows, or classes are needed and not known.
    """
    if not 1 <= size <= len(rows):
        raise Refusal(f"Cannot choose an initial set of {size} of {len(rows)} unlabeled rows. Lower `initial_size`.")
    order = torch.randperm(len(rows), generator=generator).tolist()
    if how == "random":
        return [rows[i] for i in order[:size]]
    if labels is None or not all(isinstance(label, int) for label in labels):
        raise Refusal(
            f"`initial_selection={how!r}` needs held-out class labels, one number per row. "
            "Use 'random' where labels are not known, numbers on a scale, or several per row."
        )
    by_class: dict[Label, list[int]] = {}
    for i in order:
        by_class.setdefault(labels[i], []).append(rows[i])
    classes = [by_class[label] for label in sorted(by_class)]
    shares = _proportional(classes, size) if how == "stratified" else _equal(classes, size)
    return [row for members, share in zip(classes, shares, strict=True) for row in members[:share]]


def _proportional(classes: list[list[int]], size: int) -> list[int]:
    """Share `size` by the largest remainder."""
    total = sum(len(members) for members in classes)
    exact = [size * len(members) / total for members in classes]
    shares = [int(value) for value in exact]
    by_remainder = sorted(range(len(classes)), key=lambda c: shares[c] - exact[c])
    for c in by_remainder[: size - sum(shares)]:
        shares[c] += 1
    return shares


def _equal(classes: list[list[int]], size: int) -> list[int]:
    """Share `size` one by one in turn, passing over classes that are used up."""
    shares = [0] * len(classes)
    while sum(shares) < size:
        for c, members in enumerate(classes):
            if shares[c] < len(members) and sum(shares) < size:
                shares[c] += 1
    return shares
