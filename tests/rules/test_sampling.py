"""Tests the part that the two sampling rules share: which scores they remember, and how weights follow."""

import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.rules import sampling

PRIOR = jnp.array([0.5, 0.3, 0.2])
C = jnp.array([0.2, 0.3, 0.5])
ALL = jnp.ones(3, bool)


def test_weights_are_proportional_to_loss_weights_times_scores():
    q = sampling.sampling_weights(PRIOR, C, jnp.array([5.0, 1.0, 2.0]), ALL)
    np.testing.assert_allclose(q, np.array([1.0, 0.3, 1.0]) / 2.3, rtol=1e-6)


def test_a_floor_mixes_in_the_loss_weights():
    q = sampling.sampling_weights(PRIOR, C, jnp.array([0.0, 0.0, 1.0]), ALL, floor=0.4)
    np.testing.assert_allclose(q, 0.4 * C + 0.6 * np.array([0.0, 0.0, 1.0]), rtol=1e-6)


def test_a_row_never_seen_keeps_its_prior_share():
    q = sampling.sampling_weights(PRIOR, C, jnp.array([5.0, 99.0, 2.0]), jnp.array([True, False, True]))
    np.testing.assert_allclose(q, [0.35, 0.3, 0.35], rtol=1e-6)


@pytest.mark.parametrize("floor", [None, 0.3])
def test_scores_that_are_all_zero_give_the_loss_weights(floor):
    np.testing.assert_allclose(sampling.sampling_weights(PRIOR, C, jnp.zeros(3), ALL, floor), C, rtol=1e-6)


def test_weight_only_in_rows_never_seen_gives_the_loss_weights():
    q = sampling.sampling_weights(PRIOR, jnp.array([1.0, 0.0, 0.0]), jnp.ones(3), jnp.array([False, True, True]))
    np.testing.assert_allclose(q, [1.0, 0.0, 0.0], atol=1e-30)


def test_a_weighted_domain_of_score_zero_keeps_the_smallest_float():
    q = sampling.sampling_weights(PRIOR, C, jnp.array([0.0, 1.0, 1.0]), ALL)
    assert q[0] == np.finfo(np.float32).tiny


def test_scores_and_loss_weights_of_rows_not_seen_are_the_last_ones():
    state = sampling.init_scores([0.5, 0.3, 0.2], score=1.0)
    seen, scores = sampling.remember(state, jnp.array([7.0, 8.0, 9.0]), jnp.array([True, False, False]))
    np.testing.assert_array_equal(seen, [True, False, False])
    np.testing.assert_array_equal(scores, [7.0, 1.0, 1.0])
    known, c = sampling.read_loss_weights(state, np.array([0.4, np.nan, 0.6]))
    np.testing.assert_array_equal(known, [True, False, True])
    np.testing.assert_allclose(c, [0.4, 0.3, 0.6], rtol=1e-6)
