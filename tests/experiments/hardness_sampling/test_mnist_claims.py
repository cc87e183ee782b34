"""Tests the numbers that the claims on imbalanced MNIST are made of."""

import numpy as np
import pytest
import xarray

from experiments.hardness_sampling import mnist_claims


@pytest.mark.parametrize(("gap", "holds"), [(8.0, True), (2.0, False), (lambda step: 8 + 100 / step, None)])
def test_optima_that_still_come_closer_decide_nothing(gap, holds):
    step = np.arange(1, 41)
    gaps = gap(step) if callable(gap) else np.full(40, gap)
    noise = np.random.default_rng(0).normal(0, 1e-3, (4, 40))
    values = np.stack([50 + gaps + noise, np.full((4, 40), 50.0)], axis=1)
    data = xarray.Dataset(
        {"rare_accuracy": (("seed", "method", "step"), values)}, {"method": ["nr_10", "erm"], "step": step}
    )
    claim = mnist_claims.optima(data)
    assert claim.holds is holds and ("still closing" in claim.note) == (holds is None)
