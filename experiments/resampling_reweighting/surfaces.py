"""Defines the potential energy surfaces of paper 003, section 4.2 and appendix C.2: sums of Gaussians in the plane.

The code departs from the print in two places, where the print has slips:

- The main text has no ``A_k``, and the opposite sign in the exponent. The code follows appendix C.2.
- The second branch of the large system's positions counts from ``k - 500`` here. Otherwise it would not join the first
  branch, and the start (3, 1) would not lie between minima.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Surface", "energy", "gradients", "large_system", "mueller_brown", "terms"]


class Surface(NamedTuple):
    """Holds the terms of a surface, whose mean is the energy.

    Term ``k`` is ``V_k = A_k exp(a_k dx² + b_k dx dy + c_k dy²)``, where ``dx`` and ``dy`` are the differences of the
    position from the term's centre. Every attribute is an array ``[n]``.

    Attributes:
        height: ``A``.
        a: ``a``.
        b: ``b``.
        c: ``c``.
        x: the first coordinate of the centres.
        y: the second coordinate of the centres.
    """

    height: jax.Array
    a: jax.Array
    b: jax.Array
    c: jax.Array
    x: jax.Array
    y: jax.Array


def mueller_brown() -> Surface:
    """Builds the Mueller-Brown surface of eq. C.1.

    The energy is a quarter of the usual sum of its four terms. The standard surface has ``A_1 = -200``; the paper has
    -150.
    """
    return Surface(
        height=jnp.float32([-150, -100, -170, 15]),
        a=jnp.float32([-1, -1, -6.5, 0.7]),
        b=jnp.float32([0, 0, 11, 0.6]),
        c=jnp.float32([-10, -10, -6.5, 0.7]),
        x=jnp.float32([1, 0, -0.5, -1]),
        y=jnp.float32([0, 0.5, 1.5, 1]),
    )


def large_system(num_terms: int = 1000) -> Surface:
    """Builds the surface of eq. C.2, on which one atom moves among ``num_terms`` fixed ones."""
    k = np.arange(1, num_terms + 1, dtype=np.float64)
    first = k <= 500
    return Surface(
        height=jnp.float32(-50 - 0.15 * k),
        a=jnp.float32(-2 - 0.018 * k),
        b=jnp.float32(-0.1 + 0.0002 * k),
        c=jnp.float32(-10 + 0.009 * k),
        x=jnp.float32(np.where(first, 2 - 0.006 * k, 1.8 + 0.0024 * (k - 500))),
        y=jnp.float32(np.where(first, 2 - 0.006 * k, -1 + 0.006 * (k - 500))),
    )


def terms(surface: Surface, z: jax.Array) -> jax.Array:
    """Returns the terms ``V_k`` at a position ``z`` ``[2]``, ``[n]``."""
    dx, dy = z[0] - surface.x, z[1] - surface.y
    return surface.height * jnp.exp(surface.a * dx**2 + surface.b * dx * dy + surface.c * dy**2)


def gradients(surface: Surface, z: jax.Array) -> jax.Array:
    """Returns the gradients of the terms ``V_k`` at a position ``z`` ``[2]``, ``[n, 2]``."""
    dx, dy, values = z[0] - surface.x, z[1] - surface.y, terms(surface, z)
    return values[:, None] * jnp.stack(
        [2 * surface.a * dx + surface.b * dy, surface.b * dx + 2 * surface.c * dy], axis=1
    )


def energy(surface: Surface, z: jax.Array) -> jax.Array:
    """Returns the energy at a position, which is the mean of the terms."""
    return terms(surface, z).mean()
