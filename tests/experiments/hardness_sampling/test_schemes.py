"""Tests the schemes that draw and weight examples."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.hardness_sampling import schemes
from mixjax import rules
from tests.experiments.hardness_sampling.cases import compiled


def test_erm_goes_through_epochs():
    scheme = compiled(schemes.shuffled(24, 8))
    state, drawn = scheme.init(jnp.ones(24), jax.random.key(0)), []
    for step in range(6):
        positions, state = scheme.sample(state, jax.random.key(step))
        drawn.append(np.asarray(positions))
    first, second = np.concatenate(drawn[:3]), np.concatenate(drawn[3:])
    np.testing.assert_array_equal(np.sort(first), np.arange(24))
    np.testing.assert_array_equal(np.sort(second), np.arange(24))
    assert (first != second).any()
    state = scheme.update(state, jnp.array([3]), jnp.array([7.0]))
    assert scheme.history(state)[3] == 7.0 and scheme.history(state)[2] == 1.0
    np.testing.assert_allclose(jnp.exp(scheme.log_probs(state)), 1 / 24, rtol=1e-5)


def test_schemes_draw_from_the_robust_distribution_of_their_history():
    losses = jax.random.uniform(jax.random.key(0), (50,))
    positions, new = jnp.array([4, 9]), jnp.array([1.5, 0.1])
    expected = losses.at[positions].set(new)
    for scheme, weights in (
        (schemes.hardness(50, 2, jnp.float32(10.0)), jax.nn.softmax(10.0 * expected)),
        (schemes.chi_squared(50, 2, 10.0), rules.robust_weights(expected, jnp.ones(50), 10.0, "chi2")),
    ):
        scheme = compiled(scheme)
        state = scheme.update(scheme.init(losses, jax.random.key(0)), positions, new)
        np.testing.assert_allclose(scheme.history(state), expected, rtol=1e-6)
        np.testing.assert_allclose(jnp.exp(scheme.log_probs(state)), weights, rtol=1e-3, atol=1e-6)
        keys = jax.random.split(jax.random.key(1), 4000)
        drawn = jax.jit(jax.vmap(lambda key, s=scheme, st=state: s.sample(st, key)[0]))(keys)
        share = float((drawn == 4).mean())
        assert abs(share - float(weights[4])) < 4 * (float(weights[4]) / 8000) ** 0.5
        assert (scheme.weights(state, positions, new) == 1.0).all()


def test_importance_weights_are_those_of_the_library():
    scheme = compiled(schemes.hardness(5, 2, jnp.float32(2.0), importance="clipped"))
    state = scheme.init(jnp.ones(5), jax.random.key(0))
    weights = scheme.weights(state, jnp.array([0, 1]), jnp.array([1.5, 9.0]))
    np.testing.assert_allclose(weights, [np.exp(1.0), 10.0], rtol=1e-5)
