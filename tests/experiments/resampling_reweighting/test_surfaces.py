"""Tests the potential energy surfaces of paper 003."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.resampling_reweighting import (
    surfaces,
)


@pytest.mark.parametrize(
    ("make", "minimum", "value"),
    [(surfaces.mueller_brown, (-0.558, 1.442), -146.70 / 4), (surfaces.large_system, (2.751, 1.297), -24.27)],
)
def test_surfaces(make, minimum, value):
    surface, place = make(), jnp.float32(minimum)
    np.testing.assert_allclose(surfaces.energy(surface, place), value, rtol=1e-3)
    for z in (place + 0.1, jnp.float32([-0.8, 1.0])):
        gradient = jax.grad(functools.partial(surfaces.energy, surface))(z)
        np.testing.assert_allclose(surfaces.gradients(surface, z).mean(0), gradient, rtol=1e-4, atol=1e-4)
    grid = np.stack(np.meshgrid(*[np.linspace(-2, 4, 121)] * 2), -1).reshape(-1, 2)
    heights = jax.lax.map(functools.partial(surfaces.energy, surface), jnp.float32(grid[grid[:, 1] < 2.2]))
    assert heights.min() >= value - 0.05  # nothing is lower
