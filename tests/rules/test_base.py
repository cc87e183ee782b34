"""Tests the helpers that rules are written with, by hand and at the ends of float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.rules import base
from mixjax.rules.states import AverageLossState, LogWeightState

PRIOR = jnp.array([0.5, 0.3, 0.2])
STATE = LogWeightState(PRIOR, PRIOR, jnp.zeros(3), jnp.int32(0))
SEEN = jnp.array([True, False, True])
COUNTS = np.array([4, 0, 4])


def test_read_signals_zeroes_the_rows_that_were_not_seen():
    seen, losses, norms = base.read_signals(
        STATE, np.array([4, 0, 4]), losses=np.array([1.0, 2.0, np.nan]), grad_norms=np.array([3, 4, 5])
    )
    np.testing.assert_array_equal(seen, [True, False, False])
    np.testing.assert_array_equal(losses, [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(norms, [3.0, 0.0, 0.0])
    assert losses.dtype == norms.dtype == jnp.float32


def test_read_signals_names_the_signal_whose_shape_is_wrong():
    with pytest.raises(ValueError, match=r"signal 'losses' must be \[3\], one row per domain, got shape \(2,\)"):
        base.read_signals(STATE, COUNTS, losses=np.ones(2))


def test_bounded_clips_both_sides_and_keeps_products_finite():
    np.testing.assert_array_equal(base.bounded(jnp.array([-3.0, 1.0, 3.0]), 2.0), [-2.0, 1.0, 2.0])
    huge = base.bounded(jnp.array([-np.inf, 3e38], jnp.float32))
    assert np.isfinite(huge).all() and np.isfinite(huge * 1e8).all()


def test_masked_softmax_by_hand_and_without_any_entry():
    logits = jnp.log(jnp.array([1.0, 5.0, 3.0]))
    np.testing.assert_allclose(base.masked_softmax(logits, SEEN), [0.25, 0.0, 0.75], rtol=1e-6)
    np.testing.assert_array_equal(base.masked_softmax(logits, jnp.zeros(3, bool)), np.zeros(3))
    np.testing.assert_array_equal(base.masked_softmax(jnp.full(3, -jnp.inf), SEEN), np.zeros(3))


def test_share_keeps_the_total_of_the_rows_and_the_others_bitwise():
    weights = base.share(PRIOR, jnp.log(jnp.array([1.0, 9.0, 3.0])), SEEN)
    np.testing.assert_allclose(weights, [0.7 / 4, 0.3, 0.7 * 3 / 4], rtol=1e-6)
    assert weights[1] == PRIOR[1]


def test_total_of_all_weight_is_one_exactly():
    third = jnp.full(3, 1 / 3, jnp.float32)
    assert base.total_of(third * (1 + 1e-6), jnp.ones(3, bool)) == 1.0
    assert base.total_of(jnp.array([0.0, 1.0, 0.0]), jnp.array([False, True, False])) == 1.0
    np.testing.assert_allclose(base.total_of(PRIOR, SEEN), 0.7, rtol=1e-6)


def test_log_ratio_is_bounded_where_weights_vanish():
    ratio = base.log_ratio(jnp.array([0.5, 0.0, 1.0, 0.0]), jnp.array([0.25, 0.5, 1e-38, 0.0]))
    np.testing.assert_allclose(ratio, [np.log(2.0), -base.MAX_LOG_W, base.MAX_LOG_W, base.MAX_LOG_W], rtol=1e-6)


def test_exponentiated_step_is_the_multiplicative_update_of_the_rows_seen():
    step = jnp.array([0.5, 9.0, -1.0])
    new = base.exponentiated_step(STATE, COUNTS, base.log_weights(STATE) + step, SEEN)
    raw = np.array([0.5, 0.2]) * np.exp([0.5, -1.0])
    np.testing.assert_allclose(new.weights[jnp.array([0, 2])], 0.7 * raw / raw.sum(), rtol=1e-6)
    assert new.weights[1] == STATE.weights[1] and new.log_w[1] == STATE.log_w[1]
    np.testing.assert_allclose(new.log_w, jnp.log(new.weights / PRIOR), atol=1e-6)


def test_exponentiated_step_sets_other_fields_and_rests_without_news():
    state = base.first_state(AverageLossState, PRIOR, log_w=jnp.zeros(3), losses=jnp.zeros(3), seen=jnp.zeros(3, bool))
    args = (base.log_weights(state) + 1.0, SEEN)
    new = base.exponentiated_step(state, COUNTS, *args, losses=jnp.ones(3), seen=SEEN)
    np.testing.assert_array_equal(new.losses, np.ones(3))
    np.testing.assert_array_equal(new.seen, SEEN)
    same = base.exponentiated_step(state, np.zeros(3, int), *args, losses=jnp.ones(3), seen=SEEN)
    jax.tree.map(np.testing.assert_array_equal, same, state)


def test_fall_below_largest_by_hand():
    heights = jnp.array([1.0, 100.0, 3.0])
    np.testing.assert_allclose(base.fall_below_largest(heights, SEEN, 2.0, 5.0), [4.0, 0.0, 0.0])
    np.testing.assert_allclose(base.fall_below_largest(heights, SEEN, 2.0, 0.5), [0.5, 0.0, 0.0])
    np.testing.assert_array_equal(base.fall_below_largest(heights, jnp.zeros(3, bool), 2.0, 5.0), np.zeros(3))
    assert np.isfinite(base.fall_below_largest(jnp.array([-3e38, 0.0, 3e38]), SEEN, 1e8, np.inf)).sum() >= 2


def test_if_news_picks_the_state_and_stops_the_gradient():
    old, new = STATE, STATE._replace(log_w=jnp.ones(3))
    np.testing.assert_array_equal(base.if_news(np.array([0, 1, 0]), new, old).log_w, np.ones(3))
    np.testing.assert_array_equal(base.if_news(np.zeros(3), new, old).log_w, np.zeros(3))
    gradient = jax.grad(lambda x: base.if_news(COUNTS, STATE._replace(log_w=x), old).log_w.sum())(jnp.ones(3))
    np.testing.assert_array_equal(gradient, np.zeros(3))


def test_rows_keep_their_weights_where_all_scores_are_zero():
    weights, rows = jnp.array([0.5, 0.3, 0.2]), jnp.array([True, True, False])
    shared = base.share(weights, jnp.full(3, -jnp.inf), rows)
    assert shared.tolist() == weights.tolist()
