"""The host's state: it is the JAX sampler's, it is copied, and what it is computed from agrees with JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.checks import as_simplex
from mixjax.samplers import HostSampler, hardness
from mixjax.samplers.scored.host_history import finite_or_zero, log_simplex
from tests.samplers.scored.host_cases import LOSSES, PRIOR, N, assert_states_agree, twins


def test_state_goes_both_ways():
    sampler, _, host = twins(N, 1.0, 1.0, prior=PRIOR, floor=0.1, replacement=False)
    state = jax.jit(sampler.init)(2.0, jax.random.key(1))  # with noise
    host.state = state
    jax.tree.map(np.testing.assert_array_equal, host.state, state)
    host.update(np.arange(20), LOSSES[:20])
    back = jax.device_put(host.state)
    indices, weights = jax.jit(sampler.sample, static_argnums=2)(back, jax.random.key(4), 16)
    np.testing.assert_array_equal(host.sample(4, 16)[0], indices)
    np.testing.assert_allclose(host.sample(4, 16)[1], weights, rtol=1e-4)
    assert_states_agree(host.state, jax.jit(sampler.rebuild)(back))
    with pytest.raises(ValueError, match="state must have the shapes"):
        host.state = hardness(N + 1, 1.0).init(1.0)
    with pytest.raises(ValueError, match="state must have the shapes"):
        host.state = hardness(N, 1.0).init(1.0)  # no prior


def test_state_and_values_are_safe():
    host = HostSampler(N, LOSSES, beta=1.0)
    host.state.values[:] = 0.0
    np.testing.assert_array_equal(host.values, LOSSES)
    with pytest.raises(ValueError, match="read-only"):
        host.values[0] = 1.0
    host.sample(0, 4)
    host.update([0], [7.0])
    assert LOSSES[0] != 7.0


def test_rebuild_after_a_change_of_beta():
    host, wanted = HostSampler(N, LOSSES, beta=1.0), HostSampler(N, LOSSES, beta=3.0)
    host.beta = 3.0
    host.rebuild()
    jax.tree.map(np.testing.assert_array_equal, host.state, wanted.state)


@pytest.mark.parametrize("prior", [[1.0, 3.0], [0.0, 2.0, 1e-30], [1e30, 1e30, 1e-8]])
def test_a_prior_is_normalised_as_in_jax(prior):
    with np.errstate(divide="ignore"):
        ours, theirs = log_simplex(prior), np.log(as_simplex("prior", prior))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert ours.dtype == np.float32


def test_a_log_of_minus_infinity_becomes_zero():
    assert finite_or_zero(np.float32([-np.inf, -1.0, 3.0])).tolist() == [0.0, -1.0, 3.0]


def test_an_update_can_be_undone():
    """Weights of kind "tree" look at the state after an update, and leave it as it was."""
    host = HostSampler(N, LOSSES, beta=1.0, prior=PRIOR, floor=0.1)
    before = jax.tree.map(np.copy, host.state)
    undo = host._store(np.array([3, 200, 3]), np.float32([1.0, 2.0, 5.0]), np.array([True, True, True]))
    assert host.values[3] == 3.0 and host.values[200] == 2.0
    for array, positions, old in undo:
        array[positions] = old
    jax.tree.map(np.testing.assert_array_equal, host.state, before)


def test_log_masses_of_children_are_those_of_jax():
    sampler, state, host = twins(N, 1.5, jnp.asarray(LOSSES), floor=0.2)
    rows = np.arange(-(-N // host.fanout))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        logs = host._log_masses(host._root(), 0, rows).reshape(-1)[:N]
    np.testing.assert_allclose(logs, sampler.log_probs(state), rtol=1e-5, atol=1e-5)
