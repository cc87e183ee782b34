"""ERMA against numbers computed by hand and paper 000's eq. 12 in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.rules import erma
from tests.laws.reference import paper000

PRIOR = np.array([0.5, 0.3, 0.2])
COUNTS = np.array([8, 8, 8])


def random_signals(seed, steps=20, absent=0.0):
    rng = np.random.default_rng(seed)
    losses, loss_vars = rng.uniform(0.1, 3.0, (steps, 3)), rng.uniform(0.0, 2.0, (steps, 3))
    return losses, loss_vars, rng.random((steps, 3)) >= absent


def test_variance_term_by_hand():
    rule = erma(gamma1=0.0, gamma2=2.0)
    state = rule.init([0.5, 0.5])
    signals = {"counts": np.array([9, 9]), "losses": np.ones(2)}
    # the exponents are -2 * 1/2 * 1 * (0, log 3), so raw w becomes (1, 1/3) and c is 3 : 1
    state = rule.update(state, loss_vars=np.array([0.0, np.log(3.0)]), **signals)
    np.testing.assert_allclose(state.weights, [0.75, 0.25], rtol=1e-6)
    np.testing.assert_allclose(np.exp(state.log_w), [1.5, 0.5], rtol=1e-6)  # c / prior
    # now w is (3/2, 1/2): the exponents are -(0, 1/2 * 2 log 3), which makes it 9 : 1 within the pair
    state = rule.update(state, loss_vars=np.array([0.0, 2 * np.log(3.0)]), **signals)
    np.testing.assert_allclose(state.weights, [0.9, 0.1], rtol=1e-6)


@pytest.mark.parametrize("gap_sign", [1, -1])
def test_gap_term_by_hand(gap_sign):
    rule = erma(gamma1=1.0, gamma2=0.0, normalised=False)
    # w = (1, 2) with losses (1, 1): G = 1/2 * 0 + 1/2 * (1 - 2) * 1 = -1/2, and the exponents are -1/4 * L
    # w = (1, 1/2): G = 1/4 and the exponents are 1/8 * L
    log_w = np.float32([0.0, gap_sign * -np.log(2.0)])
    state = rule.init([0.5, 0.5])._replace(log_w=log_w)
    new = rule.update(state, counts=np.array([9, 9]), losses=np.ones(2), loss_vars=np.zeros(2))
    step = 1 / 8 if gap_sign > 0 else -1 / 4
    np.testing.assert_allclose(new.log_w, log_w + step, rtol=1e-6)


def test_the_sign_of_the_gap_decides_who_gains():
    rule, counts = erma(gamma1=1.0, gamma2=0.0), np.array([9, 9])
    losses, flat = np.array([1.0, 3.0]), np.zeros(2)
    for w, gains in (([1.6, 0.4], 1), ([0.4, 1.6], 0)):  # G = .3 * (3 - 1) > 0 and < 0
        assert np.sign(paper000.gap([0.5, 0.5], w, losses)) == (1 if gains else -1)
        state = rule.init([0.5, 0.5])._replace(weights=np.float32(w) / 2, log_w=np.log(np.float32(w)))
        new = rule.update(state, counts=counts, losses=losses, loss_vars=flat)
        assert (new.weights[1] > state.weights[1]) == bool(gains)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(("gamma1", "gamma2"), [(0.3, 0.5), (0.01, 0.05), (0.0, 1.0)])
def test_eq_12_over_20_steps(normalised, gamma1, gamma2):
    rule = erma(gamma1, gamma2, normalised=normalised)
    state, update, w = rule.init(PRIOR), jax.jit(rule.update), np.ones(3)
    for losses, loss_vars, _ in zip(*random_signals(0), strict=True):
        state = update(state, counts=COUNTS, losses=losses, loss_vars=loss_vars)
        w = paper000.eq12(w, PRIOR, losses, loss_vars, gamma1, gamma2, normalised)
        np.testing.assert_allclose(np.exp(state.log_w), w, rtol=3e-5)
        np.testing.assert_allclose(state.weights, paper000.loss_weights(PRIOR, w), rtol=3e-5)
    assert np.abs(state.weights - PRIOR).max() > 0.01
    if normalised:
        np.testing.assert_allclose(PRIOR @ np.exp(state.log_w), 1.0, rtol=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_eq_12_with_absent_rows(normalised, seed):
    gamma1, gamma2 = 0.3, 0.5
    rule = erma(gamma1, gamma2, normalised=normalised)
    state, update = rule.init(PRIOR), jax.jit(rule.update)
    w, c = np.ones(3), PRIOR.copy()
    for losses, loss_vars, there in zip(*random_signals(seed, absent=0.4), strict=True):
        signals = {"losses": np.where(there, losses, np.nan), "loss_vars": np.where(there, loss_vars, np.nan)}
        state = update(state, counts=np.where(there, 8, 0), **signals)
        # absent rows: not in G and c as it was; the seen ones share out what these leave
        moved = paper000.eq12(w, PRIOR, np.where(there, losses, 0.0), loss_vars, gamma1, gamma2, False)
        before, w = w, np.where(there, moved, w)
        if there.any():
            c[there] = (1.0 - c[~there].sum()) * (PRIOR * w)[there] / (PRIOR * w)[there].sum()
        if normalised:
            w = c / PRIOR
        elif there.any():  # the absent rows' raw w follows the total of the others
            w[~there] *= (PRIOR * w)[there].sum() / (PRIOR * before)[there].sum()
        np.testing.assert_allclose(state.weights, c, rtol=3e-5)
        np.testing.assert_allclose(np.exp(state.log_w), w, rtol=3e-5)


def test_the_two_forms_differ_after_the_first_step():
    a, b = erma(0.3, 0.5), erma(0.3, 0.5, normalised=False)
    state_a, state_b = a.init(PRIOR), b.init(PRIOR)
    gaps = []
    for losses, loss_vars, _ in zip(*random_signals(1, steps=3), strict=True):
        signals = {"counts": COUNTS, "losses": losses, "loss_vars": loss_vars}
        state_a, state_b = a.update(state_a, **signals), b.update(state_b, **signals)
        gaps.append(np.abs(state_a.weights - state_b.weights).max())
    assert gaps[0] < 1e-6 < 1e-3 < gaps[-1]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_exponent_is_clipped(sign):
    rule = erma(1.0, 1.0, max_log_step=0.7, normalised=False)
    state = rule.init([0.5, 0.5])._replace(log_w=np.float32([np.log(0.5), 0.0]) if sign > 0 else np.zeros(2, "float32"))
    losses, loss_vars = ([1e4, 0.0], [0.0, 0.0]) if sign > 0 else ([1.0, 1.0], [1e9, 0.0])
    new = rule.update(state, counts=np.array([9, 9]), losses=np.float32(losses), loss_vars=np.float32(loss_vars))
    np.testing.assert_allclose(new.log_w - state.log_w, [sign * 0.7, 0.0], atol=1e-6)


def test_a_weight_driven_to_nothing_can_come_back():
    rule = erma(1.0, 1.0)
    state, update = rule.init([0.5, 0.5]), jax.jit(rule.update)
    away = {"counts": np.array([9, 9]), "losses": np.float32([1e-3, 0.1]), "loss_vars": np.float32([1e9, 0.0])}
    for _ in range(40):
        state = update(state, **away)
    assert 0 <= state.weights[0] < 1e-6
    back = {"counts": np.array([9, 9]), "losses": np.float32([10.0, 0.0]), "loss_vars": np.float32([0.0, 10.0])}
    for _ in range(40):
        state = update(state, **back)
    assert state.weights[0] > 0.4


@pytest.mark.parametrize("kwargs", [{"gamma1": -1.0}, {"gamma2": -1e-9}, {"gamma1": np.nan}])
def test_negative_rates_are_errors(kwargs):
    with pytest.raises(ValueError, match=rf"{next(iter(kwargs))} must be .*in \[0, inf\)"):
        erma(**kwargs)


def test_max_log_step_must_be_positive():
    with pytest.raises(ValueError, match="max_log_step must be positive"):
        erma(max_log_step=0.0)


def test_a_tiny_domain_survives_an_update_that_moves_nothing():
    rule = mixjax.rules.erma(gamma1=0.0, gamma2=0.0)
    state = rule.init(jnp.array([0.5, 0.5, 1e-9]))
    signals = {"losses": jnp.ones(3), "loss_vars": jnp.ones(3)}
    new = rule.update(state, counts=jnp.array([0, 0, 5]), **signals)
    np.testing.assert_allclose(new.weights, state.weights, rtol=1e-6)


def test_unnormalised_weights_follow_from_log_w_after_a_partial_batch():
    rule = mixjax.rules.erma(gamma1=0.01, gamma2=0.5, normalised=False)
    state = rule.init(jnp.array([0.3, 0.3, 0.4]))
    for counts in ([0, 5, 5], [5, 0, 5], [0, 0, 5]):
        old = state
        state = rule.update(
            state, counts=jnp.array(counts), losses=jnp.array([1.0, 2.0, 3.0]), loss_vars=jnp.array([2.0, 1.0, 3.0])
        )
        unseen = np.array(counts) == 0
        np.testing.assert_array_equal(state.weights[unseen], old.weights[unseen])
        derived = jax.nn.softmax(jnp.log(state.prior) + state.log_w)
        np.testing.assert_allclose(state.weights, derived, rtol=1e-5)
