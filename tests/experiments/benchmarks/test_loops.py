"""Tests that the sides of the comparison take the same steps."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import loops


def test_all_sides_take_the_same_steps():
    x = jnp.arange(6.0).reshape(2, 3)
    network = loops.Network(lambda w, x, y: jnp.square(x @ w[0] - y).mean(), [jnp.ones(3)], x, jnp.zeros(2), steps=2)
    found = {}
    for side, (program, length) in loops.programs(network).items():
        params = jax.tree.map(jnp.copy, network.params)
        for _ in range(2 * loops.UNROLLED // length):
            params = program(params, network.x, network.y)
        found[side] = params
    assert set(found) == set(loops.SIDES)
    called = found.pop(loops.SIDES[0])
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(called, network.params, strict=True))
    for params in found.values():
        for a, b in zip(params, called, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
