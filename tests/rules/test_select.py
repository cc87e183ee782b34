"""Tests the choice of one of several rules by an index."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax import rules

HALF = [0.5, 0.5]
COUNTS = np.array([9, 9])
POOL = {
    "fixed": rules.fixed(temperature=3.0),
    "gls": rules.gls([1.0, 5.0]),
    "fgls": rules.fgls(),
    "erma": rules.erma(0.2, 0.4),
    "variance_aware": rules.variance_aware(),
}


def pool_signals(seed):
    rng = np.random.default_rng(seed)
    values = {key: rng.uniform(0.1, 3.0, 2).astype(np.float32) for key in ("losses", "loss_vars", "grad_stds")}
    return values | {"counts": COUNTS, "loss_weights": np.float32([0.3, 0.7])}


def test_select_with_a_traced_index_is_the_selected_rule():
    signals = jax.tree.map(lambda *x: np.stack(x), *(pool_signals(seed) for seed in range(3)))

    def run(rule):
        def step(state, signal):
            state = rule.update(state, **signal)
            return state, state.weights

        state = rule.init([0.2, 0.8])
        return state.weights, jax.lax.scan(step, state, signals)[1]

    first, later = jax.jit(jax.vmap(lambda i: run(rules.select(list(POOL.values()), i))))(jnp.arange(len(POOL)))
    for i, rule in enumerate(POOL.values()):
        expected = run(rule)
        np.testing.assert_allclose(first[i], expected[0], rtol=1e-6)
        np.testing.assert_allclose(later[i], expected[1], rtol=1e-5)


def test_select_moves_only_the_selected_state():
    rule = rules.select(list(POOL.values()), 2)
    before = rule.init(HALF)
    after = rule.update(before, **pool_signals(0))
    for i in range(len(POOL)):
        changes = jax.tree.map(lambda a, b: bool(np.any(a != b)), before.states[i], after.states[i])
        assert any(jax.tree.leaves(changes)) == (i == 2)


def test_select_clamps_a_traced_index():
    def weights(index):
        return rules.select([rules.fixed([1.0, 3.0]), rules.fixed([3.0, 1.0])], index).init(HALF).weights

    np.testing.assert_allclose(jax.vmap(weights)(jnp.array([-5, 7])), [[0.25, 0.75], [0.75, 0.25]], rtol=1e-6)


def test_select_errors():
    with pytest.raises(ValueError, match="at least one rule"):
        rules.select([], 0)
    for index in (-1, 2):
        with pytest.raises(ValueError, match=r"index must be in \[0, 2\)"):
            rules.select([rules.fixed(), rules.fgls()], index)
