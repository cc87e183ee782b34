"""Gradients whose squares do not fit their type."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.grad_norms.models import ONES, compiled, direct, measured, slope_losses

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("scale", [1e-25, 1e30])
def test_ghost_norms_are_scaled(scale):
    def losses_fn(tape, params, batch):
        h = tape.embed(batch, params["table"]) + tape.dense(jnp.ones((2, 2, 3)), params["kernel"])
        return scale * tape.scale(h, params["gamma"], params["beta"]).sum(axis=(1, 2))

    params = {"table": jnp.ones((4, 2)), "kernel": jnp.zeros((3, 2)), "gamma": jnp.ones(2), "beta": jnp.zeros(2)}
    ids = jnp.array([[1, 1], [0, 3]])
    _, _, norms = compiled(losses_fn, params, ids)
    # table 2·2² or 4·1², kernel 6·2², gamma 2·2², beta 2·2²
    np.testing.assert_allclose(np.float64(norms) / scale, np.sqrt([48.0, 44.0]), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_tied_norms_are_scaled(scale):
    norms = measured("tied", factor=np.float32(scale) * ONES)[2]
    np.testing.assert_allclose(np.float64(norms) / scale, direct("tied")[2], rtol=1e-4)


def test_a_factor_that_cannot_be_squared_beside_a_leaf_that_can():
    columns = {"a": (1e-20, 1e18), "b": (1e-2, 1.0), "c": (1e25, 1e-25)}
    batch = {name: (jnp.full((2, 3), x), jnp.full(2, factor)) for name, (x, factor) in columns.items()}
    params = {name: jnp.zeros((3, 1)) for name in columns}
    norms = compiled(slope_losses, params, batch)[2]
    np.testing.assert_allclose(norms, (3 * (0.01**2 + 0.01**2 + 1.0)) ** 0.5, rtol=1e-5)


def test_half_precision_operations_do_not_see_the_size_of_the_batch():
    size = 1024
    batch = {"a": (jnp.ones((size, 3), jnp.float16), jnp.full(size, 1e-4, jnp.float32))}
    norms = compiled(slope_losses, {"a": jnp.zeros((3, 1), jnp.float16)}, batch)[2]
    np.testing.assert_allclose(norms, 1e-4 * 3**0.5, rtol=2e-3)
