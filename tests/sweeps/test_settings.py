"""Sweeps under a user's mesh and under JAX's strict settings give the same numbers."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import mixjax
from mixjax import rules
from mixjax.sweeps import Segments, Sweep, diverged, dry_run


def train(key, hparams, data):
    weights = rules.erma(gamma1=hparams["gamma"]).init(jnp.ones(3) / 3).weights
    return {"x": weights * jax.random.normal(key, (3,), jnp.float32), "sum": data["w"].sum() + hparams["mix"].sum()}


def init(key, hparams, data):
    return {"key": key, "x": jnp.float32(1.0)}


def advance(carry, hparams, data):
    key, own = jax.random.split(carry["key"])
    # With 64 bits the hyperparameters have them too.
    x = carry["x"] * hparams["gamma"].astype(jnp.float32) + jax.random.normal(own, dtype=jnp.float32)
    return {"key": key, "x": x}, {"x": x[None], "sum": (data["w"].sum() + hparams["mix"].sum())[None]}


RUNS = {"function": train, "segments": Segments(init, advance, 2, stop=diverged)}
DATA = {"w": np.ones((8, 2), np.float32)}
# 10 runs in chunks of 8: the last chunk has padding.
ARGUMENTS = {"seeds": 5, "points": {"gamma": [0.5, 0.25], "mix": [[0.5, 0.5], [0.75, 0.25]]}, "chunk": 8}


@pytest.fixture(scope="module")
def expected():
    return {name: mixjax.sweep(run, data=DATA, vectorize="map", **ARGUMENTS) for name, run in RUNS.items()}


def check(found, expected):
    for name in expected.data_vars:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto], ids=str)
@pytest.mark.parametrize("vectorize", ["map", "vmap"])
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("num_devices", [1, 8])
def test_a_users_mesh_makes_no_difference(kind, vectorize, name, num_devices, expected, tmp_path):
    mesh = jax.make_mesh((4, 2), ("data", "runs"), axis_types=(kind, kind))
    with jax.set_mesh(mesh):
        data = {"w": jax.device_put(DATA["w"], NamedSharding(mesh, PartitionSpec("data")))}
        for place in (None, tmp_path):
            devices = jax.devices()[:num_devices]
            found = mixjax.sweep(
                RUNS[name], data=data, vectorize=vectorize, devices=devices, checkpoint=place, **ARGUMENTS
            )
            check(found, expected[name])
        assert jax.sharding.get_abstract_mesh().axis_names == ("data", "runs")
        assert dry_run(Sweep(RUNS[name], data=data, vectorize=vectorize, devices=devices, **ARGUMENTS)).num_runs == 10


@contextlib.contextmanager
def setting(name, value):
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


SETTINGS = {
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_debug_nans": True,
    "jax_enable_x64": True,
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("vectorize", ["map", "vmap"])
@pytest.mark.parametrize("run", RUNS)
def test_strict_settings_make_no_difference(name, vectorize, run, expected, tmp_path):
    arguments = {"data": DATA, "vectorize": vectorize, "tracker": lambda record: None, "checkpoint": tmp_path}
    with setting(name, SETTINGS[name]):
        found = mixjax.sweep(RUNS[run], **arguments, **ARGUMENTS)
        assert mixjax.sweep(RUNS[run], **arguments, **ARGUMENTS).attrs["num_computed"] == 0
    check(found, expected[run])


@pytest.mark.parametrize("generator", ["rbg", "unsafe_rbg"])
@pytest.mark.parametrize("run", RUNS)
def test_keys_that_depend_on_their_batch_are_not_batched(generator, run):
    with setting("jax_default_prng_impl", generator):
        one = {"data": DATA, "devices": jax.devices()[:1]}
        many = mixjax.sweep(RUNS[run], **one, **ARGUMENTS)
        assert many.attrs["vectorize"] == "map"
        alone = mixjax.sweep(RUNS[run], **one, **ARGUMENTS | {"seeds": 1, "first_seed": 3, "chunk": 1})
        np.testing.assert_array_equal(alone.x[:, 0], many.x.sel(seed=3))
        with pytest.raises(ValueError, match=f"vectorize='vmap' with jax_default_prng_impl='{generator}'.*take 'map'"):
            mixjax.sweep(RUNS[run], vectorize="vmap", **one, **ARGUMENTS)
