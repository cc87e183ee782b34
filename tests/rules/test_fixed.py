"""Weights that do not move, against numbers computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.rules import fixed


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1.0, [0.64, 0.32, 0.04]), (2.0, [4 / 7.828427, 2.828427 / 7.828427, 1 / 7.828427]), (np.inf, [1 / 3] * 3)],
)
def test_temperature_of_the_prior(temperature, expected):
    # 16 : 8 : 1 to the power 1/2 is 4 : 2 sqrt(2) : 1
    np.testing.assert_allclose(fixed(temperature=temperature).init([16.0, 8.0, 1.0]).weights, expected, rtol=1e-6)


def test_low_temperatures_sharpen():
    np.testing.assert_allclose(fixed(temperature=0.5).init([3.0, 1.0]).weights, [0.9, 0.1], rtol=1e-6)
    np.testing.assert_allclose(fixed(temperature=1e-3).init([0.51, 0.49]).weights, [1.0, 0.0], atol=1e-6)


def test_given_weights_replace_the_prior():
    state = fixed([1.0, 0.0, 3.0]).init([0.2, 0.3, 0.5])
    np.testing.assert_allclose(state.weights, [0.25, 0.0, 0.75], rtol=1e-6)
    np.testing.assert_allclose(state.prior, [0.2, 0.3, 0.5], rtol=1e-6)


def test_temperature_applies_to_given_weights():
    np.testing.assert_allclose(fixed([9.0, 1.0], temperature=2.0).init([0.1, 0.9]).weights, [0.75, 0.25], rtol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0, np.inf])
def test_zero_entries_stay_zero_at_any_temperature(temperature):
    np.testing.assert_array_equal(fixed(temperature=temperature).init([1.0, 0.0, 1.0]).weights, [0.5, 0.0, 0.5])
    state = fixed([1.0, 5.0, 1.0], temperature=temperature).init([0.5, 0.0, 0.5])
    np.testing.assert_array_equal(state.weights, [0.5, 0.0, 0.5])


def test_never_moves():
    rule = fixed()
    state = rule.init([0.5, 0.5])
    assert rule.update(state, counts=jnp.array([4, 4]), losses=jnp.array([1.0, 9.0])) is state


def test_traced_weights_and_prior():
    weights = jax.jit(lambda w, prior: fixed(w).init(prior).weights)(jnp.array([1.0, 3.0]), jnp.array([2.0, 2.0]))
    np.testing.assert_allclose(weights, [0.25, 0.75], rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature must be positive"):
        fixed(temperature=temperature)


@pytest.mark.parametrize("weights", [[1.0], [[0.5, 0.5]], [-1.0, 2.0], [np.nan, 1.0], [0.0, 0.0]])
def test_weights_must_fit(weights):
    with pytest.raises(ValueError, match="weights"):
        fixed(weights).init([0.5, 0.5])


def test_weights_must_have_mass_where_the_prior_has():
    with pytest.raises(ValueError, match="weights"):
        fixed([1.0, 0.0]).init([0.0, 1.0])
