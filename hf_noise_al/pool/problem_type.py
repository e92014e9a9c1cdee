"""What a model's configuration says of its labels: the kind of problem, and the names of the classes."""

from __future__ import annotations

MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"


def predicts_classes(model: object) -> bool:
    """Return whether `model` is known to tell classes apart, of a row or of each of its words."""
    num_labels = getattr(getattr(model, "config", None), "num_labels", None)
    return num_labels is not None and problem_type_of(model) != REGRESSION


def problem_type_of(model: object) -> str | None:
    """Return the problem type of a model's configuration; one output is a number."""
    config = getattr(model, "config", None)
    found: str | None = getattr(config, "problem_type", None)
    return found or (REGRESSION if getattr(config, "num_labels", None) == 1 else None)


def classes_of_config(config: object) -> tuple[str, ...] | None:
    """Return the classes that a model's configuration names; None where it names none, such as LABEL_0.

    Example:
        >>> from types import SimpleNamespace
        >>> classes_of_config(SimpleNamespace(num_labels=2, id2label={0: "bad", 1: "good"}))
        ('bad', 'good')
    """
    given = getattr(config, "id2label", None) or {}
    names = {int(number): str(name) for number, name in given.items()}
    ordered = tuple(names.get(number, "") for number in range(getattr(config, "num_labels", 0) or 0))
    generic = all(name == f"LABEL_{number}" for number, name in enumerate(ordered))
    tidy = [name.strip() for name in ordered]
    return None if generic or "" in tidy or len({*tidy}) < len(tidy) else ordered
