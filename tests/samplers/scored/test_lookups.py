"""Tests of look-ups in long arrays: loops and gathers are the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mixjax import samplers
from mixjax.samplers.scored import lookups

FANOUT = 8
LENGTHS = [lookups.LONG // 2, lookups.LONG, lookups.LONG + 3]


def entries(n, pairs):
    return np.random.default_rng(n).normal(size=(n, 2) if pairs else n).astype(np.float32)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("n", LENGTHS)
def test_rows_are_slices(n, pairs):
    x, parents = entries(n, pairs), np.array([0, (n - 1) // FANOUT, 3, (n - 1) // FANOUT - 1, 3])
    found = jax.jit(lookups.rows, static_argnums=2)(x, parents, FANOUT)
    for row, parent in zip(found, parents, strict=True):
        expected = x[parent * FANOUT : (parent + 1) * FANOUT]
        np.testing.assert_array_equal(row[: len(expected)], expected)


@pytest.mark.parametrize("n", LENGTHS)
def test_elements_past_the_end_are_the_last(n):
    x, ids = entries(n, False), np.array([5, n - 1, 0, n, 5, n + 7])
    np.testing.assert_array_equal(jax.jit(lookups.elements)(x, ids), x[np.minimum(ids, n - 1)])


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("n", LENGTHS)
def test_write_past_the_end_writes_nothing(n, pairs):
    x, ids = entries(n, pairs), np.array([5, n - 1, 0, n, n + 7])
    new = entries(len(ids), pairs)
    expected = x.copy()
    expected[ids[:3]] = new[:3]
    np.testing.assert_array_equal(jax.jit(lookups.write)(x, ids, new), expected)


@pytest.mark.parametrize("batched", [(0, None), (None, 0), (0, 0)])
def test_a_vmap_is_a_loop_of_calls(batched):
    n, ids = lookups.LONG + 3, np.arange(12).reshape(3, 4)
    x = np.stack([entries(n, False), entries(n, True)[:, 0], entries(n, True)[:, 1]])
    args = [value if axis == 0 else value[0] for value, axis in zip((x, ids), batched, strict=True)]
    for look in (functools.partial(lookups.rows, fanout=FANOUT), lookups.elements):
        found = jax.jit(jax.vmap(look, batched))(*args)
        for i in range(3):
            one = [value[i] if axis == 0 else value for value, axis in zip(args, batched, strict=True)]
            np.testing.assert_array_equal(found[i], look(*one))


@pytest.mark.parametrize("n", LENGTHS[:2])
def test_gradients_go_to_what_was_looked_up(n):
    ids = np.array([1, 1, 0])
    gradient = jax.jit(jax.grad(lambda x: lookups.elements(x, ids).sum() + lookups.rows(x, ids, FANOUT)[2, 3]))
    np.testing.assert_array_equal(gradient(entries(n, False))[:5], [1, 2, 0, 1, 0])
    # Forwards through a write: the tangent is written as the value is.
    x, new = entries(n, False), entries(3, False)
    _, tangent = jax.jvp(lambda x, new: lookups.write(x, ids[1:], new[1:]), (x, new), (jnp.ones_like(x), 2 * new))
    np.testing.assert_array_equal(tangent[:3], [2 * new[2], 2 * new[1], 1])


@pytest.mark.parametrize("n", LENGTHS[:2])
def test_both_modes_differentiate_through_a_write_where_ids_repeat(n):
    ids = jnp.array([1, 7, 1, n + 3, 0, 7])

    def derivatives(write):
        def loss(x, new):
            return (jnp.arange(12.0) * write(x, ids, new)[:12] ** 2).sum()

        x, new = entries(n, False), entries(6, False)
        backwards = jax.jit(jax.grad(jax.checkpoint(loss), (0, 1)))(x, new)
        return backwards, jax.jvp(loss, (x, new), (x, new))

    by_scatter = derivatives(lambda x, ids, new: x.at[ids].set(new, mode="drop"))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), derivatives(lookups.write), by_scatter)


@pytest.mark.parametrize("n", LENGTHS[:2])
def test_an_empty_batch_finds_and_writes_nothing(n):
    for x in (entries(n, False), entries(n, True)):
        none = jnp.zeros(0, jnp.int32)
        assert lookups.rows(x, none, FANOUT).shape == (0, FANOUT, *x.shape[1:])
        assert lookups.elements(x, none).shape == (0, *x.shape[1:])
        np.testing.assert_array_equal(lookups.write(jnp.asarray(x), none, jnp.zeros((0, *x.shape[1:]))), x)


LOOK_UPS = {
    "rows": lambda x, ids, new: lookups.rows(x, ids, FANOUT),
    "elements": lambda x, ids, new: lookups.elements(x, ids),
    "write": lookups.write,
}


@pytest.mark.parametrize("look_up", LOOK_UPS.values(), ids=LOOK_UPS)
def test_look_ups_outside_of_jit_are_compiled_once(look_up, caplog):
    first, second = [(jnp.full(lookups.LONG, 1.0 * i), jnp.array([7, 7, i]), jnp.ones(3)) for i in range(2)]
    look_up(*first)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        look_up(*second)
    assert "ompil" not in caplog.text


@pytest.mark.parametrize("check_vma", [False, True])
@pytest.mark.parametrize("look_up", LOOK_UPS.values(), ids=LOOK_UPS)
def test_devices_look_up_entries_of_their_own_in_an_array_that_all_hold(look_up, check_vma):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    x, ids, new = jnp.asarray(entries(lookups.LONG, False)), jnp.array([[1, 5], [5, 0]]), jnp.array([[3.0, 4], [5, 6]])

    def on_each(x, ids, new):
        return look_up(x, ids[0], new[0])[None]

    found = jax.jit(
        jax.shard_map(on_each, mesh=mesh, in_specs=(P(), P("d"), P("d")), out_specs=P("d"), check_vma=check_vma)
    )(x, ids, new)
    for i in range(2):
        np.testing.assert_array_equal(found[i], look_up(x, ids[i], new[i]))


@pytest.mark.parametrize("look_up", LOOK_UPS.values(), ids=LOOK_UPS)
def test_only_a_cpu_loops(look_up):
    shapes = [jax.ShapeDtypeStruct((size,), dtype) for size, dtype in ((2**20, "f4"), (64, "i4"), (64, "f4"))]
    loops = {
        platform: "while" in jax.jit(look_up).trace(*shapes).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert loops == {"cpu": True, "cuda": False, "tpu": False}


def test_look_ups_are_not_split_over_threads():
    """XLA notes into how many parts it splits an operation; a gather of a long array it would."""

    def step(x, parents):
        found = jnp.exp(lookups.rows(x, parents, FANOUT)).sum(-1)
        return lookups.write(x, parents, found + lookups.elements(x, parents))

    shapes = jax.ShapeDtypeStruct((2**20,), jnp.float32), jax.ShapeDtypeStruct((64,), jnp.int32)
    assert 'outer_dimension_partitions":["' not in jax.jit(step).lower(*shapes).compile().as_text()


@pytest.mark.parametrize("settings", [{"replacement": False}, {"growing": True, "floor": 0.1}])
def test_a_sampler_is_the_same_by_loops_and_by_gathers(settings, monkeypatch):
    n, batch = 1100, 16

    def run():
        sampler = samplers.proportional(n, **settings)

        def step(state, key):
            indices, weights = sampler.sample(state, key, batch)
            values = jnp.where(indices % 5 == 0, jnp.nan, jnp.abs(jnp.sin(1.0 * indices)))
            return sampler.update(state, indices.at[1].set(n + 2), values), (indices, weights)

        state = sampler.init(np.random.default_rng(0).random(n, np.float32))
        if settings.get("growing"):
            state = sampler.insert(state, jnp.array([3, n - 1]), jnp.array([0.5, 0.7]), jnp.array([0.0, 4.0]))
        return jax.jit(lambda s, k: jax.lax.scan(step, s, k))(state, jax.random.split(jax.random.key(0), 20))

    by_gathers = run()
    monkeypatch.setattr(lookups, "LONG", 0)
    by_loops = run()
    jax.tree.map(np.testing.assert_array_equal, by_gathers, by_loops)
