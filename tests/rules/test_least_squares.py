"""GLS, FGLS and one-shot FGLS, against numbers computed by hand and paper 000's equations in float64."""

import jax
import numpy as np
import pytest

from mixjax.rules import fgls, gls, one_shot_fgls
from tests.laws.reference import paper000

PRIOR = np.array([0.5, 0.3, 0.2])
COUNTS = np.array([8, 8, 8])


def random_losses(seed, steps=20, absent=0.3):
    """Losses over five orders of magnitude, and which rows are there (never the last one before step 6)."""
    rng = np.random.default_rng(seed)
    present = rng.random((steps, 3)) > absent
    present[:6, 2] = False
    present[0, :2] = True
    return 10.0 ** rng.uniform(-3, 2, (steps, 3)), present


def as_signals(losses, present):
    return {"counts": np.where(present, 8, 0), "losses": np.where(present, losses, np.nan)}


def share_out(scores, seen):
    """Rows never seen keep their prior share, and the others share out the rest in proportion to their scores."""
    c = PRIOR.copy()
    c[seen] = (1.0 - PRIOR[~seen].sum()) * scores[seen] / scores[seen].sum()
    return c


def test_gls_by_hand():
    np.testing.assert_allclose(gls([1.0, 20.0]).init([0.5, 0.5]).weights, [20 / 21, 1 / 21], rtol=1e-6)
    np.testing.assert_allclose(gls([1.0, 4.0]).init([0.2, 0.8]).weights, [0.5, 0.5], rtol=1e-6)


def test_gls_is_eq_9():
    variances = np.array([0.3, 2.0, 1e4])
    expected = paper000.loss_weights(PRIOR, paper000.eq9(variances))
    np.testing.assert_allclose(gls(variances).init(PRIOR).weights, expected, rtol=1e-5)


def test_gls_with_one_variance_for_all_is_the_prior():
    np.testing.assert_allclose(gls(3.0).init(PRIOR).weights, PRIOR, rtol=1e-6)


def test_gls_over_many_orders_of_magnitude():
    np.testing.assert_allclose(gls([1e-30, 1e-30, 1e30]).init(PRIOR).weights, [5 / 8, 3 / 8, 0.0], rtol=1e-5)


@pytest.mark.parametrize("variances", [[1.0, 0.0], [1.0, -1.0], 0.0, [np.nan, 1.0]])
def test_gls_needs_positive_variances(variances):
    with pytest.raises(ValueError, match="variances must be positive"):
        gls(variances)


@pytest.mark.parametrize("variances", [[np.inf, 1.0], np.inf, [1e300, 1.0], [1e-300, 1.0]])
def test_gls_needs_variances_that_float32_can_hold(variances):
    with pytest.raises(ValueError, match=r"variances must be .*in \[1"):
        gls(variances)


def test_gls_needs_one_variance_per_domain():
    with pytest.raises(ValueError, match="variances must be a scalar or have shape"):
        gls([1.0, 2.0]).init(PRIOR)


def test_fgls_by_hand():
    rule = fgls()
    state = rule.update(rule.init([0.5, 0.5]), counts=np.array([9, 9]), losses=np.array([1.0, 3.0]))
    np.testing.assert_allclose(state.weights, [0.75, 0.25], rtol=1e-6)
    state = rule.update(state, counts=np.array([9, 9]), losses=np.array([4.0, 1.0]))  # no memory of what was seen
    np.testing.assert_allclose(state.weights, [0.2, 0.8], rtol=1e-6)


def test_fgls_is_eq_10():
    rng = np.random.default_rng(0)
    domain = np.repeat(np.arange(3), [8, 5, 11])
    x, theta = rng.normal(size=(24, 2)), rng.normal(size=2)
    y = x @ rng.normal(size=2) + rng.normal(size=24) * np.array([0.1, 1.0, 3.0])[domain]
    losses, w = paper000.eq10(x, y, theta, domain)
    state = fgls().update(fgls().init(PRIOR), counts=np.bincount(domain), losses=losses)
    np.testing.assert_allclose(state.weights, paper000.loss_weights(PRIOR, w), rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_fgls_over_20_steps(seed):
    rule, (losses, present) = fgls(), random_losses(seed)
    state, update = rule.init(PRIOR), jax.jit(rule.update)
    last, seen = np.ones(3), np.zeros(3, bool)
    for loss, there in zip(losses, present, strict=True):
        state = update(state, **as_signals(loss, there))
        last, seen = np.where(there, loss, last), seen | there
        np.testing.assert_allclose(state.weights, share_out(PRIOR / last, seen), rtol=1e-5)
        np.testing.assert_array_equal(state.seen, seen)
    assert seen.all() and not present.all()


@pytest.mark.parametrize("make", [fgls, one_shot_fgls])
def test_losses_are_floored(make):
    rule = make(min_loss=0.5)
    state = rule.update(rule.init([0.5, 0.5]), counts=np.array([1, 1]), losses=np.array([0.0, 1.5]))
    np.testing.assert_allclose(state.weights, [0.75, 0.25], rtol=1e-6)


@pytest.mark.parametrize("make", [fgls, one_shot_fgls])
def test_all_losses_zero_is_the_prior(make):
    state = make().update(make().init(PRIOR), counts=COUNTS, losses=np.zeros(3))
    np.testing.assert_allclose(state.weights, PRIOR, rtol=1e-6)


@pytest.mark.parametrize("make", [fgls, one_shot_fgls])
@pytest.mark.parametrize("min_loss", [0.0, -1.0])
def test_min_loss_must_be_positive(make, min_loss):
    with pytest.raises(ValueError, match="min_loss must be positive"):
        make(min_loss=min_loss)


def test_one_shot_fgls_by_hand():
    rule = one_shot_fgls(gamma=0.5)
    state = rule.init([0.5, 0.5])
    np.testing.assert_array_equal(state.log_w, [0.0, 0.0])  # raw w starts at 1
    state = rule.update(state, counts=np.array([9, 9]), losses=np.array([0.5, 1.0]))
    np.testing.assert_allclose(np.exp(state.log_w), [1.5, 1.0], rtol=1e-6)  # .5 + .5 / .5, .5 + .5 / 1
    np.testing.assert_allclose(state.weights, [0.6, 0.4], rtol=1e-6)
    state = rule.update(state, counts=np.array([9, 9]), losses=np.array([2.0, 0.25]))
    np.testing.assert_allclose(np.exp(state.log_w), [1.0, 2.5], rtol=1e-6)  # .75 + .25, .5 + 2
    np.testing.assert_allclose(state.weights, [2 / 7, 5 / 7], rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.05, 0.5, 1.0])
def test_one_shot_fgls_is_line_11_over_20_steps(gamma):
    rule = one_shot_fgls(gamma)
    losses, _ = random_losses(7)
    state, update = rule.init(PRIOR), jax.jit(rule.update)
    w = np.ones(3)
    for loss in losses:
        state = update(state, counts=COUNTS, losses=loss)
        w = paper000.algorithm1_line11(w, loss, gamma)
        np.testing.assert_allclose(np.exp(state.log_w), w, rtol=2e-5)
        np.testing.assert_allclose(state.weights, paper000.loss_weights(PRIOR, w), rtol=2e-5)


@pytest.mark.parametrize("seed", range(3))
def test_one_shot_fgls_with_absent_rows(seed):
    rule, (losses, present) = one_shot_fgls(0.3), random_losses(seed)
    state, update = rule.init(PRIOR), jax.jit(rule.update)
    w, seen = np.ones(3), np.zeros(3, bool)
    for loss, there in zip(losses, present, strict=True):
        state = update(state, **as_signals(loss, there))
        w, seen = np.where(there, paper000.algorithm1_line11(w, loss, 0.3), w), seen | there
        np.testing.assert_allclose(np.exp(state.log_w), w, rtol=2e-5)
        np.testing.assert_allclose(state.weights, share_out(PRIOR * w, seen), rtol=2e-5)


def test_one_shot_fgls_depends_on_the_scale_of_the_loss_below_gamma_1():
    def weights(gamma, scale):
        rule = one_shot_fgls(gamma)
        losses = scale * np.array([1.0, 3.0])
        return rule.update(rule.init([0.5, 0.5]), counts=np.array([9, 9]), losses=losses).weights

    np.testing.assert_allclose(weights(1.0, 1.0), weights(1.0, 100.0), rtol=1e-5)
    assert abs(weights(0.5, 1.0)[0] - weights(0.5, 100.0)[0]) > 0.05


def test_one_shot_fgls_with_gamma_1_is_fgls():
    losses, present = random_losses(3)
    a, b = fgls(), one_shot_fgls()
    state_a, state_b = a.init(PRIOR), b.init(PRIOR)
    for loss, there in zip(losses[:8], present[:8], strict=True):
        signals = as_signals(loss, there)
        state_a, state_b = a.update(state_a, **signals), b.update(state_b, **signals)
        np.testing.assert_allclose(state_a.weights, state_b.weights, rtol=1e-5)


@pytest.mark.parametrize("gamma", [-0.1, 1.1, np.nan])
def test_gamma_must_be_in_range(gamma):
    with pytest.raises(ValueError, match=r"gamma must be .*in \[0, 1\]"):
        one_shot_fgls(gamma)
