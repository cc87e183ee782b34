"""From a function of one run to programs of all slots, and the shapes that they are kept by."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.sweeps import Segments, devices
from mixjax.sweeps.keys import KeyWords
from mixjax.sweeps.lowering import Shapes, compiled
from tests.sweeps.test_loop import named
from tests.sweeps.test_programs import program_of


def test_a_switch_over_labels_stays_a_switch_under_vmap():
    shared = program_of(named, 4, numbers={"scale": jnp.float32}, labels=["rule"])
    assert shared._lowered.programs[0].as_text().count("stablehlo.case") == 1
    batched = program_of(named, 4, numbers={"scale": jnp.float32, "rule": jnp.int32})  # every branch would run
    assert batched._lowered.programs[0].as_text().count("stablehlo.case") == 0


def test_settings_of_jax_make_another_program():
    def train(key, hparams, data):
        return {"x": jax.random.normal(key)}

    one = program_of(train, 2)
    with jax.default_prng_impl("rbg"):
        other = program_of(train, 2)
    assert one._lowered is not other._lowered and one.fingerprint != other.fingerprint
    assert program_of(train, 2)._lowered is one._lowered


def test_each_program_is_compiled_once():
    (program,) = program_of(lambda key, hparams, data: {"x": jax.random.normal(key)}, 2)._lowered.programs
    assert compiled(program) is compiled(program)


@pytest.mark.parametrize("vectorize", ["map", "vmap"])
def test_segments_have_two_programs_and_a_carry_of_words(vectorize):
    cut = Segments(lambda key, hparams, data: (key, 0), lambda carry, hparams, data: (carry, {"x": jnp.ones(1)}), 3)
    program = program_of(cut, 2, vectorize=vectorize)
    assert len(program._lowered.programs) == 2
    carry = program._lowered.carry.unflatten(["words", "step"])
    assert isinstance(carry[0], KeyWords) and carry == (KeyWords("words", carry[0].generator), "step")


def test_padding_is_not_computed():
    def train(key, hparams, data):
        return {"x": jnp.float32(1.0)}

    text = program_of(train, 4, vectorize="map")._lowered.programs[0].as_text()
    assert text.count("stablehlo.case") == 1 and "stablehlo.while" in text


def test_equal_where_structure_shapes_and_dtypes_are():
    one = Shapes({"x": jnp.zeros((2, 3)), "y": None})
    assert one == Shapes({"x": np.ones((2, 3), np.float32), "y": None}) and hash(one) == hash(Shapes(one.tree))
    for other in ({"x": jnp.zeros((3, 2)), "y": None}, {"x": jnp.zeros((2, 3), int), "y": None}, [jnp.zeros((2, 3))]):
        assert one != Shapes(other)
    assert one != "shapes"


def test_keys_have_a_type_of_their_own():
    assert Shapes(jax.random.key(0)) == Shapes(jax.random.key(1)) != Shapes(jax.random.key(0, impl="rbg"))


def test_a_loop_is_not_cut_into_tasks_where_each_core_has_a_device_and_results_stay_the_same(monkeypatch):
    def train(key, hparams, data):
        return {"x": jnp.sin(jax.random.normal(key, (64, 1024)))}

    texts, results = [], []
    # more cores than the suite has devices; then as many
    for cores in (1 + len(jax.devices()), len(jax.devices())):
        monkeypatch.setattr(devices, "_cores", lambda cores=cores: cores)

        # a function of its own each time: programs are kept by function
        def run(key, hparams, data):
            return train(key, hparams, data)

        program = program_of(run, len(jax.devices()), devices=jax.devices())
        texts.append(compiled(program._lowered.programs[0]).as_text())
        results.append(mixjax.sweep(run, seeds=len(jax.devices()), vectorize="vmap").x.values)
    assert 'outer_dimension_partitions":["' not in texts[1]
    np.testing.assert_array_equal(*results)
    # XLA counts the cores itself, and one core has no tasks
    if devices._cores() > 1 and len(os.sched_getaffinity(0)) > 1:
        assert 'outer_dimension_partitions":["' in texts[0]
