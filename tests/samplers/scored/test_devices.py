"""What devices tell a sampler, alone and on a mesh; hardness sampling with the history split over eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mixjax import samplers
from mixjax.samplers import hardness
from mixjax.samplers.scored import devices, levels, tree

KEY = jax.random.key(0)
both_modes = pytest.mark.parametrize("replacement", [True, False])
DEVICES = 8
PER_DEVICE = 5
SHARDED = np.random.default_rng(1).normal(size=DEVICES * PER_DEVICE).astype(np.float32)


SPLIT = P("data")


def on_mesh(function, out_specs, in_spec=SPLIT):
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=(in_spec, P()), out_specs=out_specs, check_vma=True))


@pytest.mark.slow
@pytest.mark.parametrize(("replacement", "floor"), [(True, None), (False, None), (False, 0.25)])
def test_sharded_over_eight_devices(replacement, floor):
    n, runs = DEVICES * PER_DEVICE, 20_000
    own = hardness(PER_DEVICE, 1.0, replacement=replacement, floor=floor, axis_name="data")
    whole = hardness(n, 1.0, replacement=replacement, floor=floor)
    fresh = jnp.linspace(-1.0, 1.0, 8)

    def run(losses, keys):
        state = own.init(losses)
        indices, weights = jax.vmap(lambda key: own.sample(state, key, 8))(keys)
        importance = own.importance_weights(state, indices[0], fresh, "tree")
        state = own.update(state, indices[0], fresh)
        return indices, weights, importance, state.values, own.log_probs(state)

    out = on_mesh(run, (P(), P(), P(), P("data"), P("data")))(SHARDED, jax.random.split(KEY, runs))
    indices, weights, importance, values, log_probs = map(np.asarray, out)
    state = whole.init(SHARDED)
    p = np.exp(np.float64(whole.log_probs(state)))
    z = (np.bincount(indices[:, 0], minlength=n) - runs * p) / np.sqrt(runs * p * (1 - p))
    assert np.abs(z).max() < 4.5
    if replacement:
        np.testing.assert_allclose(weights, (1 / n / p)[indices], rtol=1e-4)
    else:
        assert all(len(set(row)) == 8 for row in indices[:500])
    estimates = (weights * SHARDED[indices]).mean(1)
    assert abs(estimates.mean() - SHARDED.mean()) < 4.5 * estimates.std() / runs**0.5
    np.testing.assert_allclose(
        importance, whole.importance_weights(state, indices[0], fresh, "tree"), rtol=1e-4, atol=1e-6
    )
    state = whole.update(state, indices[0], fresh)
    np.testing.assert_allclose(values, state.values, rtol=1e-6)
    np.testing.assert_allclose(log_probs, whole.log_probs(state), rtol=1e-4, atol=1e-5)


@both_modes
def test_a_sharded_draw_needs_one_collective(replacement):
    own = hardness(PER_DEVICE, 1.0, replacement=replacement, axis_name="data")

    split = samplers.SamplerState(P("data"), P("data"), P(), P())
    state = on_mesh(lambda losses, key: own.init(losses), split)(SHARDED, KEY)
    text = on_mesh(lambda *args: own.sample(*args, 8), P(), split).lower(state, KEY).compile().as_text()
    assert text.count(" all-gather(") + text.count(" all-reduce(") == 1


def test_a_batch_larger_than_a_shard_but_not_than_the_whole():
    own = hardness(PER_DEVICE, 1.0, replacement=False, axis_name="data")
    indices, _ = on_mesh(lambda losses, key: own.sample(own.init(losses), key, 40), P())(SHARDED, KEY)
    assert sorted(indices.tolist()) == list(range(40))
    with pytest.raises(ValueError, match=r"batch_size must be in \[1, 40\]"):
        on_mesh(lambda losses, key: own.sample(own.init(losses), key, 41), P())(SHARDED, KEY)


@both_modes
def test_a_device_whose_examples_all_have_no_prior_is_left_out(replacement):
    """Its losses are higher than any that count, and beta has no end."""

    def run(losses_and_prior, key):
        losses, prior = losses_and_prior
        own = hardness(PER_DEVICE, jnp.inf, prior=prior, replacement=replacement, axis_name="data")
        return own.sample(own.init(losses), key, 4)

    prior = np.repeat(np.float32([0, 1]), [PER_DEVICE, (DEVICES - 1) * PER_DEVICE])
    losses = np.where(prior > 0, -4e8, 0.0).astype(np.float32)
    indices, weights = on_mesh(run, (P(), P()))((losses, prior), KEY)
    assert (np.asarray(indices) >= PER_DEVICE).all() and np.isfinite(weights).all()


HEAT = jnp.float32(1.0)


def test_one_device_has_nothing_to_ask():
    alone, own = devices.OneDevice(PER_DEVICE), levels.Nodes(jnp.float32(2.0), jnp.float32(-1.0))
    values = jnp.arange(3.0)
    assert alone.num_examples() == PER_DEVICE and alone.offset() == 0
    assert alone.own_key(KEY) is KEY and alone.largest(values) is values and alone.sum_of(values) is values
    assert alone.total_mass(own) is own
    np.testing.assert_allclose(alone.prior_shares([1.0, 3.0]), [0.25, 0.75], rtol=1e-6)


def test_devices_count_order_and_add_up():
    def ask(losses, key):
        axis = devices.OnMesh(PER_DEVICE, HEAT, "data")
        own = tree.combine(levels.Nodes(losses, jnp.zeros_like(losses)), HEAT)
        total = axis.total_mass(own)
        numbers = axis.num_examples(), axis.largest(losses.max()), axis.sum_of(losses.sum()), total.top + total.log
        return numbers, (jnp.full(1, axis.offset()), jax.random.key_data(axis.own_key(key))[None])

    numbers, (offsets, keys) = on_mesh(ask, (P(), P("data")))(SHARDED, KEY)
    assert offsets.tolist() == list(range(0, DEVICES * PER_DEVICE, PER_DEVICE))
    assert len({tuple(key) for key in keys.tolist()}) == DEVICES
    expected = SHARDED.size, SHARDED.max(), SHARDED.sum(), np.logaddexp.reduce(SHARDED)
    np.testing.assert_allclose(numbers, expected, rtol=1e-5)


@pytest.mark.parametrize("relative", [True, False])
def test_winners_have_global_ids_and_one_unit(relative):
    """Two devices of one example each: their log-masses come back relative to the sum of both."""
    losses = np.float32([1.0, 3.0])

    def settle(losses, key):
        axis = devices.OnMesh(1, HEAT, "data")
        own = levels.Nodes(losses[0], jnp.float32(0.0))
        logs = jnp.zeros(1) if relative else losses - jnp.float32(np.logaddexp.reduce([1.0, 3.0]))
        candidates = devices.Candidates(jnp.zeros(1, jnp.int32), logs, -jnp.log(2.0)[None], logs)
        return axis.settle_distinct(candidates, own if relative else None)

    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    run = jax.shard_map(settle, mesh=mesh, in_specs=(SPLIT, P()), out_specs=P(), check_vma=False)
    winners = jax.jit(run)(losses, KEY)
    assert winners.ids.tolist() == [1]
    np.testing.assert_allclose(np.exp(winners.log_masses), 1 / (1 + np.exp(-2.0)), rtol=1e-5)


def test_more_examples_than_int32_counts_are_refused():
    with pytest.raises(ValueError, match="at most 2\\^31 - 1 examples, got 2147483648"):
        devices.OneDevice(2**31).num_examples()


def test_the_axis_decides():
    assert type(devices.devices_of(3, HEAT, None)) is devices.OneDevice
    assert type(devices.devices_of(3, HEAT, "data")) is devices.OnMesh
