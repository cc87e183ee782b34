"""Tests the projection onto limits against its optimality conditions, and what happens to rows that are not there."""

import numpy as np
import pytest

from mixjax.live.limits import NO_LIMIT, project, within_rows_left

UNIT = 1 << 32


@pytest.mark.parametrize("num_domains", [2, 5, 200])
def test_projection_cuts_to_the_limits_and_keeps_the_proportions_of_the_rest(num_domains):
    rng = np.random.default_rng(num_domains)
    for _ in range(200):
        q, u = rng.dirichlet(np.full(num_domains, 0.5)), rng.exponential(2.0 / num_domains, num_domains)
        if u[q > 0].sum() < 1:
            assert project(q, u) is None
            continue
        c = project(q, u)
        assert c.sum() == pytest.approx(1.0) and (c <= u * (1 + 1e-9)).all() and (c >= 0).all()
        free = (c < u * (1 - 1e-9)) & (q > 1e-12)
        if free.any():
            # One factor for all domains below their limit, at least as large as that of the domains at theirs.
            factor = c[free] / q[free]
            assert np.ptp(factor) < 1e-6 * factor.max()
            at_limit = ~free & (q > 1e-12)
            assert (c[at_limit] / q[at_limit] <= factor.max() * (1 + 1e-6)).all()


def test_projection_leaves_weights_within_the_limits_as_they_are():
    q = np.array([0.3, 0.7])
    np.testing.assert_array_equal(project(q, np.array([np.inf, 0.7])), q)


@pytest.mark.parametrize("num_domains", [3, 200, 2000])
def test_limits_of_exactly_one_are_the_projection_whatever_rounding_does(num_domains):
    """A budget of all rows leaves no choice, and no domain is spent early."""
    rng = np.random.default_rng(num_domains)
    for _ in range(100):
        q = np.maximum(rng.dirichlet(np.full(num_domains, 0.5)), 1e-12)
        sizes = np.exp(rng.uniform(0, 20, num_domains)).astype(np.int64) + 1
        u = sizes / sizes.sum()
        np.testing.assert_allclose(project(q, u), u, rtol=1e-6)


def test_projection_never_gives_weight_to_a_domain_without():
    np.testing.assert_allclose(project(np.array([0.0, 0.5, 0.5]), np.array([1.0, 0.1, 2.0])), [0.0, 0.1, 0.9])
    assert project(np.array([0.0, 1.0]), np.array([1.0, 0.5])) is None


def test_rows_that_are_not_there_are_owed_to_the_others():
    owed = np.array([3 * UNIT + 5, 2 * UNIT - 5, 0], np.int64)
    now, lost = within_rows_left(owed, np.array([1, NO_LIMIT, NO_LIMIT]), np.array([0.5, 0.25, 0.25]))
    assert now.sum() == owed.sum() and now[0] == UNIT
    np.testing.assert_array_equal(lost, [2 * UNIT + 5, 0, 0])
    assert now[1] - owed[1] == pytest.approx(UNIT + 2.5, abs=1) and now[2] == pytest.approx(UNIT + 2.5, abs=1)


def test_rows_go_where_rows_are_left_when_no_weight_is():
    owed = np.array([2 * UNIT, 0, 0], np.int64)
    now, _ = within_rows_left(owed, np.array([0, 1, 3]), np.array([1.0, 0.0, 0.0]))
    assert now.sum() == 2 * UNIT and (now <= np.array([0, 1, 3]) * UNIT).all()
