"""Hardness weighted sampling with the history split over eight simulated devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mixjax import samplers
from mixjax.samplers import hardness

KEY = jax.random.key(0)
both_modes = pytest.mark.parametrize("replacement", [True, False])
DEVICES = 8
PER_DEVICE = 5
SHARDED = np.random.default_rng(1).normal(size=DEVICES * PER_DEVICE).astype(np.float32)


SPLIT = P("data")


def on_mesh(function, out_specs, in_spec=SPLIT):
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=(in_spec, P()), out_specs=out_specs, check_vma=False))


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
