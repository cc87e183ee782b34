"""Tests that missing signals, wrong shapes and bad priors raise errors that name them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from tests.laws.contract.cases import CASES, PRIOR, ROWS, draw_signals, every_case, reading_case

pytestmark = pytest.mark.usefixtures("quick_compilation")


@every_case
def test_a_missing_signal_is_a_type_error_that_names_it(name):
    rule = CASES[name].make(ROWS)
    state, signals = rule.init(PRIOR), draw_signals(0)
    for missing in {"counts", *CASES[name].reads} - {*CASES[name].optional}:
        rest = {key: value for key, value in signals.items() if key != missing}
        with pytest.raises(TypeError, match=missing):
            rule.update(state, **rest)
        with pytest.raises(TypeError, match=missing):
            jax.jit(rule.update)(state, **rest)


@reading_case
@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1)])
def test_a_wrong_shape_is_a_value_error_that_names_the_signal(name, shape):
    rule = CASES[name].make(ROWS)
    state, signals = rule.init(PRIOR), draw_signals(0)
    for signal in ("counts", *CASES[name].reads):
        with pytest.raises(ValueError, match=f"'{signal}'"):
            rule.update(state, **signals | {signal: np.ones(shape, np.float32)})


@every_case
@pytest.mark.parametrize("prior", [[], [[0.5, 0.5]], 1.0, [0.5, -0.1, 0.6], [0.0, 0.0, 0.0], [np.nan, 1.0, 1.0]])
def test_a_prior_off_the_cone_is_a_value_error(name, prior):
    with pytest.raises(ValueError, match="prior"):
        CASES[name].make(ROWS).init(prior)


@reading_case
def test_a_complex_signal_is_a_type_error_that_names_it(name):
    """A cast to floats would drop its imaginary part."""
    rule = CASES[name].make(ROWS)
    state, signals = rule.init(PRIOR), draw_signals(0)
    for signal in CASES[name].reads:
        with pytest.raises(TypeError, match=f"signal '{signal}' must be real numbers, got complex64"):
            jax.jit(rule.update)(state, **signals | {signal: signals[signal].astype(np.complex64)})


def test_complex_losses_are_refused():
    losses, ids = jnp.array([1.0 + 1.0j, 2.0]), jnp.array([0, 1])
    with pytest.raises(TypeError, match="losses must be real numbers, got complex64"):
        mixjax.weighted_loss(None, [0.5, 0.5], losses, ids)
    with pytest.raises(TypeError, match="values must be real numbers, got complex64"):
        mixjax.signals.moments(losses, ids, 2)
    tx = mixjax.accumulate(mixjax.track(mixjax.rules.fgls(), [0.5, 0.5]), 2)
    with pytest.raises(TypeError, match="signal 'losses' must be real numbers, got complex64"):
        tx.update(jnp.ones(()), tx.init(jnp.zeros(())), counts=jnp.ones(2), losses=losses)
