"""Tests the regressions against scipy's, one by one."""

import numpy as np
import pytest
import scipy.optimize

from mixjax.design.solver import Link, huber, huber_linear, least_squares

RNG = np.random.default_rng(0)
FEATURES = RNG.dirichlet(np.ones(3), 40)
PARAMS = np.array([[1.0, 0.5, -2.0, 0.3], [2.0, -1.0, 0.4, 0.7]])
NOISE = 0.02 * RNG.standard_t(2, size=(2, 40))
DELTA = np.array([0.03, 0.02])
FREE = np.full(4, -np.inf), np.full(4, np.inf)


def exponential(index, others):
    value = np.exp(index)
    return Link(others + value, value, np.ones((len(index), 1, index.shape[1])))


def targets():
    return PARAMS[:, :1] + np.exp(PARAMS[:, 1:] @ FEATURES.T) + NOISE


def reference(y, delta, start, bounds):
    """Huber's loss at its minimum, by scipy."""

    def residuals(p):
        return p[0] + np.exp(FEATURES @ p[1:]) - y

    found = scipy.optimize.least_squares(
        residuals, start, loss="huber", f_scale=delta, bounds=bounds, xtol=1e-12, ftol=1e-14, gtol=1e-12
    )
    return found.x, huber(residuals(found.x)[None], np.array([delta]))[0]


@pytest.mark.parametrize("bounds", [FREE, (np.r_[1.5, -np.full(3, 9.0)], np.r_[9.0, np.full(3, 0.6)])])
def test_equals_scipy_with_hubers_loss_and_bounds(bounds):
    y = targets()
    start = np.clip(PARAMS + 0.3, *bounds)
    params, losses = least_squares(exponential, FEATURES, y, start, bounds, DELTA, tolerance=1e-14, max_steps=300)
    for k in range(2):
        expected, loss = reference(y[k], DELTA[k], np.clip(start[k], bounds[0] + 1e-9, bounds[1] - 1e-9), bounds)
        assert losses[k] == pytest.approx(loss, rel=1e-6)
        np.testing.assert_allclose(params[k], expected, atol=2e-3)
        assert (params[k] >= bounds[0]).all() and (params[k] <= bounds[1]).all()


def test_a_problem_does_not_depend_on_the_others():
    y, start = targets(), PARAMS + 0.2
    both, _ = least_squares(exponential, FEATURES, y, start, FREE, DELTA)
    for k in range(2):
        alone, _ = least_squares(exponential, FEATURES, y[k : k + 1], start[k : k + 1], FREE, DELTA[k : k + 1])
        np.testing.assert_allclose(both[k], alone[0], rtol=1e-9)


def test_many_problems_are_solved_in_groups():
    y = np.repeat(targets(), 1500, axis=0)
    params, _ = least_squares(exponential, FEATURES, y, np.repeat(PARAMS, 1500, axis=0), FREE, np.repeat(DELTA, 1500))
    assert np.ptp(params[:1500], axis=0).max() < 1e-9 and np.ptp(params[1500:], axis=0).max() < 1e-9


@pytest.mark.parametrize("start", [None, "close"])
def test_linear_regressions_minimise_hubers_loss(start):
    y = FEATURES @ np.array([1.0, 2.0, 3.0]) + NOISE[0]
    exact = huber_linear(FEATURES, y[None], DELTA[:1])
    found = exact if start is None else huber_linear(FEATURES, y[None], DELTA[:1], exact + 0.003)
    residuals = y - FEATURES @ found[0]
    gradient = np.clip(residuals, -DELTA[0], DELTA[0]) @ FEATURES
    assert np.abs(gradient).max() < (1e-8 if start is None else 2e-3)


def test_an_infinite_threshold_is_least_squares():
    y = targets()
    expected = np.linalg.lstsq(FEATURES, y.T, rcond=None)[0].T
    np.testing.assert_allclose(huber_linear(FEATURES, y, np.full(2, np.inf)), expected, atol=1e-10)
