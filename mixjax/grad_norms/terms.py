"""Sums a parameter's per-example gradients over examples, and takes each example's norm, without forming them.

Each use of a parameter on the tape contributes one term to the gradient: :class:`Rows`, :class:`Lookup` or
:class:`Matrix`. A term holds what the examples' gradients are made of: two factors, whose product is never formed
for every example, or, for :class:`Rows`, which are small, the gradients themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mixjax.grad_norms.scaling import anywhere, as_float, scale_of, scaled_norm

__all__ = ["Lookup", "Matrix", "Rows", "Term", "gradient_sum", "norms_of", "positions", "without"]


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

    Attributes:
        left: ``l``, ``[B, ..., n]``.
        right: ``r``, ``[B, ..., m]``.
    """

    left: jax.Array
    right: jax.Array


Term = Rows | Lookup | Matrix


def gradient_sum(leaf: jax.Array, terms: list[Term]) -> jax.Array:
    """Returns the sum of the examples' gradients for one parameter.

    Args:
        leaf: the parameter, for its shape and dtype.
        terms: the terms of all its uses.

    Returns:
        ``[*leaf.shape]``, float32 or wider.
    """
    dtype = jnp.promote_types(leaf.dtype, jnp.float32)
    total = jnp.zeros(leaf.shape, dtype)
    for term in terms:
        if isinstance(term, Rows):
            total += term.gradients.sum(axis=0)
        elif isinstance(term, Lookup):
            total = total.at[term.ids].add(term.deltas.astype(dtype))
        else:
            # The axis of positions is kept even where it is of length one. XLA on a CPU then copies the left operand's
            # transpose and has YNNPACK multiply, which takes 4 % off a step of an MLP.
            left, right = positions(term.left), positions(term.right)
            total += jnp.einsum("btn,btm->nm", left, right, preferred_element_type=dtype)
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

    # All fields: both factors may be infinite, and with deltas of zero it does not matter that the ids become zero.
    return [type(term)(*map(zeroed, term)) for term in terms]


def norms_of(leaves: list[list[Term]]) -> jax.Array:
    """Returns the norm of each example's gradient over all parameters.

    Args:
        leaves: the terms of each parameter, at least one term each.

    Returns:
        ``[B]``, float32 or wider.
    """
    norms, roots = [], []
    for terms in leaves:
        norm, new_roots = _leaf_norms(terms, _plain_root)
        norms.append(norm)
        roots += new_roots
    usual = _whole(norms)
    if not roots:
        return usual
    # Squares below tiny are lost. Beside a root above sqrt(tiny) / eps they are less than its rounding, so the plain
    # sum is right. Other norms, exact zeros too, are computed again from scaled entries.
    limits = jnp.finfo(jnp.result_type(*roots))
    fits = [(root > limits.tiny**0.5 / limits.eps) & (root < jnp.inf) for root in roots]
    return jax.lax.cond(
        anywhere(~jnp.stack(fits).all(axis=0)),
        lambda: _whole([_leaf_norms(terms, _scaled_root)[0] for terms in leaves]),
        lambda: usual,
    )


def positions(x: jax.Array) -> jax.Array:
    """Joins all axes between the first and the last into one axis of positions, possibly of length one."""
    return x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1])


def _whole(norms: list[jax.Array]) -> jax.Array:
    """Combines the parameters' norms ``[B]`` into the norm of the whole gradient."""
    return scaled_norm([jnp.stack(norms, axis=-1)])


def _leaf_norms(
    terms: list[Term], root_of_squares: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, list[jax.Array]]:
    """Returns the norms ``[B]`` of one parameter's gradients, and the roots of squares that they were made of.

    Only rows, and a matrix without positions, use ``root_of_squares``. Everything else is scaled in any case, and
    returns no roots.
    """
    # No parameter has rows and other terms: value_grads_and_norms refuses such a model.
    rows = [term.gradients for term in terms if isinstance(term, Rows)]
    if rows:
        root = root_of_squares(sum(rows))  # pyright: ignore[reportArgumentType]  # not 0: there are rows
        return root, [root]
    matrices = [term for term in terms if isinstance(term, Matrix)]
    lookups = [term for term in terms if isinstance(term, Lookup)]
    if len(terms) == 1 and matrices and matrices[0].left.ndim == 2:
        left, right = root_of_squares(matrices[0].left), root_of_squares(matrices[0].right)
        return left * right, [left, right]
    return _norms_over_positions(matrices, lookups), []


def _plain_root(x: jax.Array) -> jax.Array:
    """Returns the root of the sum of squares of each example's entries, in one pass over ``x``.

    ``x`` may be as large as the activations, so a second pass for its largest entry would cost as much again.
    """
    return jnp.sqrt(jnp.square(as_float(x)).sum(axis=tuple(range(1, x.ndim))))


def _scaled_root(x: jax.Array) -> jax.Array:
    """Returns the root of the sum of squares of each example's entries, relative to the largest."""
    return scaled_norm([as_float(x.reshape(len(x), math.prod(x.shape[1:])))])


def _norms_over_positions(matrices: list[Matrix], lookups: list[Lookup]) -> jax.Array:
    """Returns the norms ``[B]`` of one parameter that is used at several positions, as a matrix, a table or both."""
    if not lookups:
        product = _join_matrices(matrices)
        return product.left_size * _root(product.squares) * product.right_size
    if not matrices:
        table = _join_lookups(lookups)
        return table.size * _root(table.squares)
    product, table = _join_matrices(matrices), _join_lookups(lookups)
    # A tied table: the cross term is <onehot(id_t) δ_tᵀ, l_s r_sᵀ> = l_s[id_t] (δ_t · r_s).
    places = jnp.take_along_axis(product.left, table.ids[:, None, :], axis=2)
    cross = places * jnp.einsum("bsm,btm->bst", product.right, table.deltas)
    size = product.left_size * product.right_size
    scale = scale_of(jnp.maximum(size, table.size))
    a, b = size / scale, table.size / scale
    squares = a * a * product.squares + b * b * table.squares + 2.0 * a * b * cross.sum(axis=(1, 2))
    return scale * _root(squares)


class _Product(NamedTuple):
    """Holds all uses of a matrix as one: ``left_size · right_size · sum_t l_t r_tᵀ`` and the sum's squared norm."""

    left_size: jax.Array
    left: jax.Array
    right_size: jax.Array
    right: jax.Array
    squares: jax.Array


def _join_matrices(matrices: list[Matrix]) -> _Product:
    # Uses one after the other are one use at all their positions.
    left_size, left = _unit(jnp.concatenate([positions(term.left) for term in matrices], axis=1))
    right_size, right = _unit(jnp.concatenate([positions(term.right) for term in matrices], axis=1))
    return _Product(left_size, left, right_size, right, _matrix_squares(left, right))


class _Table(NamedTuple):
    """Holds all lookups in a table as one: ``size`` times ``deltas`` at ``ids``, and the squared norm of their sum."""

    ids: jax.Array
    size: jax.Array
    deltas: jax.Array
    squares: jax.Array


def _join_lookups(lookups: list[Lookup]) -> _Table:
    ids = jnp.concatenate([term.ids for term in lookups], axis=1)
    size, deltas = _unit(jnp.concatenate([term.deltas for term in lookups], axis=1))
    return _Table(ids, size, deltas, _table_squares(ids, deltas))


def _unit(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns a scale for each example, ``[B]``, and ``x`` divided by it; examples of zeros have scale 0 and stay."""
    x = as_float(x)
    largest = jnp.max(jnp.abs(x), axis=(1, 2), initial=0.0)
    scale = scale_of(largest)
    return jnp.where(largest == 0, 0.0, scale), x / scale[:, None, None]


def _root(squares: jax.Array) -> jax.Array:
    """Returns the square root of a sum of squares that rounding may have made negative."""
    return jnp.sqrt(jnp.maximum(squares, 0.0))


def _matrix_squares(left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns ``‖sum_t l_t r_tᵀ‖²`` ``[B]``, from Gram matrices over positions or the sum itself: the smaller one."""
    # Two Gram matrices of T² numbers, or one sum of n · m.
    if 2 * left.shape[1] ** 2 <= left.shape[2] * right.shape[2]:
        return (jnp.einsum("btn,bsn->bts", left, left) * jnp.einsum("btm,bsm->bts", right, right)).sum(axis=(1, 2))
    return jnp.square(jnp.einsum("btn,btm->bnm", left, right)).sum(axis=(1, 2))


def _table_squares(ids: jax.Array, deltas: jax.Array) -> jax.Array:
    """Returns ``sum_v ‖sum_{t: id_t = v} δ_t‖²`` ``[B]``, the squared norms of the table's rows of gradients.

    A sum for each row of the table would take ``B · V · d`` numbers. Each position adds instead to the first place of
    its id among the sorted ids, which takes as many numbers as ``deltas``.
    """
    first = jax.vmap(jnp.searchsorted)(jnp.sort(ids, axis=1), ids)
    sums = jax.vmap(lambda place, delta: jnp.zeros_like(delta).at[place].add(delta))(first, deltas)
    return jnp.square(sums).sum(axis=(1, 2))
