"""Laws fitted to constructed results, and claims about intervals."""

import functools

import numpy as np
import pytest

from experiments.fewer_weight_updates import full_gradients_claims, laws
from tests.experiments.fewer_weight_updates.constructed import BUDGETS, along, constructed, decaying


def test_the_least_is_found_between_grid_points():
    grid = np.array([4, 5, 6, 8, 10])
    losses = np.log(grid / np.array([[5.7], [0.5], [4.2], [60.0]])) ** 2
    np.testing.assert_allclose(laws.refined(losses, grid), [5.7, 4, 4, 10], rtol=1e-6)


@pytest.mark.parametrize("q", [1.0, 2.0])
def test_the_slope_and_the_order_of_a_constructed_law(q):
    data = constructed(functools.partial(decaying, q=q))
    best = laws.best_horizons(data, "mean_weights")
    np.testing.assert_allclose(laws.contraction(data), -np.log(0.8), rtol=1e-6)
    predicted = q / (2 * laws.contraction(data))
    np.testing.assert_allclose(laws.log_slope(best)[0], predicted, rtol=0.08)
    np.testing.assert_allclose(laws.order(best)[0], q, rtol=0.1)
    assert (full_gradients_claims.law(best) > 0).all()
    assert laws.explained(best, "log")[0] > 0.999


def test_a_power_is_told_from_a_logarithm():
    best = laws.best_horizons(constructed(along(lambda n: 2 * n**0.4)), "mean_weights")
    np.testing.assert_allclose(laws.exponent(best)[0], 0.4, atol=1e-3)
    assert laws.explained(best, "power")[0] > 0.9999 and (full_gradients_claims.law(best) < 0).all()


def test_only_budgets_with_enough_rounds_are_settled():
    best = laws.Best(np.array([64, 128, 256, 512, 1024]), np.array([[8.0, 8.0, 16.0, 16.0, 60.0]]), np.ones((1, 5)))
    np.testing.assert_array_equal(laws.settled(best).budgets, [128, 256, 512, 1024])


def test_horizons_choice_is_compared_with_the_best():
    data = constructed(along(lambda n: np.log(n) / (-2 * np.log(0.8))))
    ratio = laws.auto_ratio(data, "mean_weights")
    assert ratio.shape == (1 + laws.RESAMPLES, len(BUDGETS)) and ratio.min() > 1 - 1e-9 and ratio.max() < 1.2
    assert laws.auto_ratio(constructed(along(lambda n: n**0.5)), "mean_weights")[0, -1] > 5


@pytest.mark.parametrize(
    ("values", "holds"), [((1.0, 1.1), True), ((1.0, 3.0), None), ((2.5, 3.0), False), ((-3.0, -2.0), False)]
)
def test_an_interval_decides(values, holds):
    spread = np.r_[np.mean(values), np.linspace(*values, laws.RESAMPLES)]
    claim = laws.judged(
        "a", spread, low=0.5, high=2.0, target=1.0, seeds=9, note="", statement="ours", source="paper 001, abstract"
    )
    assert claim.holds is holds and claim.num_seeds == 9
