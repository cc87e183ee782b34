"""Tests a step of training on MNIST with a rare class, and evaluation in chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax.data
from experiments.hardness_sampling import classifiers, imbalanced, rare_class, schemes
from tests.experiments.hardness_sampling.cases import PROBLEM, compiled, fake_images

start = jax.jit(imbalanced.start, static_argnums=(1, 3))


def test_over_returns_every_chunk_in_order():
    ids = jnp.arange(imbalanced.CHUNK + 7)
    np.testing.assert_array_equal(imbalanced.over(lambda x: 2 * x, ids), 2 * ids)


@pytest.fixture(scope="module")
def begun():
    """The start of every scheme with hardness weighted sampling: images, split, state."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixjax.data, "load", fake_images)
        images = jax.tree.map(jnp.asarray, rare_class.load(3))
    scheme = schemes.hardness(rare_class.num_kept(PROBLEM, images), 8, jnp.float32(3.0))
    return images, *start(jax.random.key(0), PROBLEM, images, scheme)


@pytest.mark.parametrize("importance", [None, "clipped"])
def test_a_step_is_algorithm_1(begun, importance):
    images, parts, carry = begun
    n = rare_class.num_kept(PROBLEM, images)
    scheme = compiled(schemes.hardness(n, 8, jnp.float32(3.0), importance=importance))
    np.testing.assert_allclose(scheme.history(carry.state), np.log(10), rtol=6e-3)
    assert 0.0005 < float(scheme.history(carry.state).std()) / np.log(10) < 0.0015
    new, seen = jax.jit(imbalanced.step, static_argnums=(1, 4))(carry, PROBLEM, images, parts, scheme)

    positions, _ = scheme.sample(carry.state, jax.random.split(carry.key)[1])
    ids, model = parts.kept[positions], classifiers.build("mlp")

    @jax.jit
    def losses(params):
        return model.losses(params, carry.stats, images.train[ids], images.train_labels[ids])[0]

    old, fresh = scheme.history(carry.state), losses(carry.params)
    w = jnp.exp(3.0 * (fresh - old[positions])).clip(0.1, 10.0) if importance else jnp.ones(8)
    grads = jax.jit(jax.grad(lambda params: jnp.dot(w, losses(params)) / 8))(carry.params)
    expected = jax.tree.map(lambda p, g: p - 0.01 * g, carry.params, grads)
    for a, b in zip(*map(jax.tree.leaves, (new.params, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scheme.history(new.state)[positions], fresh, rtol=1e-5)
    untouched = np.setdiff1d(np.arange(n), positions)
    np.testing.assert_array_equal(scheme.history(new.state)[untouched], old[untouched])
    np.testing.assert_allclose(seen["batch_loss"], fresh.mean(), rtol=1e-5)
    np.testing.assert_allclose(seen["rare_share"], (positions >= n - 6).mean(), rtol=1e-6)
