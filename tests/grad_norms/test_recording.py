"""What a recording tape notes, and what it adds to the outputs."""

import jax
import jax.numpy as jnp
import numpy as np

from mixjax.grad_norms.recording import Output, RecordingTape, Use
from mixjax.grad_norms.tape import Parameter

KERNEL, BIAS, TABLE = (jnp.ones(shape) for shape in [(3, 2), (2,), (5, 3)])
LEAVES = [
    Parameter(name, index, leaf) for index, (name, leaf) in enumerate(zip("kbt", (KERNEL, BIAS, TABLE), strict=True))
]


def test_uses_are_noted_in_the_order_of_calls():
    tape, (kernel, bias, table), ids = RecordingTape(), LEAVES, jnp.array([[0, 1]])
    x = tape.embed(ids, table)
    y = tape.dense(x, kernel, bias)
    tape.attend(x, table)
    kinds = [(0, "table", 2), (1, "matrix", 0), (1, "rows", 1), (2, "transpose", 2)]
    assert tape.uses == [Use(leaf, kind, operation) for operation, kind, leaf in kinds]
    assert [output.type.shape for output in tape.outputs] == [(1, 2, 3), (1, 2, 2), (1, 2, 5)]
    np.testing.assert_array_equal(tape.factors[0], ids)
    assert tape.factors[1] is x and tape.factors[2] is None and tape.factors[3] is x
    np.testing.assert_array_equal(y, x @ KERNEL + BIAS)


def test_arrays_are_used_without_a_note():
    tape = RecordingTape()
    tape.dense(jnp.ones((1, 3)), KERNEL, LEAVES[1])
    assert tape.uses == [Use(1, "rows", 0)] and len(tape.factors) == 1
    tape.dense(jnp.ones((1, 3)), KERNEL, BIAS)
    assert len(tape.outputs) == 1


def test_constants_are_noted_and_have_no_use():
    tape = RecordingTape()
    assert tape.constant(LEAVES[0]) is KERNEL
    assert tape.constants == {0} and tape.uses == []
    np.testing.assert_array_equal(tape.constant(np.ones(2)), np.ones(2))
    assert tape.constants == {0}


def test_what_is_given_is_added_to_each_output():
    tape = RecordingTape([jnp.full((1, 2), 10.0), jnp.full((1, 2), 20.0)])
    x = jnp.zeros((1, 3))
    assert tape.dense(x, LEAVES[0]).tolist() == [[10.0, 10.0]]
    assert tape.dense(x, KERNEL).tolist() == [[0.0, 0.0]]  # no parameter, no operation on the tape
    assert tape.add(jnp.zeros((1, 2)), LEAVES[1]).tolist() == [[21.0, 21.0]]


def test_outputs_are_noted_with_their_types_and_mesh_axes():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("runs",))
    split, seen = jax.sharding.PartitionSpec("runs"), []

    def own(x):
        tape = RecordingTape()
        tape.dense(x.astype(jnp.bfloat16), Parameter("p", 0, jnp.ones((3, 2), jnp.bfloat16)))
        seen.extend(tape.outputs)
        return x

    jax.eval_shape(jax.shard_map(own, mesh=mesh, in_specs=split, out_specs=split), jnp.ones((4, 3)))
    assert seen == [Output(jax.ShapeDtypeStruct((2, 2), jnp.bfloat16), frozenset({"runs"}))]
