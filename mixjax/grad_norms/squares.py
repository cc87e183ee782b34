"""Takes the norm of each example's gradient from its terms, without forming the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mixjax.grad_norms.scaling import anywhere, as_float, scale_of, scaled_norm, wide
from mixjax.grad_norms.terms import Conv, Lookup, Matrix, Rows, Term, images, positions
from mixjax.grad_norms.windows import shifted, windows

__all__ = ["norms_of"]

# The entries of a window are summed over in Python. More of them would make a program that takes long to compile.
_MAX_ENTRIES = 64


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


def _whole(norms: list[jax.Array]) -> jax.Array:
    """Combines the parameters' norms ``[B]`` into the norm of the whole gradient."""
    dtype = wide(*(norm.dtype for norm in norms))
    return scaled_norm([jnp.stack([norm.astype(dtype) for norm in norms], axis=-1)])


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
    convs = [term for term in terms if isinstance(term, Conv)]
    if convs:
        return _conv_norms(convs), []
    if len(terms) == 1 and matrices and math.prod(matrices[0].left.shape[1:-1]) == 1:
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
    if _gram_is_smaller(left.shape[1], left.shape[2], right.shape[2]):
        return (jnp.einsum("btn,bsn->bts", left, left) * jnp.einsum("btm,bsm->bts", right, right)).sum(axis=(1, 2))
    return jnp.square(jnp.einsum("btn,btm->bnm", left, right)).sum(axis=(1, 2))


def _gram_is_smaller(places: int, n: int, m: int) -> bool:
    """Tells whether two Gram matrices over places take fewer numbers than a gradient of ``n · m``."""
    return 2 * places**2 <= n * m


def _conv_norms(convs: list[Conv]) -> jax.Array:
    """Returns the norms ``[B]`` of the gradients of one kernel of a convolution."""
    batch, groups, window = len(convs[0].inputs), convs[0].geometry.groups, convs[0].window
    deltas = positions(convs[0].deltas)
    sizes = math.prod(window) * convs[0].inputs.shape[-1] // groups, deltas.shape[-1] // groups
    few_entries = math.prod(window) <= _MAX_ENTRIES
    if len(convs) == 1 and few_entries and not _gram_is_smaller(deltas.shape[1], *sizes):
        return _conv_norms_by_entry(convs[0])
    # Windows are what a dense layer would be applied to. Each group has its own part of the kernel, so that its share
    # of the norm is that of an example of its own.
    product = _join_matrices([_unfolded(conv) for conv in convs])
    norms = product.left_size * _root(product.squares) * product.right_size
    return scaled_norm([norms.reshape(batch, groups)])


def _unfolded(conv: Conv) -> Matrix:
    """Returns a convolution's term as that of a dense layer on windows, with a group's examples as ``B · groups``."""
    batch, groups = len(conv.inputs), conv.geometry.groups
    left = windows(images(conv.inputs, conv.window), conv.window, conv.geometry)
    right = positions(conv.deltas)
    left = left.reshape(batch, right.shape[1], groups, left.shape[-1])
    right = right.reshape(batch, right.shape[1], groups, right.shape[-1] // groups)
    left, right = left.swapaxes(1, 2), right.swapaxes(1, 2)
    return Matrix(left.reshape(batch * groups, *left.shape[2:]), right.reshape(batch * groups, *right.shape[2:]))


def _conv_norms_by_entry(conv: Conv) -> jax.Array:
    """Returns the norms ``[B]`` from the gradients themselves, one entry of the window at a time.

    An entry's part of the kernel is a dense layer on the input, shifted. So no windows are copied out, and no more than
    one entry's gradients ``[B, in, out]`` are held.
    """
    batch, groups = len(conv.inputs), conv.geometry.groups
    left_size, inputs = _unit(positions(conv.inputs))
    right_size, deltas = _unit(positions(conv.deltas))
    deltas = deltas.reshape(batch, deltas.shape[1], groups, deltas.shape[2] // groups)
    squares = jnp.zeros(batch, deltas.dtype)
    for piece in shifted(images(inputs.reshape(conv.inputs.shape), conv.window), conv.window, conv.geometry):
        left = piece.reshape(batch, deltas.shape[1], groups, piece.shape[-1] // groups)
        gradients = jnp.einsum("btgn,btgm->bgnm", left, deltas)
        squares += jnp.square(gradients).sum(axis=(1, 2, 3))
    return left_size * _root(squares) * right_size


def _table_squares(ids: jax.Array, deltas: jax.Array) -> jax.Array:
    """Returns ``sum_v ‖sum_{t: id_t = v} δ_t‖²`` ``[B]``, the squared norms of the table's rows of gradients.

    A sum for each row of the table would take ``B · V · d`` numbers. Each position adds instead to the first place of
    its id among the sorted ids, which takes as many numbers as ``deltas``.
    """
    first = jax.vmap(jnp.searchsorted)(jnp.sort(ids, axis=1), ids)
    sums = jax.vmap(lambda place, delta: jnp.zeros_like(delta).at[place].add(delta))(first, deltas)
    return jnp.square(sums).sum(axis=(1, 2))
