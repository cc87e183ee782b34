"""Tests the wide network, and its training with exact and with stale losses against NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.hardness_sampling import wide_network, wide_relu_report
from experiments.hardness_sampling.wide_network import WideReLU
from mixjax import samplers
from mixjax.rules import robust_loss
from tests.laws.reference import paper004

KEY = jax.random.key(0)


TINY = WideReLU(num_examples=6, input_dim=4, output_dim=2, width=16, batch_size=3, num_steps=8, num_records=4)


@jax.jit
def train(beta, step_size):
    return wide_network.train_both(KEY, dataclasses.replace(TINY, beta=beta, step_size=step_size))


def start():
    data_key, init_key, batch_key = jax.random.split(KEY, 3)
    return wide_network.data_set(data_key, TINY), wide_network.init(init_key, TINY), batch_key


def test_data_are_unit_vectors_with_balanced_signs():
    x, y = wide_network.data_set(KEY, WideReLU(num_examples=500, output_dim=3))
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.abs(y), 0.8)
    assert abs(np.mean(np.sign(y))) < 0.1


def test_initialisation_is_assumption_12_1():
    config = WideReLU(width=300, depth=2, output_dim=5)
    params = wide_network.init(KEY, config)
    assert [p.shape for p in params] == [(10, 300), (300, 300), (300, 300), (300, 5)]
    for weights, variance in zip(params, (2 / 300, 2 / 300, 2 / 300, 1 / 5), strict=True):
        assert abs(weights.mean()) < 4 * (variance / weights.size) ** 0.5
        np.testing.assert_allclose(weights.var(), variance, rtol=6 * (1 / weights.size) ** 0.5)


def test_the_loss_is_bounded_and_lipschitz():
    """Assumption 12.2, in the outputs: the last layer is the identity and its inputs are positive."""
    config = dataclasses.replace(TINY, output_dim=1)
    h = jnp.linspace(0, 50, 500)[:, None]
    for sign in (1.0, -1.0):
        found = wide_network.losses([jnp.eye(1), jnp.full((1, 1), sign)], h, jnp.full((500, 1), wide_network.TARGET))
        np.testing.assert_allclose(found, 0.5 * (np.tanh(sign * h[:, 0]) - 0.8) ** 2, rtol=1e-4, atol=1e-7)
        assert found.max() <= 0.5 * 1.8**2 * config.output_dim
        assert np.abs(np.diff(found)).max() <= 1.8 * 0.11


def reference(beta, step_size, method):
    """The same training in NumPy, on the same batches: gradients by hand, probabilities by eq. 12."""
    (x, y), params, batch_key = start()
    x, y, params = *(np.asarray(a, np.float64) for a in (x, y)), [np.asarray(p, np.float64) for p in params]
    prior, rate = np.full(6, 1 / 6), step_size * TINY.output_dim / TINY.width
    sampler = samplers.hardness(6, beta)
    sample, update = jax.jit(sampler.sample, static_argnums=2), jax.jit(sampler.update)

    def forward(rows):
        first = x[rows] @ params[0]
        second = np.maximum(first, 0) @ params[1]
        out = np.tanh(np.maximum(second, 0) @ params[2])
        return first, second, out, 0.5 * np.sum((out - y[rows]) ** 2, axis=1)

    def gradients(rows, shares):
        first, second, out, _ = forward(rows)
        error = shares[:, None] * (out - y[rows]) * (1 - out**2)
        back = (error @ params[2].T) * (second > 0)
        first_back = (back @ params[1].T) * (first > 0)
        return [x[rows].T @ first_back, np.maximum(first, 0).T @ back, np.maximum(second, 0).T @ error]

    everything, norms = np.arange(6), []
    history = sampler.init(jnp.float32(forward(everything)[3]))

    def measure():
        p = paper004.eq12(forward(everything)[3], prior, beta)
        norms.append(np.sqrt(sum(np.sum(g**2) for g in gradients(everything, p))))

    unit = np.sqrt(sum(np.sum(g**2) for g in gradients(everything, prior)))
    measure()
    for t, key in enumerate(jax.random.split(batch_key, TINY.num_steps)):
        if method == "exact":
            p = paper004.eq12(forward(everything)[3], prior, beta)
            rows = np.asarray(samplers.multinomial(key, jnp.float32(p), TINY.batch_size))
        else:
            rows = np.asarray(sample(history, key, TINY.batch_size)[0])
        seen, grads = forward(rows)[3], gradients(rows, np.full(TINY.batch_size, 1 / TINY.batch_size))
        params = [p - rate * g for p, g in zip(params, grads, strict=True)]
        history = update(history, rows, jnp.float32(seen))
        if (t + 1) % (TINY.num_steps // TINY.num_records) == 0:
            measure()
    return np.array(norms) / unit


@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_both_trainings_against_numpy(beta):
    found = train(beta, 0.5)
    for row, method in zip(found["grad_norm"], wide_relu_report.METHODS, strict=True):
        np.testing.assert_allclose(row, reference(beta, 0.5, method), rtol=2e-4)
    np.testing.assert_allclose(found["distance"][0], 0.0, atol=1e-6)
    assert (found["distance"][1, 1:].max() > 0.01) == (beta > 0)  # the history is fresh at the start only
    np.testing.assert_allclose(found["distance"][1, 0], 0.0, atol=1e-6)


def test_laws_are_measured_where_they_hold_and_would_be_seen_to_fail():
    found = jax.jit(lambda beta: wide_network.laws(KEY, dataclasses.replace(TINY, beta=beta)))(3.0)
    assert found["law_error"].max() < 0.01
    assert found["own_change"].min() > -1e-6 and found["other_change"].max() < 1e-6
    (x, y), params, _ = start()
    grad = jax.grad(lambda p: wide_network.losses(p, x, y).mean())(params)  # ERM's gradient is not that of R
    robust = jax.grad(lambda p: robust_loss(wide_network.losses(p, x, y), np.ones(6), 3.0))(params)
    assert wide_network.norm(jax.tree.map(lambda a, b: a - b, grad, robust)) > 0.1 * wide_network.norm(robust)
