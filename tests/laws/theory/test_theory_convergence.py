"""Paper 000, table 1 as tests: how SGD's error depends on sigma, the standard deviation of the gradient estimate.

The table does not say what its rates bound. By their units, rows 1 and 2 are ``E f - f*``, row 3 is
``E ||theta - theta*||^2`` (its first term lacks the factor R^2) and row 4 is ``E ||grad f||^2``.

The losses are ``f(theta) + theta . z``, z ~ N(0, v_d^2 / p I), so domain d's gradient deviates by exactly ``v_d`` and,
with the batch's counts, ``sigma^2`` is eq. 14's sum. Its levels come from the scale of v and from the allocation,
uniform or VA: what matters to the error is sigma alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.rules import fixed, variance_aware
from mixjax.samplers import allocate, counts_to_ids

C = np.array([0.5, 0.5])
V = np.array([1.0, 7.0])
BATCH_SIZE, STEPS, SEEDS, P = 8, 128, 300, 6
RULE = fixed()


@jax.jit
def run_seeds(keys, convex, theta0, h, etas, scale, counts):
    """Iterates [seed, T, p] of SGD on ``sum_j h_j theta_j^2 / 2``, or ``sum_j h_j (1 - cos theta_j)``, with noise."""
    ids, state = counts_to_ids(counts, BATCH_SIZE), RULE.init(C)
    stds = scale * jnp.asarray(V)[ids] / P**0.5

    def objective(theta, z):
        f = jnp.sum(h * jnp.where(convex, jnp.square(theta) / 2, 1.0 - jnp.cos(theta)))
        return mixjax.weighted_loss(RULE, state, f + z @ theta, ids)[0]

    def step(theta, inputs):
        key, eta = inputs
        theta -= eta * jax.grad(objective)(theta, stds[:, None] * jax.random.normal(key, (BATCH_SIZE, P)))
        return theta, theta

    return jax.vmap(lambda key: jax.lax.scan(step, theta0, (jax.random.split(key, STEPS), etas))[1])(keys)


def sgd(theta0, h, etas, scales, *, convex=True, seed):
    """Iterates [config, seed, T, p] of SGD from ``theta0``, and sigma^2 [config].

    One configuration is a curvature row of ``h``, a row of step sizes and a scale of v; each is run with uniform counts
    and again with VA's, so the configurations come twice.
    """
    rule = variance_aware()
    q = rule.update(rule.init(C), counts=jnp.ones(2), loss_weights=jnp.asarray(C), grad_stds=jnp.asarray(V)).weights
    keys = iter(jax.random.split(jax.random.key(seed), 2 * len(scales)))
    paths, sigma2 = [], []
    for weights in [C, q]:
        counts = allocate(weights, BATCH_SIZE)
        for row in zip(h, etas, scales, strict=True):
            arrays = [jnp.asarray(a, jnp.float32) for a in (theta0, *row)]
            paths.append(run_seeds(jax.random.split(next(keys), SEEDS), convex, *arrays, counts))
            sigma2.append(row[-1] ** 2 * np.sum((C * V) ** 2 / np.asarray(counts)))
    return np.array(paths, np.float64), np.array(sigma2)


def mean_and_error(x):
    """Mean over the seeds, axis 1, and its standard error."""
    return x.mean(1), x.std(1) / x.shape[1] ** 0.5


def log_slope(sigma2, mean, error):
    """Least-squares slope of log(mean) against log(sigma^2), and its standard error."""
    x = np.log(sigma2) - np.log(sigma2).mean()
    a = x / np.sum(x**2)
    return a @ np.log(mean), np.sqrt(np.sum((a * error / mean) ** 2))


@pytest.mark.slow
def test_constant_step_stationary_error_is_linear_in_the_variance():
    """Row 3, strongly convex, constant step: ``(1 - mu/L)^T`` plus a floor proportional to ``sigma^2 / (mu L)``.

    On a quadratic, coordinate j has variance ``eta sigma_j^2 / (h_j (2 - eta h_j))`` once stationary, exactly. The sum
    is between ``eta sigma^2 / (2 L)`` and ``eta sigma^2 / mu``, for eta <= 1/L.
    """
    h, eta, start = np.array([1.0, 0.8, 0.6, 0.4, 0.2, 0.1]), 0.5, np.eye(P)[-1]
    scales = np.array([0.0, 0.25, 1.0, 4.0])
    paths, sigma2 = sgd(start, [h] * 4, np.full((4, STEPS), eta), scales, seed=0)
    mean, error = mean_and_error(np.square(paths[:, :, -1]).sum(-1))
    decay = (1 - eta * h) ** (2 * STEPS)
    exact = decay @ start + sigma2 * np.mean(eta / (h * (2 - eta * h)) * (1 - decay))
    noisy = sigma2 > 0
    assert np.all(np.abs(mean - exact)[noisy] < 4 * error[noisy])
    np.testing.assert_allclose(mean[~noisy], decay[-1], rtol=1e-3)
    assert np.all(mean[noisy] > eta * sigma2[noisy] / (2 * h.max()))
    assert np.all(mean[noisy] < eta * sigma2[noisy] / h.min())
    slope, slope_error = log_slope(sigma2[noisy], mean[noisy], error[noisy])
    assert slope_error < 0.02
    assert abs(slope - 1) < 4 * slope_error


@pytest.mark.slow
def test_decreasing_step_error_is_variance_over_mu_t():
    """Row 2, strongly convex, steps ``1 / (mu t)``: the error is proportional to ``sigma^2 / (mu T)``.

    For f = mu/2 ||theta||^2 the iterate is the mean of T noises over mu, so ``E f - f* = sigma^2 / (2 mu T)``: exact,
    for any start, with no logarithm.
    """
    mus, scales = np.array([0.5, 0.5, 2.0, 2.0]), np.array([0.5, 2.0, 0.5, 2.0])
    etas = 1 / (mus[:, None] * (np.arange(STEPS) + 1))
    paths, sigma2 = sgd(np.ones(P), np.tile(mus[:, None], P), etas, scales, seed=1)
    mu = np.tile(mus, 2)
    for t in [8, 32, 128]:
        mean, error = mean_and_error(0.5 * mu[:, None] * np.square(paths[:, :, t - 1]).sum(-1))
        assert np.all(np.abs(mean - sigma2 / (2 * mu * t)) < 4 * error)
        slope, slope_error = log_slope(sigma2, mean * mu, error * mu)
        assert slope_error < 0.02
        assert abs(slope - 1) < 4 * slope_error


def average_gap(h, theta0, eta, sigma2):
    """E f - f* at the step-weighted average of SGD's iterates on a quadratic, and a bound of it for any convex f.

    ``eta_t (f(theta_{t+1}) - f*) <= (D_t - D_{t+1}) / 2 + eta_t^2 sigma^2`` in expectation, D the squared distance to
    the optimum and eta_t <= 1/L; summed, ``E f(average) - f* <= (R^2 / 2 + sigma^2 sum eta^2) / sum eta``.
    """
    weight, decay = eta / eta.sum(), 1 - eta[:, None] * h
    bias = (weight[:, None] * np.cumprod(decay, axis=0) * theta0).sum(0)
    response, variance = np.zeros_like(h), np.zeros_like(h)
    for t in reversed(range(eta.size)):
        response = weight[t] + (decay[t + 1] * response if t + 1 < eta.size else 0.0)
        variance += np.square(eta[t] * response) * sigma2 / h.size
    gap = 0.5 * np.sum(h * (bias**2 + variance))
    return gap, (0.5 * np.sum(theta0**2) + sigma2 * np.sum(eta**2)) / eta.sum()


@pytest.mark.slow
def test_convex_error_is_linear_in_the_standard_deviation():
    """Row 1, convex, steps ``1/sqrt(t)``: ``L R^2 / T + sigma R / sqrt(T)``, so the slope in sigma^2 is 1/2, not 1.

    A quadratic with curvatures 1, 1/2, 1/4, ... has one at the scale ``1 / sum eta`` that is worst for each sigma, as a
    convex function without a lower bound of its curvature may. The slope 1/2 needs steps proportional to
    ``R / sigma``, which the table leaves out: with steps that do not know sigma the noise costs ``sigma^2``.
    """
    h, theta0 = 2.0 ** -np.arange(P), np.ones(P)
    scales = np.array([2.0, 4.0, 8.0])
    uniform = np.sqrt(np.sum((C * V) ** 2) / (BATCH_SIZE / 2))
    etas = np.minimum(1.0, P**0.5 / (uniform * scales[:, None] * np.sqrt(np.arange(STEPS) + 1)))
    paths, sigma2 = sgd(theta0, [h] * 3, etas, scales, seed=2)
    etas = np.concatenate([etas, etas])
    averages = np.einsum("kt,kstp->ksp", etas / etas.sum(1, keepdims=True), paths)
    mean, error = mean_and_error(0.5 * np.sum(h * averages**2, axis=-1))
    exact, limit = np.array([average_gap(h, theta0, *row) for row in zip(etas, sigma2, strict=True)]).T
    assert np.all(error < 0.06 * exact)
    assert np.all(np.abs(mean - exact) < 4 * error)
    assert np.all(mean < limit)
    slope, slope_error = log_slope(sigma2[:3], mean[:3], error[:3])
    assert abs(slope - 0.5) < 0.05 + 4 * slope_error
    assert slope < 0.75
    assert np.all(mean[3:] + 2 * error[3:] < mean[:3])  # VA: less sigma, less error, with the same steps


@pytest.mark.slow
def test_non_convex_gradient_norm_is_linear_in_the_variance():
    """Row 4, non-convex, steps ``1/sqrt(t)``: the mean of ``||grad f||^2`` exceeds the noiseless one by O(sigma^2).

    For eta_t <= 1/L, ``sum eta E ||grad f||^2 / sum eta <= (2 Δ + L sigma^2 sum eta^2) / sum eta``, at any sigma; the
    sums make it ``(L Δ + sigma^2 log T) / sqrt(T)`` for eta_t = 1 / (L sqrt(t)). The function is
    ``sum_j (1 - cos theta_j)``, L = 1, from a start where it is concave.
    """
    start = np.full(P, 2.0)
    scales = np.array([0.0, 0.1, 0.2, 0.4, 2.0])
    etas = np.tile(1 / np.sqrt(np.arange(STEPS) + 1), (5, 1))
    paths, sigma2 = sgd(start, np.ones((5, P)), etas, scales, convex=False, seed=3)
    before = np.concatenate([np.broadcast_to(start, (*paths.shape[:2], 1, P)), paths[:, :, :-1]], axis=2)
    mean, error = mean_and_error(np.square(np.sin(before)).sum(-1) @ (etas[0] / etas[0].sum()))
    limit = (2 * P * (1 - np.cos(start[0])) + sigma2 * np.sum(etas[0] ** 2)) / etas[0].sum()
    assert np.all(mean < limit)
    assert np.all(mean > 0.1 * limit)

    small = (sigma2 > 0) & (sigma2 < 3)
    excess = mean[small] - mean[0]
    slope, slope_error = log_slope(sigma2[small], excess, error[small])
    assert slope_error < 0.05
    assert abs(slope - 1) < 4 * slope_error
