"""Tests that weights stay on the simplex for very many updates, each of which lacks another domain."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax import rules
from tests.laws.contract.cases import CASES, every_case

NUM_DOMAINS = 8
ROWS = np.arange(NUM_DOMAINS) % 3
PRIOR = np.float32([0.3, 0.2, 0.15, 0.15, 0.1, 0.05, 0.05 - 1e-6, 1e-6])


def signals_at(t, np=jnp):
    """The signals of update ``t``, in which domain ``t mod 8`` is absent."""
    d = np.arange(NUM_DOMAINS)
    wave = np.sin(t * (1.0 + d)) + 0.5 * np.cos(0.7 * t + d)
    c = np.exp(wave)
    return {
        "counts": (d != t % NUM_DOMAINS) * 4,
        "losses": 1.5 + 0.3 * wave,
        "loss_vars": 1.0 + 0.2 * wave,
        "reference_losses": 1.4 + 0.0 * wave,
        "grad_stds": 1.5 - 0.3 * wave,
        "grad_norms": 1.5 - 0.2 * wave,
        "hypergrads": 0.5 * wave,
        "loss_weights": c / c.sum(),
        "sampling_weights": c / c.sum(),
    }


@functools.partial(jax.jit, static_argnums=(0, 2))
def run(rule, state, num_updates):
    def step(state, t):
        return rule.update(state, **signals_at(t.astype(jnp.float32))), None

    return jax.lax.scan(step, state, jnp.arange(num_updates))[0]


def assert_on_the_simplex(state):
    weights = np.asarray(state.weights, np.float64)
    assert np.isfinite(weights).all() and (weights >= 0).all()
    assert abs(weights.sum() - 1.0) < 1e-6
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@every_case
def test_roundings_of_many_updates_do_not_add_up(name):
    rule = CASES[name].make(ROWS)
    assert_on_the_simplex(run(rule, rule.init(PRIOR), 10_000))


RECURSIONS = ("erma", "group_dro", "doremi", "mirror_descent", "projected_gradient", "smooth(fgls)")


@pytest.mark.slow
@pytest.mark.parametrize("name", RECURSIONS)
def test_roundings_of_a_million_updates_do_not_add_up(name):
    rule = CASES[name].make(ROWS)
    assert_on_the_simplex(run(rule, rule.init(PRIOR), 1_000_000))


@pytest.mark.parametrize("decay", [0.9, 0.9999, 0.999999, 1.0])
def test_slow_averages_stay_on_the_simplex(decay):
    rule = rules.smooth(rules.fgls(), decay)
    assert_on_the_simplex(run(rule, rule.init(PRIOR), 100_000))


@pytest.mark.parametrize("tiny", [1e-6, 1e-12, 1e-30])
def test_the_smallest_totals_of_rows_seen_keep_their_digits(tiny):
    """Two domains of almost no weight are seen alone: their total must not take on the rounding error of the rest."""
    rule = rules.group_dro(0.01)
    prior = np.float32([1.0, 1.0, 1.0, tiny, tiny])
    update = jax.jit(rule.update)
    state = rule.init(prior)
    before = np.float64(state.weights)
    for t in range(1000):
        losses = np.float32([1.0, 1.0, 1.0, 1.0, 1.0 + (-1) ** t])
        state = update(state, counts=np.int32([0, 0, 0, 4, 4]), losses=losses)
    after = np.float64(state.weights)
    np.testing.assert_array_equal(after[:3], before[:3])
    np.testing.assert_allclose(after[3:].sum(), before[3:].sum(), rtol=1e-3)


# The same recursions in float64, where roundings are too small to add up.


def moved(c, seen, scores):
    """Shares out the total of the rows seen in proportion to ``scores``."""
    return np.where(seen, c[seen].sum() * scores / scores[seen].sum(), c)


def erma(c, pi, seen, s):
    gap = np.sum((pi * (1.0 - c / pi) * s["losses"])[seen])
    return moved(c, seen, c * np.exp(0.3 * pi * gap * s["losses"] - 0.5 * c * s["loss_vars"]))


def doremi(c, pi, seen, s):
    raw = c * np.exp(0.5 * np.maximum(s["losses"] - s["reference_losses"], 0.0))
    total = c[seen].sum()
    return np.where(seen, total * (0.999 * raw / raw[seen].sum() + 0.001 * pi / pi[seen].sum()), c)


def doge(c, pi, seen, s):
    scores = np.clip(-s["hypergrads"] / s["grad_norms"][seen].mean(), 0.0, 5.0)
    return moved(c, seen, c * np.exp(0.5 * scores))


REFERENCES = {
    "group_dro": lambda c, pi, seen, s: moved(c, seen, c * np.exp(0.5 * s["losses"])),
    "constant mirror_descent": lambda c, pi, seen, s: moved(c, seen, c * np.exp(-0.5 * s["hypergrads"])),
    "erma": erma,
    "doremi": doremi,
    "doge": doge,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_a_thousand_partial_updates_equal_float64(name):
    rule = CASES[name].make(ROWS)
    weights = run(rule, rule.init(PRIOR), 1000).weights
    pi = np.float64(PRIOR) / np.float64(PRIOR).sum()
    c = pi.copy()
    for t in range(1000):
        signals = signals_at(float(t), np)
        c = REFERENCES[name](c, pi, signals["counts"] > 0, signals)
    np.testing.assert_allclose(weights, c, rtol=2e-3, atol=1e-6)
