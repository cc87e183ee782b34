"""Resampling by gradient norms against numbers computed by hand, paper 003's eq. 3.5 and 3.45, and float64 NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.rules import gradient_norm

pytestmark = pytest.mark.usefixtures("quick_compilation")

PRIOR = np.array([0.5, 0.3, 0.2])
COUNTS = np.array([8, 8, 8])


def after(m, prior=PRIOR, counts=None, c=None, **kwargs):
    signals = {} if c is None else {"loss_weights": np.float32(c)}
    counts = np.ones(len(m), int) if counts is None else counts
    return first_update(tuple(kwargs.items()), prior, counts=counts, grad_norms=np.float32(m), **signals)


@functools.partial(jax.jit, static_argnums=0)
def first_update(settings, prior, **signals):
    rule = gradient_norm(**dict(settings))
    return rule.update(rule.init(prior), **signals)


def eq35(a, norms):
    """Paper 003, eq. 3.5, in float64: the probability of each term, for shares ``a`` in place of ``1 / n``."""
    return a * norms / np.sum(a * norms)


def estimate(a, q, grads):
    """Exact mean, and trace of the covariance, of the estimate ``(a_i / q_i) g_i`` with ``i`` drawn from ``q``."""
    draws = (a / q)[:, None] * grads
    mean = q @ draws
    return mean, q @ np.square(draws).sum(axis=1) - mean @ mean


def test_by_hand():
    np.testing.assert_allclose(after([1.0, 2.0, 4.0], c=[0.5, 0.25, 0.25]).weights, [0.25, 0.25, 0.5], rtol=1e-6)
    np.testing.assert_allclose(after([2.0, 5.0, 0.5]).weights, np.array([1.0, 1.5, 0.1]) / 2.6, rtol=1e-6)  # c = prior
    weights = after([4.0, 9.0, 1.0], c=[0.2, 0.0, 0.8]).weights
    np.testing.assert_allclose(weights, [0.5, 0.0, 0.5], atol=1e-30, rtol=1e-6)


def test_section_2_of_the_paper():
    """Shares .4 and .6 and slopes 1 and K = 5 give f = (.1176, .8824) and weights (3.4, .68)."""
    q = after([1.0, 5.0], prior=[0.4, 0.6]).weights
    np.testing.assert_allclose(q, [2 / 17, 15 / 17], rtol=1e-6)
    np.testing.assert_allclose(np.float64([0.4, 0.6]) / q, [3.4, 0.68], rtol=1e-6)


def test_floor_by_hand():
    weights = after([1.0, 2.0, 4.0], c=[0.5, 0.25, 0.25], floor=0.2).weights
    np.testing.assert_allclose(weights, [0.8 * 0.25 + 0.1, 0.8 * 0.25 + 0.05, 0.8 * 0.5 + 0.05], rtol=1e-6)
    np.testing.assert_allclose(after([1.0, 5.0, 25.0], floor=1.0).weights, PRIOR, rtol=1e-6)


@pytest.mark.parametrize("floor", [0.1, 0.5])
def test_floor_bounds_the_ratio(floor):
    q = np.float64(after([0.0, 1e-20, 1e20], floor=floor).weights)
    assert (PRIOR / q).max() <= 1.0 / floor * (1 + 1e-6)


@pytest.mark.parametrize("floor", [0.0, 0.25])
@pytest.mark.parametrize("seed", range(3))
def test_over_20_steps_with_absent_rows(seed, floor):
    rng, rule = np.random.default_rng(seed), gradient_norm(floor=floor)
    state, update = rule.init(PRIOR), jax.jit(rule.update)
    last, seen = np.ones(3), np.zeros(3, bool)
    for t in range(20):
        c, m = rng.dirichlet(np.ones(3)), 10.0 ** rng.uniform(-2, 2, 3)
        there = (rng.random(3) > 0.4) & (np.arange(3) <= t)  # domain 2 not before step 2
        signals = {"counts": np.where(there, 8, 0), "grad_norms": np.where(there, m, np.nan)}
        if seed == 0:
            c = PRIOR  # and not given
        else:
            signals["loss_weights"] = np.float32(c)
        state = update(state, **signals)
        if not there.any():
            continue
        last, seen = np.where(there, m, last), seen | there
        expected = PRIOR.copy()
        mixture = (1 - floor) * eq35(c[seen], last[seen]) + floor * c[seen] / c[seen].sum()
        expected[seen] = (1.0 - PRIOR[~seen].sum()) * mixture
        np.testing.assert_allclose(state.weights, expected, rtol=1e-5)
    assert seen.all()


@pytest.mark.parametrize("seed", range(20))
def test_singletons_are_per_term_rr_with_less_variance_than_sgd(seed):
    """Eq. 3.5 and 3.45 at n domains of one example, for random and for heavy-tailed gradients."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(2, 50)), int(rng.integers(1, 8))
    grads = rng.normal(size=(n, d)) * (rng.pareto(1.5, size=(n, 1)) if seed % 2 else 1.0)
    norms, uniform = np.linalg.norm(grads, axis=1), np.full(n, 1.0 / n)
    padded = after(np.pad(norms, (0, 50 - n)), prior=np.arange(50) < n).weights  # one shape, compiled once
    q = np.float64(padded[:n])
    np.testing.assert_allclose(q, norms / norms.sum(), rtol=1e-5)

    mean, trace = estimate(uniform, q, grads)
    sgd_mean, sgd_trace = estimate(uniform, uniform, grads)
    np.testing.assert_allclose(mean, grads.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(sgd_mean, mean, atol=1e-12)
    z = norms.sum()
    np.testing.assert_allclose(trace, z / n**2 * norms.sum() - mean @ mean, rtol=1e-5, atol=1e-10)
    assert trace <= sgd_trace + 1e-10


def test_equal_norms_are_sgd():
    grads = np.array([[3.0, 4.0], [0.0, 5.0], [-5.0, 0.0]])
    q = np.float64(after([5.0, 5.0, 5.0], prior=np.ones(3)).weights)
    np.testing.assert_allclose(q, np.ones(3) / 3, rtol=1e-6)
    third = np.ones(3) / 3
    np.testing.assert_allclose(estimate(third, q, grads)[1], estimate(third, third, grads)[1], rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_root_mean_squares_minimise_the_variance_over_the_domains_shares(seed):
    """Domains of several examples, drawn uniformly within: no other q, nor the mean of the norms, does better."""
    rng = np.random.default_rng(seed)
    sizes = np.array([4, 9, 15])
    ids = np.repeat(np.arange(3), sizes)
    scale = np.where(rng.random(len(ids)) < 0.3, 10.0, 1.0) * 10.0 ** rng.uniform(-1, 1, 3)[ids]
    grads = rng.normal(size=(len(ids), 2)) * scale[:, None]
    norms, c = np.linalg.norm(grads, axis=1), rng.dirichlet(np.ones(3))
    rms = np.sqrt(np.bincount(ids, norms**2) / sizes)
    means = np.bincount(ids, norms) / sizes

    def trace(q):
        return estimate((c / sizes)[ids], (q / sizes)[ids], grads)

    q = np.float64(after(rms, c=c).weights)
    mean, best = trace(q)
    np.testing.assert_allclose(best, (c @ rms) ** 2 - mean @ mean, rtol=1e-5)
    np.testing.assert_allclose(mean, (c / sizes)[ids] @ grads, rtol=1e-10)
    for other in (c, np.ones(3) / 3, eq35(c, means), *rng.dirichlet(np.ones(3), 20)):
        assert best < trace(other)[1]
    mixture = np.float64(after(rms, c=c, floor=0.3).weights)
    np.testing.assert_allclose(trace(mixture)[0], mean, rtol=1e-10)  # as unbiased as without
    assert best < trace(mixture)[1] < trace(c)[1]


@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_drawn_estimates_are_unbiased(floor):
    rng, draws = np.random.default_rng(0), 100_000
    grads = jnp.asarray(rng.normal(size=(12, 3)) * rng.pareto(1.5, size=(12, 1)), jnp.float32)
    q = after(np.linalg.norm(grads, axis=1), prior=np.ones(12), floor=floor).weights
    cdf = jnp.cumsum(q)
    index = jnp.searchsorted(cdf / cdf[-1], jax.random.uniform(jax.random.key(1), (draws,)), side="right")
    samples = np.float64((1 / 12 / q)[:, None] * grads)[np.asarray(index)]
    error = samples.std(axis=0) / np.sqrt(draws)
    assert (np.abs(samples.mean(axis=0) - np.mean(grads, axis=0)) < 4 * error + 1e-6).all()


def test_stale_rows_use_the_new_loss_weights():
    rule = gradient_norm()
    state = after([1.0, 2.0, 3.0], c=[0.4, 0.3, 0.3])
    c, m = np.float32([0.1, 0.8, 0.1]), np.float32([5.0, np.nan, 5.0])
    state = jax.jit(rule.update)(state, counts=np.array([8, 0, 8]), loss_weights=c, grad_norms=m)
    np.testing.assert_allclose(state.weights, [0.5 / 2.6, 1.6 / 2.6, 0.5 / 2.6], rtol=1e-6)


def test_a_non_finite_loss_weight_makes_the_row_unseen():
    rule = gradient_norm()
    state = after([1.0, 2.0, 3.0], c=[0.4, 0.3, 0.3])
    c, m = np.float32([0.5, np.nan, 0.2]), np.float32([5.0, 100.0, 5.0])
    state = jax.jit(rule.update)(state, counts=COUNTS, loss_weights=c, grad_norms=m)
    np.testing.assert_allclose(state.weights, np.array([2.5, 0.6, 1.0]) / 4.1, rtol=1e-6)  # .3 and 2 are the last ones


def test_no_gradient_anywhere_is_the_loss_weights():
    c = [0.2, 0.3, 0.5]
    np.testing.assert_allclose(after(np.zeros(3), c=c).weights, c, rtol=1e-6)
    np.testing.assert_allclose(after(np.zeros(3)).weights, PRIOR, rtol=1e-6)
    np.testing.assert_allclose(after([7.0, 0.0, 0.0], c=[0.0, 0.4, 0.6]).weights, [0.0, 0.4, 0.6], atol=1e-30)


def test_a_gradient_of_zero_still_draws_from_every_weighted_domain():
    weights = after([0.0, 1.0, 1.0], c=[0.5, 0.5, 0.0]).weights
    assert weights[0] > 0 and weights[2] == 0
    np.testing.assert_allclose(weights[1], 1.0, rtol=1e-6)
    assert np.isfinite(0.5 / np.float32(weights[0]))


def test_norms_at_the_ends_of_float32():
    np.testing.assert_allclose(after([3e38, 1e38, 2e38]).weights, np.array([15.0, 3.0, 4.0]) / 22.0, rtol=1e-4)
    np.testing.assert_allclose(after([3e-37, 1e-37, 2e-37]).weights, np.array([15.0, 3.0, 4.0]) / 22.0, rtol=1e-4)


def test_loss_weight_only_on_unseen_rows_falls_back_to_it():
    weights = after([np.nan, 1.0, 1.0], c=[1.0, 0.0, 0.0], counts=np.array([0, 8, 8])).weights
    np.testing.assert_allclose(weights, [1.0, 0.0, 0.0], atol=1e-30)


@pytest.mark.parametrize("floor", [-0.1, 1.5, np.nan])
def test_floor_must_be_in_range(floor):
    with pytest.raises(ValueError, match=r"floor must be .*in \[0, 1\]"):
        gradient_norm(floor=floor)
