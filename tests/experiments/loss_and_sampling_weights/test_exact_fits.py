"""Exact weighted fits against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray

from experiments.loss_and_sampling_weights import exact_fits, glm
from mixjax import probes, samplers

PROBLEM = glm.LinearModel(dim=6)
KEY = jax.random.key(0)
THETA = np.full(6, 6**-0.5)


def data(num=20):
    return tuple(np.asarray(part, np.float64) for part in exact_fits.draw(KEY, PROBLEM, num))


def wls(x, y, c):
    """Weighted least squares by QR on the rows."""
    root = np.sqrt(np.repeat(c, x.shape[1]) / x.shape[1])
    return np.linalg.lstsq(root[:, None] * x.reshape(-1, x.shape[-1]), root * y.reshape(-1))[0]


def test_fit_is_weighted_least_squares():
    x, y = data()
    for c in ([0.5, 0.5], [0.9, 0.1]):
        found = exact_fits.fit(jnp.asarray(c), exact_fits.summarise(jnp.asarray(x), jnp.asarray(y)))
        np.testing.assert_allclose(found, wls(x, y, np.array(c)), rtol=1e-3, atol=1e-4)


def test_draws_have_the_stated_moments():
    x, y = data(20000)
    residuals = y - x @ THETA
    np.testing.assert_allclose(residuals.var(axis=1), PROBLEM.noise, rtol=0.02)
    np.testing.assert_allclose(x.var(axis=(1, 2)), 1.0, rtol=0.02)


def test_hold_out_is_theorem_a4s():
    size, held_out, rho = exact_fits.hold_out(200)
    assert (size, held_out.sizes.tolist(), rho) == (190, [10, 10], 0.95)


def test_one_shot_is_algorithm_1_with_exact_fits():
    x, y = data()
    kept, held_out = samplers.split(samplers.partition(np.repeat(np.arange(2), 20)), 0.8)
    size = int(kept.sizes[0])
    theta = wls(x[:, :size], y[:, :size], np.array([0.5, 0.5]))
    expected = []
    for _ in range(3):
        w = 1 / np.square(x[:, size:] @ theta - y[:, size:]).mean(axis=1)
        theta = wls(x[:, :size], y[:, :size], w / w.sum())
        expected.append(theta)
    train = exact_fits.summarise(jnp.asarray(x[:, :size]), jnp.asarray(y[:, :size]))
    choose = probes.whole_hold_out(held_out)
    path, weights = exact_fits.one_shot(KEY, choose, jnp.asarray(x), jnp.asarray(y), train, 3)
    np.testing.assert_allclose(path, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(weights, w / w.sum(), rtol=1e-3)


def test_ratio_is_a_ratio_of_means():
    rng = np.random.default_rng(0)
    b = rng.uniform(1, 3, size=400)
    a = 1.5 * b + rng.normal(size=400)
    values = exact_fits.ratio(*(xarray.DataArray(part, dims="seed") for part in (a, b)))
    np.testing.assert_allclose(values.mean(), a.mean() / b.mean())
    resampled = [a[i].mean() / b[i].mean() for i in rng.integers(0, 400, size=(2000, 400))]
    np.testing.assert_allclose(values.std(ddof=1) / 20, np.std(resampled), rtol=0.1)
