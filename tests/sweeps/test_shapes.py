"""Shapes as a key."""

import jax
import jax.numpy as jnp
import numpy as np

from mixjax.sweeps.shapes import Shapes


def test_equal_where_structure_shapes_and_dtypes_are():
    one = Shapes({"x": jnp.zeros((2, 3)), "y": None})
    assert one == Shapes({"x": np.ones((2, 3), np.float32), "y": None}) and hash(one) == hash(Shapes(one.tree))
    for other in ({"x": jnp.zeros((3, 2)), "y": None}, {"x": jnp.zeros((2, 3), int), "y": None}, [jnp.zeros((2, 3))]):
        assert one != Shapes(other)
    assert one != "shapes"


def test_keys_have_a_type_of_their_own():
    assert Shapes(jax.random.key(0)) == Shapes(jax.random.key(1)) != Shapes(jax.random.key(0, impl="rbg"))
