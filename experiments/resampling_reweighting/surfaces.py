"""The potential energy surfaces of paper 003, section 4.2 and appendix C.2: sums of Gaussian terms in the plane.

Slips in the print: the main text has no ``A_k`` and the opposite sign in the exponent; the second branch of the large
system's positions must count from ``k - 500``, or it does not join the first (and (3, 1) is no start between minima).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Surface(NamedTuple):
    """Terms ``V_k = A_k exp(a_k dx² + b_k dx dy + c_k dy²)``, each ``[n]``; the energy is their mean."""

    height: jax.Array
    a: jax.Array
    b: jax.Array
    c: jax.Array
    x: jax.Array
    y: jax.Array


def mueller_brown() -> Surface:
    """Eq. C.1; the energy is a quarter of the sum. (The standard surface has ``A_1 = -200``.)"""
    return Surface(
        *map(
            jnp.float32,
            (
                [-150, -100, -170, 15],
                [-1, -1, -6.5, 0.7],
                [0, 0, 11, 0.6],
                [-10, -10, -6.5, 0.7],
                [1, 0, -0.5, -1],
                [0, 0.5, 1.5, 1],
            ),
        )
    )


def large_system(num_terms: int = 1000) -> Surface:
    """Eq. C.2: so many fixed atoms around one that moves."""
    k = np.arange(1, num_terms + 1, dtype=np.float64)
    first = k <= 500
    return Surface(
        *map(
            jnp.float32,
            (
                -50 - 0.15 * k,
                -2 - 0.018 * k,
                -0.1 + 0.0002 * k,
                -10 + 0.009 * k,
                np.where(first, 2 - 0.006 * k, 1.8 + 0.0024 * (k - 500)),
                np.where(first, 2 - 0.006 * k, -1 + 0.006 * (k - 500)),
            ),
        )
    )


def terms(surface: Surface, z: jax.Array) -> jax.Array:
    """``V_k`` at a position ``[2]``, ``[n]``."""
    dx, dy = z[0] - surface.x, z[1] - surface.y
    return surface.height * jnp.exp(surface.a * dx**2 + surface.b * dx * dy + surface.c * dy**2)


def gradients(surface: Surface, z: jax.Array) -> jax.Array:
    """``∇V_k`` at a position, ``[n, 2]``."""
    dx, dy, values = z[0] - surface.x, z[1] - surface.y, terms(surface, z)
    return values[:, None] * jnp.stack(
        [2 * surface.a * dx + surface.b * dy, surface.b * dx + 2 * surface.c * dy], axis=1
    )


def energy(surface: Surface, z: jax.Array) -> jax.Array:
    """The mean of the terms."""
    return terms(surface, z).mean()
