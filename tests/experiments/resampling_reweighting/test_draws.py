"""Tests that every method draws batches whose mean gradient and variance are as told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.resampling_reweighting import draws
from mixjax import grad_norms

BATCH = 8


@pytest.fixture(scope="module")
def informed(toy):
    """Returns every method with its state after it has seen every example once, and a probe."""
    problem, examples, params = toy

    def batch_of(indices):
        return jax.tree.map(lambda x: x[indices], examples)

    strengths = {"va": 0.1, "rr": 0.2, "switch": 0.2, "by_loss": 0.5, "hardness": 0.5}
    methods = draws.methods(problem, BATCH, batch_of, strengths, num_probed=30)

    @jax.jit
    def inform():
        values, _, norms = grad_norms.value_grads_and_norms(problem.losses, params, examples)
        states = {}
        for name, method in methods.items():
            scores = norms if method.scores == "norms" else values
            state = method.observe(method.start(1.0, 1.0), jnp.arange(40), scores)
            states[name] = method.probe(state, params, jax.random.key(1))
        spread = draws.measure(jax.random.key(2), problem, params, batch_of, 300)
        return states, spread, {name: method.variance(states[name], spread) for name, method in methods.items()}

    states, spread, variances = inform()
    return methods, states, spread, variances


def gradients(toy):
    problem, examples, params = toy

    def one(params, example):
        return problem.losses(grad_norms.Tape(), params, jax.tree.map(lambda x: x[None], example))[0]

    grads = jax.vmap(jax.grad(one), (None, 0))(params, examples)
    return np.concatenate([np.asarray(g).reshape(40, -1) for g in grads], axis=1)


def many(method, state, num=4000):
    """Draws the indices and weights of many batches."""
    draw = jax.jit(jax.vmap(lambda key: method.draw(state, key)))
    return map(np.asarray, draw(jax.random.split(jax.random.key(3), num)))


@pytest.mark.parametrize("name", ["sgd", "va", "rr", "switch", "by_loss"])
def test_a_batch_estimates_the_mean_gradient_with_the_variance_told(toy, informed, name):
    methods, states, _, variances = informed
    grads = gradients(toy)
    indices, weights = many(methods[name], states[name])
    estimates = (weights[..., None] * grads[indices]).mean(1)
    error = estimates.std(0) / np.sqrt(len(estimates))
    assert (np.abs(estimates.mean(0) - grads.mean(0)) < 4.5 * error).all()
    np.testing.assert_allclose(variances[name], BATCH * estimates.var(0).sum(), rtol=0.15)


def test_importance_sampling_pays_where_gradients_differ(informed):
    *_, spread, variances = informed
    ratio = {name: float(variance / spread.uniform) for name, variance in variances.items()}
    assert ratio["sgd"] == 1 and ratio["rr"] < 0.7 and ratio["va"] < 0.7
    np.testing.assert_allclose(ratio["switch"], ratio["rr"], rtol=1e-4)  # it is on
    assert np.isnan(ratio["hardness"])


def test_hardness_sampling_is_not_weighted_back(informed):
    methods, states, *_ = informed
    indices, weights = many(methods["hardness"], states["hardness"], 500)
    assert (weights == 1).all() and (indices >= 30).mean() > 0.5  # the large ones, a quarter of the examples


def test_spread_is_that_of_the_gradients(toy, informed):
    grads, spread = gradients(toy), informed[2]
    np.testing.assert_allclose(spread.norms, np.linalg.norm(grads, axis=1)[spread.rows], rtol=1e-4)
    assert (np.asarray(spread.rows)[1] >= 30).all() and (np.asarray(spread.rows)[0] < 30).all()
    for d, part in enumerate(np.split(grads, [30])):
        np.testing.assert_allclose(spread.stds[d] ** 2, part.var(0).sum(), rtol=0.2)
    np.testing.assert_allclose(spread.uniform, grads.var(0).sum(), rtol=0.2)
