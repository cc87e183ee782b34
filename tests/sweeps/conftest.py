"""Fixtures for sweeps on disk."""

import pytest

from mixjax.sweeps.saving import pauses


@pytest.fixture
def save_always():
    """Saves after each chunk and each segment, so that a test knows what is on disk."""
    with pauses(longest=0.0):
        yield
