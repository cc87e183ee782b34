"""Variance-aware sampling against numbers computed by hand and paper 000's eq. 16 in float64."""

import jax
import numpy as np
import pytest

from mixjax.rules import variance_aware
from tests.laws.reference import paper000

PRIOR = np.array([0.5, 0.3, 0.2])
COUNTS = np.array([8, 8, 8])


def after(c, v, prior=PRIOR, counts=COUNTS, **kwargs):
    rule = variance_aware(**kwargs)
    return rule.update(rule.init(prior), counts=counts, loss_weights=np.float32(c), grad_stds=np.float32(v))


def test_by_hand():
    np.testing.assert_allclose(after([0.5, 0.25, 0.25], [1.0, 2.0, 4.0]).weights, [0.25, 0.25, 0.5], rtol=1e-6)
    np.testing.assert_allclose(after([0.2, 0.0, 0.8], [4.0, 9.0, 1.0]).weights, [0.5, 0.0, 0.5], atol=1e-30, rtol=1e-6)


def test_eq_16_from_raw_weights():
    w, v = np.array([2.0, 0.5, 0.1]), np.array([1.0, 3.0, 30.0])
    expected = paper000.eq16(PRIOR, w, v)
    np.testing.assert_allclose(after(paper000.loss_weights(PRIOR, w), v).weights, expected, rtol=1e-5)


def test_the_prior_does_not_enter_once_all_rows_are_seen():
    c, v = [0.2, 0.3, 0.5], [3.0, 2.0, 1.0]
    np.testing.assert_allclose(after(c, v).weights, after(c, v, prior=[0.1, 0.1, 0.8]).weights, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_over_20_steps_with_absent_rows(seed):
    rng, rule = np.random.default_rng(seed), variance_aware()
    state, update = rule.init(PRIOR), jax.jit(rule.update)
    last, seen = np.ones(3), np.zeros(3, bool)
    for t in range(20):
        c, v = rng.dirichlet(np.ones(3)), 10.0 ** rng.uniform(-2, 2, 3)
        there = (rng.random(3) > 0.4) & (np.arange(3) <= t)  # domain 2 not before step 2
        signals = {"counts": np.where(there, 8, 0), "grad_stds": np.where(there, v, np.nan)}
        state = update(state, loss_weights=np.float32(c), **signals)
        if not there.any():
            continue
        last, seen = np.where(there, v, last), seen | there
        expected = PRIOR.copy()
        expected[seen] = (1.0 - PRIOR[~seen].sum()) * paper000.eq16(c[seen], np.ones(seen.sum()), last[seen])
        np.testing.assert_allclose(state.weights, expected, rtol=1e-5)
    assert seen.all()


def test_stale_rows_use_the_new_loss_weights():
    rule = variance_aware()
    state = after([0.4, 0.3, 0.3], [1.0, 2.0, 3.0])
    c, v = np.float32([0.1, 0.8, 0.1]), np.float32([5.0, np.nan, 5.0])
    state = rule.update(state, counts=np.array([8, 0, 8]), loss_weights=c, grad_stds=v)
    np.testing.assert_allclose(state.weights, [0.5 / 2.6, 1.6 / 2.6, 0.5 / 2.6], rtol=1e-6)


def test_a_non_finite_loss_weight_makes_the_row_unseen():
    rule = variance_aware()
    state = after([0.4, 0.3, 0.3], [1.0, 2.0, 3.0])
    c, v = np.float32([0.5, np.nan, 0.2]), np.float32([5.0, 100.0, 5.0])
    state = rule.update(state, counts=COUNTS, loss_weights=c, grad_stds=v)
    np.testing.assert_allclose(state.weights, np.array([2.5, 0.6, 1.0]) / 4.1, rtol=1e-6)  # .3 and 2 are the last ones


def test_a_vanished_variance_counts_as_a_fraction_of_the_largest():
    np.testing.assert_allclose(
        after([1 / 3] * 3, [0.0, 1.0, 3.0], min_ratio=0.5).weights, np.array([1.5, 1.5, 3.0]) / 6, rtol=1e-6
    )
    weights = after([1 / 3] * 3, [0.0, 1.0, 1.0]).weights
    np.testing.assert_allclose(weights[0], 5e-7, rtol=1e-3)


def test_min_ratio_zero_still_draws_from_every_weighted_domain():
    weights = after([0.5, 0.5, 0.0], [0.0, 1.0, 1.0], min_ratio=0.0).weights
    assert weights[0] > 0 and weights[2] == 0
    np.testing.assert_allclose(weights[1], 1.0, rtol=1e-6)


def test_min_ratio_one_is_the_loss_weights():
    c = np.float32([0.2, 0.3, 0.5])
    np.testing.assert_allclose(after(c, [1.0, 5.0, 25.0], min_ratio=1.0).weights, c, rtol=1e-6)


def test_no_variance_anywhere_is_the_loss_weights():
    np.testing.assert_allclose(after([0.2, 0.3, 0.5], np.zeros(3)).weights, [0.2, 0.3, 0.5], rtol=1e-6)


def test_loss_weight_only_on_unseen_rows_falls_back_to_it():
    weights = after([1.0, 0.0, 0.0], [np.nan, 1.0, 1.0], counts=np.array([0, 8, 8])).weights
    np.testing.assert_allclose(weights, [1.0, 0.0, 0.0], atol=1e-30)


@pytest.mark.parametrize("seed", range(5))
def test_variance_is_at_most_that_of_the_prior_uniform_and_loss_weights(seed):
    rng = np.random.default_rng(seed)
    w, v, batch = rng.uniform(0.1, 3.0, 3), rng.uniform(0.1, 3.0, 3), 60
    c = paper000.loss_weights(PRIOR, w)
    q = np.float64(after(c, v).weights)
    best = paper000.eq14(c, np.ones(3), v, q * batch)
    np.testing.assert_allclose(best, (c @ v) ** 2 / batch, rtol=1e-5)
    for other in (PRIOR, np.ones(3) / 3, c):
        assert best < paper000.eq14(c, np.ones(3), v, other * batch)
    assert paper000.eq14(c, np.ones(3), v, np.full(3, batch / 3)) < 3 * best


@pytest.mark.parametrize("min_ratio", [-0.1, 1.5, np.nan])
def test_min_ratio_must_be_in_range(min_ratio):
    with pytest.raises(ValueError, match=r"min_ratio must be .*in \[0, 1\]"):
        variance_aware(min_ratio=min_ratio)
