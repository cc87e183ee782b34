"""Tests DRO weights against numbers computed by hand and paper 004's equations in float64."""

import jax
import numpy as np
import pytest

from mixjax.rules import dro, robust_loss
from tests.rules.divergence_reference import DIVERGENCES, reference

pytestmark = pytest.mark.usefixtures("quick_compilation")

PRIOR = np.array([0.5, 0.3, 0.2])
COUNTS = np.array([8, 8, 8])


def after(losses, prior=PRIOR, counts=COUNTS, **kwargs):
    rule = dro(**kwargs)
    return rule.update(rule.init(prior), counts=counts, losses=np.float32(losses))


def test_kl_by_hand():
    # exp(beta L) = (1, 2, 5) times (.5, .3, .2) is (.5, .6, 1)
    weights = after(np.log([1.0, 2.0, 5.0]) / 2, beta=2.0).weights
    np.testing.assert_allclose(weights, [0.5 / 2.1, 0.6 / 2.1, 1.0 / 2.1], rtol=1e-6)


def test_chi2_by_hand():
    # uniform prior, L = (0, 1, 2), so lambda = -1 while nothing is cut: ratios 1 + beta (-1, 0, 1) / 2
    uniform = np.ones(3)
    np.testing.assert_allclose(after([0, 1, 2], uniform, beta=1.0, divergence="chi2").weights, [1 / 6, 1 / 3, 1 / 2])
    # beta = 4: 1 + 2 (L + lambda); domain 0 is cut, and (2 + 4 lambda + 6) / 3 = 1 gives lambda = -5/4: (0, 1/2, 5/2)
    weights = after([0, 1, 2], uniform, beta=4.0, divergence="chi2").weights
    np.testing.assert_allclose(weights, [0.0, 1 / 6, 5 / 6], rtol=1e-6)


def test_half_the_pearson_constant_is_twice_beta():
    halved = after([0, 1, 2], beta=0.8, divergence="chi2", scale=0.5).weights
    np.testing.assert_allclose(halved, after([0, 1, 2], beta=1.6, divergence="chi2").weights, rtol=1e-6)
    assert np.abs(halved - after([0, 1, 2], beta=0.8, divergence="chi2").weights).max() > 0.1


def test_cvar_by_hand():
    # the worst half: all of domain 2 (.2), and .3 of the .3 of domain 1
    np.testing.assert_allclose(after([1, 2, 3], beta=1.0, divergence="cvar").weights, [0.0, 0.6, 0.4], rtol=1e-6)
    # the worst 0.8
    np.testing.assert_allclose(after([1, 2, 3], beta=0.25, divergence="cvar").weights, [0.375, 0.375, 0.25], rtol=1e-6)
    # domains 0 and 1 tie at the cut: the .3 that is left of the level goes to them as 5 : 3
    np.testing.assert_allclose(after([2, 2, 3], beta=1.0, divergence="cvar").weights, [0.375, 0.225, 0.4], rtol=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("beta", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(2))
def test_over_20_steps_with_absent_rows(divergence, beta, seed):
    rng, rule = np.random.default_rng(seed), dro(beta, divergence)
    state, update = rule.init(PRIOR), jax.jit(rule.update)
    last, seen = np.zeros(3), np.zeros(3, bool)
    for t in range(20):
        losses = rng.uniform(0.0, 3.0, 3).astype(np.float32)
        there = (rng.random(3) > 0.4) & (np.arange(3) <= t)  # domain 2 not before step 2
        state = update(state, counts=np.where(there, 8, 0), losses=np.where(there, losses, np.nan))
        last, seen = np.where(there, losses, last), seen | there
        expected = PRIOR.copy()
        if seen.any():
            part = PRIOR[seen]
            expected[seen] = part.sum() * reference(divergence, last[seen], part / part.sum(), beta)
        np.testing.assert_allclose(state.weights, expected, rtol=2e-5, atol=1e-30)
    assert seen.all()


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("beta", [0.0, 1e-30])
def test_beta_zero_is_exactly_the_prior(divergence, beta):
    state = after([0.0, 1e30, 3.0], beta=beta, divergence=divergence)
    if beta == 0:
        np.testing.assert_array_equal(state.weights, state.prior)
    near = after([0.0, 1.0, 3.0], beta=beta, divergence=divergence)
    np.testing.assert_allclose(near.weights, PRIOR, rtol=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("beta", [1e9, 1e30, np.inf])
def test_beta_infinite_is_the_prior_on_the_hardest(divergence, beta):
    np.testing.assert_allclose(after([1, 3, 3], beta=beta, divergence=divergence).weights, [0.0, 0.6, 0.4], rtol=1e-6)
    np.testing.assert_array_equal(after([1, 2, 3], beta=beta, divergence=divergence).weights, [0.0, 0.0, 1.0])
    np.testing.assert_allclose(after([2, 2, 2], beta=beta, divergence=divergence).weights, PRIOR, rtol=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("beta", [0.0, 1e-30, 1.0, 1e30, np.inf])
@pytest.mark.parametrize("losses", [[1e30, 0.0, -1e30], [3e38, -3e38, 3e38], [1e-38, 0.0, 2e-38], [0.0, 0.0, 0.0]])
def test_weights_are_finite_at_extremes(divergence, beta, losses):
    for prior in (PRIOR, np.array([1e-30, 1.0, 0.0])):
        weights = np.asarray(after(losses, prior, beta=beta, divergence=divergence).weights, np.float64)
        assert np.isfinite(weights).all() and abs(weights.sum() - 1) < 1e-6 and (weights[prior == 0] == 0).all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"beta": -1.0}, r"beta must be in \[0, inf\], got -1.0"),
        ({"beta": np.nan}, "beta must be in"),
        ({"divergence": "tv"}, "divergence must be one of 'kl', 'chi2', 'cvar', got 'tv'"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": np.inf}, "scale must be in"),
    ],
)
def test_bad_arguments_are_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        dro(**kwargs)
    with pytest.raises(ValueError, match=message):
        robust_loss([1.0, 2.0], [0.5, 0.5], **{"beta": 1.0} | kwargs)
