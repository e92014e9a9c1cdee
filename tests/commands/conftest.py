"""Runs of the command line without what they are not about."""

import pytest
from matplotlib.figure import Figure


@pytest.fixture(autouse=True)
def empty_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing into the pictures of runs, which would be a fifth of the time: tests/experiments looks at those."""
    monkeypatch.setattr("hf_noise_al.experiments.plotting.draw_curves", lambda comparisons: Figure(figsize=(1, 1)))
