"""Sums a parameter's per-example gradients over examples, without forming them.

Each use of a parameter on the tape contributes one term to the gradient: :class:`Rows`, :class:`Lookup`,
:class:`Matrix` or :class:`Conv`. A term holds what the examples' gradients are made of: two factors, whose product is
never formed for every example, or, for :class:`Rows`, which are small, the gradients themselves.
:mod:`mixjax.grad_norms.squares` has the norms.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mixjax.grad_norms.scaling import wide
from mixjax.grad_norms.windows import Geometry, kernel_gradient

__all__ = ["Conv", "Lookup", "Matrix", "Rows", "Term", "gradient_sum", "images", "positions", "without"]


class Rows(NamedTuple):
    """Holds the examples' gradients themselves, as those of biases and elementwise scales.

    Attributes:
        gradients: ``[B, *shape]``.
    """

    gradients: jax.Array


class Lookup(NamedTuple):
    """Holds the gradients of a table of embeddings: row ``ids[b, t]`` of the table gets ``deltas[b, t]``.

    Attributes:
        ids: int ``[B, T]``.
        deltas: ``[B, T, d]``.
    """

    ids: jax.Array
    deltas: jax.Array


class Matrix(NamedTuple):
    """Holds the gradients ``sum_t l_bt r_btᵀ`` of a matrix, with ``t`` over all axes between the first and the last.

    The parameter has ``n · m`` entries in this order. It may have more axes than two.

    Attributes:
        left: ``l``, ``[B, ..., n]``.
        right: ``r``, ``[B, ..., m]``.
    """

    left: jax.Array
    right: jax.Array


class Conv(NamedTuple):
    """Holds the gradients of a convolution's kernel: sums over places of a window's entries times the place's delta.

    Attributes:
        inputs: ``[B, ..., *spatial, in]``, an example's images along the axes ``...``, of which there may be none.
        deltas: ``[B, ..., *places, out]``.
        window: the kernel's sizes along the spatial axes.
        geometry: how the window moves.
    """

    inputs: jax.Array
    deltas: jax.Array
    window: tuple[int, ...]
    geometry: Geometry


Term = Rows | Lookup | Matrix | Conv


def gradient_sum(leaf: jax.Array, terms: list[Term]) -> jax.Array:
    """Returns the sum of the examples' gradients for one parameter.

    Args:
        leaf: the parameter, for its shape and dtype.
        terms: the terms of all its uses.

    Returns:
        ``[*leaf.shape]``, float32 or wider.
    """
    dtype = wide(leaf.dtype)
    total = jnp.zeros(leaf.shape, dtype)
    for term in terms:
        if isinstance(term, Rows):
            total += term.gradients.sum(axis=0).astype(dtype)
        elif isinstance(term, Lookup):
            total = total.at[term.ids].add(term.deltas.astype(dtype))
        elif isinstance(term, Conv):
            inputs, deltas = images(term.inputs, term.window), images(term.deltas, term.window)
            total += kernel_gradient(inputs, deltas, leaf.shape, term.geometry, dtype)
        else:
            # The axis of positions is kept even where it is of length one. XLA on a CPU then copies the left operand's
            # transpose and has YNNPACK multiply, which takes 4 % off a step of an MLP.
            left, right = positions(term.left), positions(term.right)
            if left.dtype != right.dtype:
                left, right = left.astype(dtype), right.astype(dtype)
            product = jnp.einsum("btn,btm->nm", left, right, preferred_element_type=dtype)
            total += product.reshape(leaf.shape)
    return total


def without(terms: list[Term], left_out: jax.Array) -> list[Term]:
    """Returns terms with zeros in place of some examples' gradients.

    The zeros are written over the entries. A product with zero would keep what is infinite or NaN.

    Args:
        terms: the terms of one parameter.
        left_out: bool ``[B]``, True for an example to leave out.

    Returns:
        The terms, of the same shapes.
    """

    def zeroed(x):
        return jnp.where(left_out.reshape(-1, *[1] * (x.ndim - 1)), jnp.zeros_like(x), x)

    # All arrays: both factors may be infinite, and with deltas of zero it does not matter that the ids become zero.
    return [
        term._replace(**{name: zeroed(x) for name, x in term._asdict().items() if isinstance(x, jax.Array)})
        for term in terms
    ]


def positions(x: jax.Array) -> jax.Array:
    """Joins all axes between the first and the last into one axis of positions, possibly of length one."""
    return x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1])


def images(x: jax.Array, window: tuple[int, ...]) -> jax.Array:
    """Joins the axes of examples and of an example's images: ``[B, ..., *spatial, c]`` becomes ``[N, *spatial, c]``."""
    leading = x.ndim - len(window) - 1
    return x.reshape(math.prod(x.shape[:leading]), *x.shape[leading:])
