"""Example samplers in other people's programs: donated, on meshes, with narrow indices, and where no NaN may occur."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mixjax.samplers import hardest, hardness, proportional, when_it_pays, with_ages
from tests.samplers.scored.cases import KEY

pytestmark = pytest.mark.usefixtures("quick_compilation")

N, BATCH = 24, 4
PRIOR = np.where(np.arange(N) % 5 == 0, 0.0, 1.0).astype(np.float32)
MAKERS = {
    "hardness": lambda n=N: hardness(n, 2.0),
    "with prior and floor": lambda n=N: hardness(n, 2.0, prior=jnp.asarray(PRIOR), floor=0.2, decay=0.5),
    "without replacement": lambda n=N: proportional(n, replacement=False),
    "with ages": lambda n=N: with_ages(hardness(n, 2.0)),
    "when it pays": lambda n=N: when_it_pays(proportional(n, floor=0.1)),
}
every_sampler = pytest.mark.parametrize("name", MAKERS)


def steps(sampler):
    """Everything a training step asks of a sampler, as one program."""

    def step(state, key, indices, values):
        drawn = sampler.sample(state, key, BATCH)
        weights = [sampler.importance_weights(state, indices, values, kind) for kind in ("clipped", "tree")]
        state = sampler.update(state, indices, values)
        return state, (drawn, weights, sampler.log_probs(state, indices), hardest(state.values, 2))

    return step


@every_sampler
def test_a_fresh_state_can_be_donated_and_the_callers_arrays_stay(name):
    values, indices, new = jnp.arange(float(N)), jnp.arange(BATCH), jnp.ones(BATCH)
    prior = jnp.asarray(PRIOR)
    sampler = hardness(N, 2.0, prior=prior) if name == "with prior and floor" else MAKERS[name]()
    update = jax.jit(sampler.update, donate_argnums=0)
    state = update(update(sampler.init(values), indices, new), indices, new)
    assert np.isfinite(state.values).all() and values[3] == 3.0 and prior[1] == 1.0


@every_sampler
def test_a_mesh_with_explicit_axes_changes_nothing(name):
    """State, indices and losses are sharded; the mesh is that of jax.make_mesh."""
    values, indices, new = np.arange(float(N)), np.arange(BATCH) * 5, np.arange(1.0, BATCH + 1)
    sampler = MAKERS[name]()
    want = jax.jit(steps(sampler))(sampler.init(values), KEY, indices, new)
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:2])
    with jax.set_mesh(mesh):
        sampler, split = MAKERS[name](), NamedSharding(mesh, P("d"))
        values, indices, new = (jax.device_put(jnp.asarray(x), split) for x in (values, indices, new))
        state = sampler.init(values)
        assert jax.typeof(state.values).sharding.spec == P("d")
        got = jax.jit(steps(sampler))(state, KEY, indices, new)
        assert jax.typeof(got[0].values).sharding.spec == P("d")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


@pytest.mark.parametrize("name", ["hardness", "with ages"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16])
def test_narrow_indices_do_not_wrap(name, dtype):
    n = 256 + 32
    sampler, indices = MAKERS[name](n), np.array([1, 127, 5, 0], dtype)
    update = jax.jit(sampler.update)
    want = update(sampler.init(1.0), indices.astype(np.int32), np.arange(4.0))
    jax.tree.map(np.testing.assert_array_equal, update(sampler.init(1.0), indices, np.arange(4.0)), want)
    assert int((np.asarray(want.values) != 1.0).sum()) == 3  # one of the new values is 1
    with pytest.raises(TypeError, match="indices must be integers, got float"):
        sampler.update(sampler.init(1.0), np.array([0.5]), np.ones(1))


@every_sampler
@pytest.mark.parametrize("values", [np.zeros(N), np.arange(float(N))])
def test_no_nan_occurs(name, values):
    """Scores and priors of zero, an index that nobody has, and a value that repeats an old one."""
    sampler, indices = MAKERS[name](), np.array([0, 5, 999, -1])
    with jax.debug_nans(True):
        jax.jit(steps(sampler))(sampler.init(values), KEY, indices, np.array([0.0, 0.0, 1.0, 2.0]))


@every_sampler
def test_keys_of_another_kind_draw_too(name):
    sampler = MAKERS[name]()
    for kind in ("rbg", "unsafe_rbg"):
        indices, weights = sampler.sample(sampler.init(1.0), jax.random.key(1, impl=kind), BATCH)
        assert indices.shape == weights.shape == (BATCH,) and (np.asarray(indices) < N).all()
