"""Tests DoGE against the paper's recursion in float64."""

import numpy as np
import pytest

from mixjax.rules import doge

PRIOR = np.array([0.5, 0.3, 0.2])
COUNTS = np.array([8, 8, 8])


def test_doge_over_20_steps():
    rng, rule = np.random.default_rng(1), doge(0.3, max_score=1.0)
    state, c, clipped = rule.init(PRIOR), PRIOR.copy(), set()
    for _ in range(20):
        g, norms = rng.normal(size=3), rng.uniform(0.2, 1.5, 3)
        state = rule.update(state, counts=COUNTS, hypergrads=g, grad_norms=norms)
        raw = -g / norms.mean()
        clipped |= set(np.sign(raw[(raw < 0) | (raw > 1)]))
        c = c * np.exp(0.3 * np.clip(raw, 0, 1))
        c /= c.sum()
        np.testing.assert_allclose(state.weights, c, rtol=2e-5)
    assert clipped == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: doge(-1.0), "step_size"),
        (lambda: doge(max_score=0.0), "max_score"),
        (lambda: doge(max_log_step=0.0), "max_log_step"),
    ],
)
def test_hyperparameters_out_of_range(make, named):
    with pytest.raises(ValueError, match=named):
        make()
