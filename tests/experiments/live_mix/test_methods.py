"""Tests the table of mixing methods."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.live_mix.methods import METHODS, Settings, prior_of, rules_of
from mixjax import rules

SIZES = np.array([400.0, 100.0, 20.0])
SIGNALS = {
    "counts": jnp.array([3.0, 2.0, 0.0]),
    "losses": jnp.array([2.0, 3.0, jnp.inf]),
    "loss_vars": jnp.array([0.5, 1.0, jnp.inf]),
    "reference_losses": jnp.array([1.5, 3.5, jnp.inf]),
    "hypergrads": jnp.array([-0.5, 0.1, jnp.inf]),
    "grad_norms": jnp.array([0.5, 0.3, jnp.inf]),
    "grad_stds": jnp.array([1.0, 2.0, jnp.inf]),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_weights_on_the_simplex_and_moves_only_what_it_says(name):
    method, settings = METHODS[name], Settings(step_size=0.5, gamma2=5.0, hold=1, waiting=0.01, prior="temperature")
    prior = prior_of(method, settings, SIZES, budget=520.0)
    loss_rule, sampling_rule = rules_of(method, settings, num_steps=800)
    states = None if loss_rule is None else loss_rule.init(prior), sampling_rule.init(prior)

    @jax.jit
    def update(states, step):
        loss, sampling = states
        # ADO moves where losses fall at different rates.
        told = SIGNALS | {"losses": SIGNALS["losses"] * step ** jnp.array([-0.1, -0.6, 0.0])}
        if loss_rule is not None:
            loss = loss_rule.update(loss, **told)
        weights = sampling.weights if loss is None else loss.weights
        return loss, sampling_rule.update(sampling, **told, loss_weights=weights)

    for step in range(1, 41):
        states = update(states, jnp.float32(step))
    moved = []
    for state in states:
        if state is not None:
            assert float(state.weights.sum()) == pytest.approx(1.0, abs=1e-5) and bool((state.weights > 0).all())
            moved.append(not np.allclose(state.weights, prior, atol=1e-4))
    assert any(moved) == method.moves
    assert (loss_rule is None) == (method.loss is None)


def test_priors_are_what_the_names_say():
    settings = Settings(temperature=0.5, max_epochs=2.0)
    uniform, proportional, temperature, unimax = (
        prior_of(METHODS[name], settings, SIZES, budget=520.0)
        for name in ("uniform", "proportional", "temperature", "unimax")
    )
    np.testing.assert_allclose(uniform, 1 / 3)
    np.testing.assert_allclose(proportional, SIZES / 520.0)
    np.testing.assert_allclose(temperature, np.sqrt(SIZES) / np.sqrt(SIZES).sum())
    # The smallest domain has 20 rows, which may be drawn twice; the rest is shared out evenly up to 200 rows of 100.
    np.testing.assert_allclose(unimax, [280 / 520, 200 / 520, 40 / 520], rtol=1e-5)
    chosen = prior_of(METHODS["erma"], Settings(prior="proportional"), SIZES, budget=520.0)
    np.testing.assert_allclose(chosen, proportional)


def test_a_domain_without_rows_is_refused():
    with pytest.raises(ValueError, match="sizes must be positive"):
        prior_of(METHODS["uniform"], Settings(), [3, 0], budget=3.0)


def test_limits_of_epochs_that_cannot_fill_the_run_are_refused():
    with pytest.raises(ValueError, match=r"max_epochs must be at least the 3 passes of the run .*, got 2.9"):
        prior_of(METHODS["unimax"], Settings(max_epochs=2.9), [10, 20, 30], budget=180.0)
    exact = prior_of(METHODS["unimax"], Settings(max_epochs=3.0), [10, 20, 30], budget=180.0)
    np.testing.assert_allclose(exact, [1 / 6, 2 / 6, 3 / 6], rtol=1e-5)


def test_odm_learns_while_its_weights_wait():
    settings = Settings(waiting=0.5, decay=0.5)
    _, rule = rules_of(METHODS["odm"], settings, num_steps=60)
    bandit = rules.exp3(0.5, reward="perplexity")
    state, plain = rule.init(jnp.ones(3)), bandit.init(jnp.ones(3))
    told = {"counts": jnp.array([2, 1, 1]), "losses": jnp.array([1.0, 2.0, 3.0])}
    for step in range(1, 41):
        state, plain = rule.update(state, **told), bandit.update(plain, **told)
        expected = plain.weights if step >= 30 else plain.prior
        np.testing.assert_array_equal(state.weights, expected, err_msg=f"update {step}")
    # An update without news is none.
    again = rule.update(state, counts=jnp.zeros(3), losses=jnp.ones(3))
    jax.tree.map(np.testing.assert_array_equal, again, state)
