"""Tests proposals: minima under constraints, the region, intervals, and what is said of mixtures without design."""

import numpy as np
import pytest
import scipy.optimize

from mixjax import design
from mixjax.design.laws import LAWS
from tests.design.synthetic import swarm


@pytest.fixture(scope="module")
def fitted():
    _, mixtures, losses = swarm(4, 3, 60, 0.01, seed=0)
    names = ["web", "code", "books", "talk"]
    return design.fit(mixtures, losses, law="log_linear", resamples=100, domains=names, metrics=["a", "b", "c"])


def slsqp(function, low, high):
    """Returns the least value that scipy finds from several starts."""
    best = np.inf
    for start in np.random.default_rng(0).dirichlet(np.ones(len(low)), 5):
        start = np.clip(start, low, high)
        sum_to_one = {"type": "eq", "fun": lambda r: r.sum() - 1}
        found = scipy.optimize.minimize(
            function, start, bounds=list(zip(low, high, strict=True)), constraints=[sum_to_one], options={"ftol": 1e-12}
        )
        if found.success:
            best = min(best, found.fun)
    return best


@pytest.mark.parametrize("objective", [None, "b", {"a": 1.0, "c": 2.0}, [0.2, 0.5, 0.3], ["a", "b"]])
@pytest.mark.parametrize("bounds", [{}, {"max_share": 0.4}, {"max_share": {"code": 0.1}, "min_share": {"talk": 0.3}}])
def test_the_proposal_is_the_minimum_within_bounds(fitted, objective, bounds):
    found = design.propose(fitted, objective, **bounds)
    low, high = found.bounds

    def value(mixture):
        return found.objective.value(LAWS["log_linear"].predict(fitted.params, mixture[None]).T)[0]

    assert found.weights.sum() == pytest.approx(1.0) and found.bounds.allow(found.weights)
    assert found.value == pytest.approx(value(found.weights)) and found.low <= found.value <= found.high
    assert found.value <= slsqp(value, low, high) + 1e-6


def test_the_worst_loss_is_minimised_to_its_kink(fitted):
    found = design.propose(fitted, "worst")
    mean, _, _ = fitted.predict(found.weights)
    assert found.value == pytest.approx(mean.max())
    fresh = np.random.default_rng(0).dirichlet(np.ones(4), 3000)
    assert found.value <= fitted.predict(fresh)[0].max(axis=1).min() + 1e-4


def test_a_penalty_pulls_to_the_prior(fitted):
    prior = [0.4, 0.3, 0.2, 0.1]
    plain, pulled, fixed = (design.propose(fitted, prior=prior, penalty=penalty).weights for penalty in (0.0, 0.2, 1e4))
    np.testing.assert_allclose(fixed, prior, atol=1e-3)
    assert 0.02 < np.abs(pulled - prior).sum() < np.abs(plain - prior).sum()


@pytest.mark.parametrize("small", [0.0, 1e-12, 1e-9, 1e-6])
def test_a_penalty_does_not_hold_the_search_where_a_share_is_near_zero(fitted, small):
    """A domain of next to no prior leaves the others, and their region, as if it was left out."""
    found = design.propose(fitted, penalty=3.0, prior=[0.4, small, 0.3, 0.3])
    without = design.propose(fitted, penalty=3.0, prior=[0.4, 0.1, 0.3, 0.3], max_share={"code": 0.0})
    np.testing.assert_allclose(found.weights, without.weights, atol=2e-5)
    np.testing.assert_allclose(found.slack, without.slack, rtol=0.2)
    np.testing.assert_allclose(found.optima.std(axis=0), without.optima.std(axis=0), rtol=0.2, atol=1e-5)


def test_a_domain_without_prior_has_no_share_under_a_penalty(fitted):
    with pytest.raises(ValueError, match="prior must be positive for 'web', which has a min_share, if there is a pen"):
        design.propose(fitted, penalty=0.1, prior=[0, 1, 1, 1], min_share={"web": 0.1})
    capped = [1.0, 0.3, 0.3, 0.3]
    with pytest.raises(ValueError, match="max_share must leave room for shares of domains with a prior, got a sum of"):
        design.propose(fitted, penalty=0.1, prior=[0, 1, 1, 1], max_share=capped)
    # Without a penalty the prior is only compared with.
    assert design.propose(fitted, prior=[0, 1, 1, 1], max_share=capped).weights[0] > 0.09


def test_the_region_holds_the_proposal_and_only_mixtures_as_good(fitted):
    found = design.propose(fitted, max_share=0.6)
    np.testing.assert_array_equal(found.region[0], found.weights)
    assert len(found.region) > 20 and found.contains(found.region).all()
    assert not found.contains(np.eye(4)).any()
    # Finer than its rows: mixtures between them belong to it too.
    assert found.contains(found.region[[3, 5]].mean(axis=0)).all()


def test_a_noisier_swarm_has_a_larger_region():
    sizes = []
    for noise in (0.003, 0.03):
        _, mixtures, losses = swarm(3, 3, 40, noise, seed=1)
        region = design.propose(design.fit(mixtures, losses, law="log_linear", resamples=100)).region
        sizes.append(np.ptp(region, axis=0).sum())
    assert sizes[1] > 2 * sizes[0]


def test_a_planted_optimum_is_within_the_region():
    """A hundred swarms are a script of the benchmarks; here are twelve."""
    inside = []
    for seed in range(12):
        params, mixtures, losses = swarm(4, 4, 48, 0.02, seed)
        best = slsqp_minimum(params)
        found = design.propose(design.fit(mixtures, losses, law="log_linear", resamples=100))
        inside.append(found.contains(best)[0])
        assert (np.abs(found.region - best).max(axis=1)).min() < 0.1
    assert sum(inside) >= 11


def slsqp_minimum(params):
    problem = scipy.optimize.minimize(
        lambda r: LAWS["log_linear"].predict(params, r[None]).mean(),
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        constraints=[{"type": "eq", "fun": lambda r: r.sum() - 1}],
        options={"ftol": 1e-12},
    )
    return np.clip(problem.x, 0, None) / np.clip(problem.x, 0, None).sum()


def test_says_when_it_is_not_better(fitted):
    found = design.propose(fitted, prior=[1, 1, 1, 7])
    texts = {comparison.name: str(comparison) for comparison in found.comparisons}
    assert list(texts) == ["the uniform mixture", "the proportional mixture", "the swarm's best run"]
    assert texts["the proportional mixture"].startswith("better than the proportional mixture by the interval: ")
    # Losses that do not depend on the mixture: noise has a minimum too.
    mixtures = np.random.default_rng(0).dirichlet(np.ones(3), 40)
    noise = 1.0 + 0.01 * np.random.default_rng(1).normal(size=(40, 1))
    nothing = design.propose(design.fit(mixtures, noise, law="log_linear", resamples=200))
    assert str(nothing.comparisons[0]).startswith("not better than the uniform mixture by the interval: ")
    assert not nothing.comparisons[0].is_better


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"objective": "d"}, ValueError, "objective names 'd', which is no metric; known: a, b, c, mean, worst"),
        ({"objective": {"aa": 1.0}}, ValueError, "objective names 'aa', which is no metric; did you mean 'a'?"),
        ({"objective": [1.0, 2.0]}, ValueError, r"must have a weight for each of 3 metrics, got shape \(2,\)"),
        ({"objective": [0.0, 0.0, 0.0]}, ValueError, "must have finite weights that are not all zero"),
        ({"objective": object()}, TypeError, "objective must be 'mean', 'worst', names of metrics"),
        ({"max_share": 0.2}, ValueError, "max_share must leave room for shares that sum to 1, got a sum of 0.8"),
        ({"min_share": 0.3}, ValueError, "min_share must leave room for shares that sum to 1, got a sum of 1.2"),
        ({"max_share": {"wb": 0.5}}, ValueError, "max_share names 'wb', which is no domain; did you mean 'web'?"),
        ({"max_share": [0.5, 0.5]}, ValueError, r"one per domain, \[4\], got shape \(2,\)"),
        ({"max_share": 1.5}, ValueError, r"max_share of 'web' must be in \[0, 1\], got 1.5"),
        ({"max_share": {"web": 0.1}, "min_share": {"web": 0.2}}, ValueError, "min_share of 'web' must be at most"),
        ({"prior": [0.5, 0.5]}, ValueError, r"prior must be \[4\], a share per domain, got \[2\]"),
        ({"penalty": -1.0}, ValueError, "penalty must be in"),
    ],
)
def test_what_cannot_be_proposed_is_named(fitted, changes, error, message):
    with pytest.raises(error, match=message):
        design.propose(fitted, **changes)


def test_runs_that_diverged_do_not_move_the_proposal():
    _, mixtures, losses = swarm(3, 3, 40, 0.01, seed=2)
    plain = design.propose(design.fit(mixtures, losses, law="log_linear", resamples=40))
    # The runs nearest to the proposal, where they would do most.
    losses[np.argsort(np.abs(mixtures - plain.weights).sum(axis=1))[:2]] += 30.0
    moved = design.propose(design.fit(mixtures, losses, law="log_linear", resamples=40))
    assert np.abs(moved.weights - plain.weights).max() < 0.05
    assert moved.contains(plain.weights)[0] and moved.value == pytest.approx(plain.value, abs=0.05)
