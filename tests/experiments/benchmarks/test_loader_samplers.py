"""Tests that the benchmark of samplers for loaders measures what it says: each side of ours writes its losses back."""

import numpy as np
import pytest

from experiments.benchmarks import draws, loader_samplers
from mixjax.samplers import HostSampler

N = 500


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("side", [loader_samplers.batch_sampler, loader_samplers.host_sampler])
def test_our_sides_store_what_they_draw(side, replacement, monkeypatch):
    made = []

    class Kept(HostSampler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(loader_samplers.samplers, "HostSampler", Kept)
    side(N, replacement)(4)
    changed = np.flatnonzero(made[0].values != draws.losses_of(N))
    # Three batches are stored at least: the queue stores a batch when the next one is drawn.
    assert len(changed) > (10 if replacement else 64)
    np.testing.assert_allclose(made[0].values[changed], loader_samplers.fresh(changed.astype(np.int32)), rtol=1e-5)
