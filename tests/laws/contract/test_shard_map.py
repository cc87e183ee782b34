"""Tests every rule where each device has signals of its own, and where the domains are spread over devices."""

import functools

import chex
import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mixjax import rules
from tests.laws.contract.cases import CASES, PRIOR, draw_signals, every_case, jitted, stack

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_DEVICES = 2
WIDE_ROWS = (0, 1, 2, 0)
WIDE_PRIOR = np.float32([0.4, 0.3, 0.2, 0.1])


def assert_close(got, want):
    chex.assert_trees_all_close(jax.tree.map(np.asarray, got), jax.tree.map(np.asarray, want), rtol=2e-5, atol=1e-6)


def update_on_each_device(update, state, signals, check_vma=True):
    """Updates a state that all devices share, with the signals ``[device, D]`` of each; returns the states stacked."""
    mesh = jax.make_mesh((NUM_DEVICES,), ("d",), axis_types=(AxisType.Auto,))

    def local(state, signals):
        new = update(state, **jax.tree.map(lambda x: x[0], signals))
        return jax.tree.map(lambda x: x[None], new)

    mapped = jax.shard_map(local, mesh=mesh, in_specs=(P(), P("d")), out_specs=P("d"), check_vma=check_vma)
    return jax.jit(mapped)(state, signals)


@every_case
@pytest.mark.parametrize("check_vma", [True, False])
def test_one_state_meets_the_signals_of_each_device(name, check_vma):
    rule, signals = jitted(name), [draw_signals(seed) for seed in range(NUM_DEVICES)]
    signals[1]["counts"][1] = 0
    state = rule.init(PRIOR)
    new = update_on_each_device(rule.update, state, stack(signals), check_vma)
    assert_close(new, stack([rule.update(state, **row) for row in signals]))


def test_the_index_of_select_may_differ_between_devices():
    choices = [rules.fixed(), rules.fgls()]
    signals = [draw_signals(seed) for seed in range(NUM_DEVICES)]

    def update(state, *, index, **signals):
        return rules.select(choices, index).update(state, **signals)

    state = rules.select(choices, 0).init(PRIOR)
    index = np.array([0, 1], np.int32)
    new = update_on_each_device(update, state, {"index": index} | stack(signals))
    assert_close(new, stack([update(state, index=i, **row) for i, row in zip(index, signals, strict=True)]))


@every_case
def test_domains_may_be_spread_over_the_devices_of_an_explicit_mesh(name):
    rule = jitted(name, WIDE_ROWS)
    steps, want = [draw_signals(seed, size=4) for seed in range(2)], rule.init(WIDE_PRIOR)
    for signals in steps:
        want = rule.update(want, **signals)
    mesh = jax.make_mesh((NUM_DEVICES,), ("d",), axis_types=(AxisType.Explicit,))

    def by_domain(x):
        return jax.device_put(x, NamedSharding(mesh, P("d") if np.ndim(x) else P()))

    with jax.set_mesh(mesh):
        fresh = CASES[name].make(np.array(WIDE_ROWS)).init(WIDE_PRIOR)
        for first in (fresh, jax.tree.map(by_domain, fresh)):
            state = first
            for signals in steps:
                state = rule.update(state, **jax.tree.map(by_domain, signals))
            assert_close(state, want)
            for leaf, before in zip(jax.tree.leaves(state), jax.tree.leaves(first), strict=True):
                assert leaf.sharding.is_equivalent_to(before.sharding, leaf.ndim)


@functools.cache
def large_problem():
    rng = np.random.default_rng(0)
    return rng.exponential(size=64).astype(np.float32), rng.dirichlet(np.ones(64)).astype(np.float32)


@pytest.mark.parametrize("divergence", ["kl", "chi2", "cvar"])
def test_robust_weights_of_losses_spread_over_devices(divergence):
    losses, prior = large_problem()
    want = rules.robust_weights(losses, prior, 3.0, divergence)
    mesh = jax.make_mesh((NUM_DEVICES,), ("d",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        spread = [jax.device_put(x, NamedSharding(mesh, P("d"))) for x in (losses, prior)]
        got = jax.jit(lambda x, p: rules.robust_weights(x, p, 3.0, divergence))(*spread)
        value, slopes = jax.jit(jax.value_and_grad(lambda x, p: rules.robust_loss(x, p, 3.0, divergence)))(*spread)
    assert_close((got, slopes), (want, want))
    np.testing.assert_allclose(value, rules.robust_loss(losses, prior, 3.0, divergence), rtol=1e-5)
