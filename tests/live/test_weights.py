"""Tests when weights come into force, and that the schedule forgets what no step needs."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.live.weights import Schedule, as_weights


def test_weights_are_in_force_lag_steps_after_their_publication():
    schedule = Schedule(2, [1.0, 1.0], None, 2)
    schedule.publish(0, [1.0, 3.0], [0.0, 1.0])
    schedule.keep(1)
    schedule.publish(2, [3.0, 1.0], None)
    assert [schedule.knows(step) for step in (4, 5)] == [True, False]
    first = [schedule.in_force(step)[0][0] for step in (2, 3, 4)]
    np.testing.assert_allclose(first, [0.25, 0.25, 0.75])
    np.testing.assert_array_equal(schedule.in_force(3)[1], [0.0, 1.0])
    assert schedule.in_force(4)[1] is None


def test_only_changes_that_may_still_be_needed_are_kept():
    schedule = Schedule(2, [1.0, 1.0], None, 3)
    for step in range(50):
        schedule.publish(step, [1.0, step + 1.0], None)
        schedule.forget_before(step + 1)
    state = json.loads(json.dumps(schedule.get_state()))
    assert len(state["changes"]) <= 5
    other = Schedule(2, [1.0, 1.0], None, 3)
    other.set_state(state)
    for step in range(50, 53):
        np.testing.assert_array_equal(other.in_force(step)[0], schedule.in_force(step)[0])


def test_weights_are_normalised_whatever_their_scale():
    for scale in (1e-300, 1.0, 1e300):
        np.testing.assert_allclose(as_weights("weights", np.array([1.0, 3.0]) * scale, 2), [0.25, 0.75])
    with pytest.raises(ValueError, match="weights must be finite"):
        as_weights("weights", [np.inf, 1.0], 2)


@pytest.mark.parametrize(
    "values", [["1", "2"], [1.0, 2.0j], [[1.0], [1.0, 2.0]], [None, 1.0], {"a": 1.0}, "ab", object()]
)
def test_what_is_no_number_is_refused(values):
    with pytest.raises(ValueError, match=r"weights must be (\[2\], one number per domain|finite)"):
        as_weights("weights", values, 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8", "uint32", "bool"])
def test_weights_of_any_type_of_number_are_taken(dtype):
    np.testing.assert_array_equal(as_weights("weights", jnp.array([1, 0, 1]).astype(dtype), 3), [0.5, 0.0, 0.5])


def test_saved_weights_are_those_in_force_to_the_bit_and_short():
    rng = np.random.default_rng(0)
    for scale in (1.0, 1e-3, 1e-15, 1e-38, 1e-44):
        weights = np.append(rng.dirichlet(np.full(500, 0.02)) * scale, 1.0)
        schedule = Schedule(501, weights, None, 1)
        text = json.dumps(schedule.get_state())
        other = Schedule(501, np.ones(501), None, 1)
        other.set_state(json.loads(text))
        np.testing.assert_array_equal(other.in_force(0)[0], schedule.in_force(0)[0])
        if scale > 1e-4:
            assert len(text) < 18 * 501
