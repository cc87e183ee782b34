"""What makes a config's run from end to end quick."""

import numpy as np
import pytest

from mixjax.runner import experiment


@pytest.fixture
def first_run_only(monkeypatch):
    """A config's first run is swept; the others take its numbers in their own coords, for figure, claims and report.

    That every run can be traced is seen in `shared.test_sentences`.
    """
    sweep, swept = experiment.sweep, []

    def stand_in(train, *, coords, **kwargs):
        if not swept:
            swept.append(sweep(train, coords=coords, **kwargs))
        (first,) = swept
        own = {dim: list(labels) for dim, labels in coords.items() if dim in first.dims}
        return first.isel(
            {dim: np.arange(len(labels)) % first.sizes[dim] for dim, labels in own.items()}
        ).assign_coords(own)

    monkeypatch.setattr(experiment, "sweep", stand_in)
