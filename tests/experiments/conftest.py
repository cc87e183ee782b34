"""What makes a config's run from end to end quick."""

import numpy as np
import pytest

from mixjax.runner import experiment


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(quick_compilation):
    """Experiments compile for longer than their few steps take."""


@pytest.fixture(autouse=True)
def unrehearsed(monkeypatch):
    """Figures and claims are made once, at the end; `runner.test_rehearsal` is about those before the first run."""
    monkeypatch.setattr(experiment, "rehearse", lambda *_: None)


@pytest.fixture
def first_run_only(monkeypatch):
    """A config's first run is swept; the others take its numbers in their own coords, for figure, claims and report.

    That every run can be traced is seen in `shared.test_sentences`.
    """
    run, swept = experiment.loop.run, []

    def stand_in(spec, **options):
        if not swept:
            swept.append(run(spec, **options))
        (first,) = swept
        own = {dim: list(labels) for dim, labels in spec.coords.items() if dim in first.dims}
        return first.isel(
            {dim: np.arange(len(labels)) % first.sizes[dim] for dim, labels in own.items()}
        ).assign_coords(own)

    monkeypatch.setattr(experiment.loop, "run", stand_in)
