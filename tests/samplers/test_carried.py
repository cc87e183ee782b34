"""Tests counts that carry over, in JAX: equal to NumPy's to the bit, under every transformation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mixjax.samplers import carry, start_carry
from mixjax.samplers.host_carried import carry_counts, fixed_point


def moving(num_domains, num_steps, seed=0):
    rng = np.random.default_rng(seed)
    concentration = rng.choice([0.05, 1.0, 50.0], num_steps)
    drawn = [rng.dirichlet(np.full(num_domains, a)) for a in concentration]
    return np.array(drawn, np.float32)


def of_host(weights, batch_size):
    owed, counts = np.zeros(weights.shape[1], np.int64), []
    for q in weights:
        now, owed = carry_counts(owed, fixed_point(q, batch_size), batch_size)
        counts.append(now)
    return np.array(counts), owed


def scanned(weights, batch_size):
    def step(state, q):
        counts, state = carry(state, q, batch_size)
        return state, counts

    return jax.lax.scan(step, start_carry(weights.shape[1]), weights)


def as_integers(state):
    return (np.asarray(state.whole, np.int64) << 32) + np.asarray(state.part, np.int64)


@pytest.mark.parametrize(
    ("num_domains", "batch_size"),
    [(1, 5), (2, 1), (3, 1), (7, 100), (200, 1), (200, 4096), (2000, 256), (5, 2**24 - 1)],
)
def test_equals_numpy_to_the_bit(num_domains, batch_size):
    weights = moving(num_domains, 60)
    state, counts = jax.jit(scanned, static_argnums=1)(weights, batch_size)
    want, owed = of_host(weights, batch_size)
    np.testing.assert_array_equal(counts, want)
    np.testing.assert_array_equal(as_integers(state), owed)


def test_eager_and_vmap_equal_scan():
    weights = np.stack([moving(5, 8, seed) for seed in range(3)])
    _, batched = jax.vmap(lambda w: scanned(w, 3))(weights)
    for run, want in zip(weights, batched, strict=True):
        state = start_carry(5)
        for q, counts in zip(run, want, strict=True):
            got, state = carry(state, q, 3)
            np.testing.assert_array_equal(got, counts)


@pytest.mark.parametrize("check_vma", [True, False])
def test_each_device_has_its_own_weights_under_shard_map(check_vma):
    mesh, weights = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,)), moving(5, 4)
    state = start_carry(5)

    def local(q):
        return carry(state, q[0], 6)[0][None]

    got = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=P("d"), out_specs=P("d"), check_vma=check_vma))(weights)
    np.testing.assert_array_equal(got, jax.vmap(lambda q: carry(state, q, 6)[0])(weights))


def test_weights_may_be_sharded_over_an_explicit_mesh():
    mesh, q = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Explicit,)), moving(8, 1)[0]
    want, _ = carry(start_carry(8), q, 6)
    with jax.set_mesh(mesh):
        got, _ = jax.jit(carry, static_argnums=2)(start_carry(8), jax.device_put(q, P("d")), 6)
    np.testing.assert_array_equal(got, want)


def test_a_domain_that_is_owed_rows_keeps_them_over_other_weights():
    state = start_carry(3)
    _, state = carry(state, jnp.array([0.4, 0.3, 0.3]), 1)
    counts, state = carry(state, jnp.array([1.0, 0.0, 0.0]), 1)
    np.testing.assert_array_equal(counts, [1, 0, 0])
    np.testing.assert_allclose(as_integers(state) / 2**32, [-0.6, 0.3, 0.3], atol=1e-6)


NUM_ATTACKS = 300


@functools.partial(jax.jit, static_argnums=(0, 1))
def attacked(num_domains, batch_size, ahead, key):
    """Lets weights follow what is owed: all of it goes to those owed most, who are fewer in each batch.

    With probability ``ahead`` it goes to as many of those owed least.
    """
    most = min(num_domains, NUM_ATTACKS * batch_size)

    def in_rows(state):
        return state.whole.astype(jnp.float32) + state.part.astype(jnp.float32) / 2.0**32

    def step(state, inputs):
        number, key = inputs
        owed = in_rows(state)
        judged = jnp.where(jax.random.bernoulli(key, ahead), -owed, owed)
        rank = jnp.argsort(jnp.argsort(-judged))
        chosen = rank < most - (number * batch_size) % most
        counts, state = carry(state, chosen / chosen.sum(), batch_size)
        return state, (in_rows(state), counts)

    inputs = jnp.arange(NUM_ATTACKS), jax.random.split(key, NUM_ATTACKS)
    return jax.lax.scan(step, start_carry(num_domains), inputs)


@pytest.mark.parametrize(("num_domains", "batch_size"), [(7, 2), (200, 1), (2000, 1)])
def test_no_weights_that_follow_what_is_owed_break_the_bound(num_domains, batch_size):
    ahead, keys = jnp.array([0.0, 0.1, 1.0]), jax.random.split(jax.random.key(0), 3)
    state, (owed, counts) = jax.vmap(attacked, (None, None, 0, 0))(num_domains, batch_size, ahead, keys)
    assert (as_integers(state).sum(axis=1) == 0).all()
    assert (counts.sum(axis=-1) == batch_size).all() and counts.min() >= 0
    bound = np.sum(1.0 / np.arange(2, num_domains + 1))
    assert owed.min() > -1.0 and owed.max() <= bound + 1e-5
    # Attacks that come nowhere near the bound would show nothing.
    assert owed.max() > 0.6 * bound


def test_bad_arguments_are_named():
    state = start_carry(2)
    with pytest.raises(ValueError, match="sum to 1"):
        carry(state, jnp.array([0.5, 0.1]), 4)
    with pytest.raises(ValueError, match=r"weights must be \[2\]"):
        carry(state, jnp.ones(3) / 3, 4)
    with pytest.raises(ValueError, match="batch_size must be in"):
        jax.jit(carry, static_argnums=2)(state, jnp.array([0.5, 0.5]), 0)
    with pytest.raises(ValueError, match="num_domains must be in"):
        start_carry(2**16 + 1)
