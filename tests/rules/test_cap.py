"""Tests the projection onto limits against a float64 solution, and what the limits may be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax import rules
from mixjax.live.limits import project

COUNTS = np.full(3, 4)


def capped(weights, limits, prior=None):
    prior = np.ones(len(weights)) if prior is None else prior
    return np.asarray(rules.cap(rules.fixed(weights), limits).init(prior).weights)


@pytest.mark.parametrize("num_domains", [2, 3, 10, 300])
def test_equals_the_projection_in_float64(num_domains):
    rng, checked = np.random.default_rng(num_domains), 0
    for _ in range(40):
        q = rng.dirichlet(np.full(num_domains, rng.choice([0.5, 5.0])))
        u = rng.exponential(rng.choice([1.2, 2.0, 5.0]) / num_domains, num_domains)
        want = project(q, u)
        if want is not None:
            got = capped(q, u)
            np.testing.assert_allclose(got, want, atol=1e-6)
            assert (got <= u.astype(np.float32)).all()
            checked += 1
    assert checked > 10


def test_limits_above_the_weights_change_nothing():
    np.testing.assert_array_equal(
        capped([0.5, 0.3, 0.2], [0.6, np.inf, 0.3]), rules.fixed([0.5, 0.3, 0.2]).init(np.ones(3)).weights
    )


def test_the_wrapped_rule_goes_on_from_its_own_weights():
    inner = rules.group_dro(1.0)
    rule, losses = rules.cap(inner, [0.4, 0.5, 0.5]), np.array([3.0, 1.0, 1.0], np.float32)
    state, alone = rule.init(np.ones(3)), inner.init(np.ones(3))
    for _ in range(3):
        state = rule.update(state, counts=COUNTS, losses=losses)
        alone = inner.update(alone, counts=COUNTS, losses=losses)
        np.testing.assert_allclose(
            state.weights, project(np.asarray(alone.weights), np.array([0.4, 0.5, 0.5])), rtol=1e-5
        )
    np.testing.assert_array_equal(state.inner.weights, alone.weights)


def test_weight_that_no_domain_of_the_rule_can_hold_goes_to_the_others():
    """A rule that cuts to one domain, whose limit is 0.25: the rest is shared by the prior."""
    rule = rules.cap(rules.dro(np.inf), [0.25, 1.0, 1.0])
    state = rule.update(rule.init([0.4, 0.4, 0.2]), counts=COUNTS, losses=np.array([9.0, 1.0, 1.0]))
    np.testing.assert_allclose(state.weights, [0.25, 0.5, 0.25], rtol=1e-6)


def test_a_limit_of_zero_and_a_prior_of_zero_give_no_weight():
    np.testing.assert_allclose(capped([0.5, 0.3, 0.2], [0.0, 1.0, 1.0]), [0.0, 0.6, 0.4], rtol=1e-6)
    weights = np.asarray(rules.cap(rules.fixed(), [1.0, 0.5, 0.6]).init([0.0, 0.7, 0.3]).weights)
    np.testing.assert_allclose(weights, [0.0, 0.5, 0.5], rtol=1e-6)


def test_limits_of_exactly_one_are_the_weights():
    limits = np.array([0.1, 0.2, 0.7], np.float32)
    np.testing.assert_allclose(capped([0.6, 0.2, 0.2], limits), limits, rtol=1e-6)


@pytest.mark.parametrize("num_domains", [2, 10, 200])
def test_limits_of_exactly_one_are_the_weights_whatever_rounding_does(num_domains):
    """A budget of all rows leaves no choice."""
    rng = np.random.default_rng(num_domains)
    weights = np.maximum(rng.dirichlet(np.full(num_domains, 0.1), 100), 1e-30).astype(np.float32)
    limits = rng.dirichlet(np.ones(num_domains), 100).astype(np.float32)
    got = jax.vmap(lambda q, u: rules.cap(rules.fixed(q), u).init(jnp.ones(num_domains)).weights)(weights, limits)
    np.testing.assert_allclose(got, limits, atol=1e-6)


def test_limits_may_be_traced_and_batched():
    limits = jnp.array([[0.4, 1.0, 1.0], [0.1, 0.2, 1.0]])

    def weights(u):
        return rules.cap(rules.fixed([0.5, 0.3, 0.2]), u).init(jnp.ones(3)).weights

    np.testing.assert_allclose(jax.jit(jax.vmap(weights))(limits), [[0.4, 0.36, 0.24], [0.1, 0.2, 0.7]], rtol=1e-6)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ([0.5, -0.1, 1.0], "limits must be in"),
        ([0.5, np.nan, 1.0], "limits must be in"),
        ([0.5, 1.0], r"limits must be \[3\], one per domain"),
        ([0.3, 0.3, 0.3], "room for 1 over the domains of positive prior, got a sum of 0.9"),
    ],
)
def test_bad_limits_are_named(limits, message):
    with pytest.raises(ValueError, match=message):
        rules.cap(rules.fixed(), limits).init(np.ones(3))
