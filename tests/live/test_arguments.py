"""Tests the checks of a plan's arguments by themselves; ``test_plan.py`` has the errors as a user meets them."""

import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.live import Feedback, Ledger, Plan
from mixjax.live.arguments import as_step, check_host, check_integer, check_timeout, limits_of, named_sizes
from mixjax.live.limits import NO_LIMIT


def test_domains_of_a_sequence_are_called_by_their_numbers():
    assert named_sizes([3, np.int64(5)]) == {"0": 3, "1": 5}
    with pytest.raises(TypeError, match="sizes must name the domains by texts, got 3"):
        named_sizes({3: 5})


def test_limits_are_whole_rows_or_none():
    np.testing.assert_array_equal(limits_of(np.array([10, 3]), 1.5), [15, 4])
    np.testing.assert_array_equal(limits_of(np.array([10, 3]), [np.inf, 2]), [NO_LIMIT, 6])
    np.testing.assert_array_equal(limits_of(np.array([10]), None), [NO_LIMIT])


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 0, np.float32(2)])
def test_what_is_no_integer_of_the_range_is_refused(value):
    with pytest.raises(ValueError, match=r"lag must be an integer of at least 1, got "):
        check_integer("lag", value, 1)
    with pytest.raises(ValueError, match=r"seed must be an integer from 1 to 9, got "):
        check_integer("seed", value, 1, 9)


def test_integers_of_the_range_pass():
    check_integer("lag", np.int64(10**6), 1)
    check_integer("seed", 9, 1, 9)
    check_host((1, 3), 12)
    check_timeout(0)


def test_a_step_is_one_integer():
    for step in (3, np.int64(3), np.array(3, np.int32), jnp.int32(3)):
        assert as_step(step) == 3 and type(as_step(step)) is int
    for step in (3.0, "3", None, np.array([3, 4]), jnp.ones(2), {"step": 3}):
        with pytest.raises(TypeError, match=r"step must be one integer, as batch\['step'\] is, got "):
            as_step(step)


@pytest.mark.parametrize("dataset", [np.ones((3, 2)), [1, 2], {"x": np.ones(3)}])
def test_data_sets_are_no_sizes(dataset):
    with pytest.raises(TypeError, match=r"as live.sizes_of\(datasets\) returns them, got a [a-z]* for domain 'a'"):
        named_sizes({"a": dataset})


def test_calls_with_swapped_arguments_are_named():
    plan = Plan([4, 4], 2, [0.5, 0.5])
    with pytest.raises(TypeError, match="step must be one integer"):
        Feedback(plan).send(np.ones(2), 0)
    with pytest.raises(TypeError, match="step must be one integer"):
        plan.keep(np.array([0, 1]))
    for take in (Feedback, lambda other: Ledger("unused", other)):
        with pytest.raises(TypeError, match=r"plan must be a mixjax\.live\.Plan, got dict"):
            take({"a": 3})
