"""Tests the projection to mixtures within bounds, and minima over them, against scipy's."""

import numpy as np
import pytest
import scipy.optimize

from mixjax.design.minimise import minimise
from mixjax.design.simplex import as_bounds, project

NAMES = ["a", "b", "c", "d"]
BOUNDS = as_bounds(NAMES, min_share={"d": 0.1}, max_share={"a": 0.3, "b": 0.6})


def test_the_projection_is_the_nearest_mixture():
    points = np.random.default_rng(0).normal(scale=2.0, size=(20, 4))
    found = project(points, BOUNDS)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert BOUNDS.allow(found).all()
    # The condition of a projection: no direction to another mixture has an acute angle with the rest.
    others = project(np.random.default_rng(1).normal(size=(200, 4)), BOUNDS)
    for point, nearest in zip(points, found, strict=True):
        assert ((others - nearest) @ (point - nearest)).max() < 1e-9
    np.testing.assert_allclose(project(found, BOUNDS), found, atol=1e-12)


def test_bounds_of_all_forms():
    np.testing.assert_array_equal(as_bounds(NAMES).high, np.ones(4))
    np.testing.assert_array_equal(as_bounds(NAMES, 0.1, [0.5, 0.4, 0.3, 0.2]).high, [0.5, 0.4, 0.3, 0.2])
    np.testing.assert_array_equal(as_bounds(NAMES, {"c": 0.2}).low, [0, 0, 0.2, 0])
    assert as_bounds(NAMES, max_share=0.25).allow(np.full(4, 0.25))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_quadratic_functions_are_minimised_whatever_their_unit(scale):
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(12, 4, 4))
    matrices, linear = roots @ roots.transpose(0, 2, 1) + 0.01 * np.eye(4), rng.normal(size=(12, 4))

    def function(points, which):
        moved = np.einsum("bij,bj->bi", matrices[which], points)
        value = 0.5 * (moved * points).sum(axis=1) + (linear[which] * points).sum(axis=1)
        return scale * value, scale * (moved + linear[which])

    found, values = minimise(function, np.full((12, 4), 0.25), BOUNDS)
    for i in range(12):
        expected = scipy.optimize.minimize(
            lambda r, i=i: 0.5 * r @ matrices[i] @ r + linear[i] @ r,
            np.array([0.25, 0.25, 0.25, 0.25]),
            bounds=list(zip(*BOUNDS, strict=True)),
            constraints=[{"type": "eq", "fun": lambda r: r.sum() - 1}],
            options={"ftol": 1e-14},
        )
        assert values[i] / scale == pytest.approx(expected.fun, abs=1e-6)
        np.testing.assert_allclose(found[i], expected.x, atol=2e-3)


def test_a_flat_function_stays_where_it_is():
    start = project(np.random.default_rng(0).normal(size=(3, 4)), BOUNDS)
    found, values = minimise(lambda points, which: (np.ones(len(points)), np.zeros_like(points)), start, BOUNDS)
    np.testing.assert_allclose(found, start, atol=1e-12)
    assert (values == 1).all()
