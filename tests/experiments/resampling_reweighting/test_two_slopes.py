"""Tests that runs of paper 003's example follow the exact walk."""

import functools

import jax
import numpy as np
import pytest
from scipy import stats

from experiments.resampling_reweighting import (
    lattice,
    two_slopes,
)


@pytest.mark.parametrize("scheme", two_slopes.METHODS)
@pytest.mark.parametrize("rate", [0.038, 0.06])
def test_runs_follow_the_chain(scheme, rate):
    config = two_slopes.Piecewise(learning_rate=rate, num_steps=400)
    runs = jax.jit(jax.vmap(functools.partial(two_slopes.train, config=config)))(
        jax.random.split(jax.random.key(1), 1500)
    )
    left = np.asarray(runs["left_at"])[:, list(two_slopes.METHODS).index(scheme)]
    exact = lattice.exit_probabilities(two_slopes.chain(scheme, config, rate), -0.5, [100, 400])
    for steps, p in zip((100, 400), exact, strict=True):
        assert stats.binomtest(int((left <= steps).sum()), left.size, min(max(p, 0.0), 1.0)).pvalue > 1e-4
