"""Tests what is read off learning curves."""

import numpy as np
import xarray

from experiments.hardness_sampling import curves


def test_roughness_is_the_noise_about_a_line():
    line = 3.0 * np.arange(4000.0)
    noise = np.random.default_rng(0).normal(0, 2.0, 4000)
    values = xarray.DataArray(np.stack([line, line + noise]), dims=("seed", "step"))
    np.testing.assert_allclose(curves.roughness(values), [0.0, 2.0], atol=0.1)


def test_a_curve_at_a_level_of_another():
    def array(*rows):
        return xarray.DataArray(np.array(rows, float), dims=("seed", "step"))

    level = xarray.DataArray([1.5, 4.0, 0.0], dims="seed")
    losses, values = array([3, 2, 1], [3, 2, 1], [3, 2, 1]), array([0, 10, 20], [5, 6, 7], [0, 0, 0])
    np.testing.assert_allclose(curves.at_level(values, losses, level), [15.0, 5.0, np.nan])
    data = xarray.Dataset(
        {
            "train_loss": (("method", "seed", "step"), [[[3.0, 2.0, 1.0]], [[3.0, 1.0, 0.5]]]),
            "rare_accuracy": (("method", "seed", "step"), [[[0.0, 10.0, 20.0]], [[0.0, 40.0, 50.0]]]),
        },
        {"method": ["a", "b"]},
    )
    a, b, level = curves.equal_loss(data, "a", "b")
    assert (float(a[0]), float(b[0]), float(level[0])) == (20.0, 40.0, 1.0)


def test_rank_correlation_and_dips():
    step = np.arange(20.0)
    one = xarray.DataArray(step[None], dims=("seed", "step"))
    np.testing.assert_allclose(curves.rank_correlation(one, np.exp(one)), 1.0)
    np.testing.assert_allclose(curves.rank_correlation(one, -(one**3)), -1.0)
    dips = np.random.default_rng(0).random((2, 40))
    data = xarray.Dataset(
        {
            "accuracy": (("seed", "method", "step"), (90 - dips)[:, None]),
            "train_loss_std": (("seed", "method", "step"), (1 + dips)[:, None]),
        },
        {"method": ["m"], "step": np.arange(40)},
    )
    np.testing.assert_allclose(curves.dips_and_spread(data, "m"), 1.0)


def test_steps_to_reach():
    values = [[[10.0, 50.0, 90.0, 95.0]], [[0.0, 0.0, 0.0, 0.0]]]
    data = xarray.Dataset(
        {"accuracy": (("seed", "method", "step"), values)}, {"method": ["m"], "step": [10, 20, 30, 40]}
    )
    np.testing.assert_allclose(curves.steps_to_reach(data, "accuracy", "m", 90.0), [0.75, 1.0])
