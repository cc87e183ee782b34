"""Runs one backward pass, and makes the gradient and every example's norm from what a tape has noted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mixjax.grad_norms.recording import RecordingTape, Use
from mixjax.grad_norms.scaling import anywhere, wide
from mixjax.grad_norms.squares import norms_of
from mixjax.grad_norms.terms import Conv, Lookup, Matrix, Rows, Term, gradient_sum, positions, without
from mixjax.grad_norms.windows import Geometry
from mixjax.meshes import spec_of

__all__ = ["Measured", "as_weights", "batch_spec", "measure"]


class Measured(NamedTuple):
    """Holds what one backward pass gives.

    Attributes:
        losses: ``[B]``.
        sums: for each leaf, the gradient summed over the examples with their weights, float32 or wider.
        norms: float32 ``[B]``.
        aux: what else the model returns.
    """

    losses: jax.Array
    sums: list[jax.Array]
    norms: jax.Array
    aux: Any


def measure(
    forward: Callable[[list[jax.Array]], tuple[jax.Array, tuple[list[jax.Array | None], Any]]],
    zeros: list[jax.Array],
    record: RecordingTape,
    leaves: Sequence[jax.Array],
    weights: jax.Array | None,
) -> Measured:
    """Runs a model once forwards and once backwards.

    Args:
        forward: ``forward(zeros) -> losses, (factors, aux)``, for a model with ``zeros`` added to the outputs of its
            operations. The factors are ``RecordingTape.factors`` with a leading axis of examples.
        zeros: an array for each operation, with a leading axis of examples.
        record: what a tape noted when the model ran before.
        leaves: the parameters.
        weights: each example's weight in the gradient, ``[B]``, or None for ones.

    Returns:
        Losses, gradients and norms.
    """
    losses, pullback, (factors, aux) = jax.vjp(forward, zeros, has_aux=True)
    scale, left_out = jnp.ones_like(losses), None
    if weights is not None:
        weights = weights.astype(losses.dtype)
        left_out = weights == 0
        # A weight of 0 would make the norm 0 / 0. With 1 the norm is right, and the gradient leaves the example out.
        scale = jnp.where(left_out, scale, weights)
    (deltas,) = pullback(scale)

    terms: list[list[Term]] = [[] for _ in leaves]
    for use, factor in zip(record.uses, factors, strict=True):
        terms[use.leaf].append(_term(use, factor, deltas[use.operation], leaves[use.leaf]))
    # A leaf that is used as a constant only has no terms.
    with_terms = [uses for uses in terms if uses]
    norms = norms_of(with_terms) if with_terms else jnp.zeros(len(losses))
    norms = norms / jnp.abs(scale).astype(norms.dtype)
    return Measured(losses, _sums(leaves, terms, left_out), jax.lax.stop_gradient(norms.astype(jnp.float32)), aux)


def as_weights(weights: Any, size: int) -> jax.Array | None:
    """Returns the weights as an array without a gradient.

    Args:
        weights: ``[size]``, or None.
        size: the number of examples.

    Raises:
        ValueError: another shape.
    """
    if weights is None:
        return None
    weights = jax.lax.stop_gradient(jnp.asarray(weights))
    if weights.shape != (size,):
        raise ValueError(f"weights must have one entry per example, shape {(size,)}, got {weights.shape}.")
    return weights


def batch_spec(batch: Any) -> PartitionSpec:
    """Returns how a batch's axis of examples is sharded over Explicit mesh axes."""
    specs = [spec_of(leaf)[:1] for leaf in jax.tree.leaves(batch)]
    return PartitionSpec(*next((spec for spec in specs if spec and spec[0] is not None), ()))


def _term(use: Use, factor: jax.Array | None, delta: jax.Array, leaf: jax.Array) -> Term:
    """Returns a use's part in the per-example gradients, from the operation's input and its output's derivative."""
    if use.kind == "rows":
        dtype = wide(delta.dtype, leaf.dtype)
        product = delta.astype(dtype) if factor is None else factor.astype(dtype) * delta.astype(dtype)
        return Rows(product.sum(axis=tuple(range(1, delta.ndim - leaf.ndim))))
    # Only uses of kind "rows" may have no factor.
    assert factor is not None
    if use.kind == "table":
        return Lookup(factor.reshape(len(factor), math.prod(factor.shape[1:])), positions(delta))
    if isinstance(use.kind, Geometry):
        return Conv(factor, delta, leaf.shape[:-2], use.kind)
    if use.kind == "transpose":
        return Matrix(delta, factor)
    # The outputs of a kernel of several axes are spread over as many axes.
    outputs = math.prod(leaf.shape) // max(factor.shape[-1], 1)
    return Matrix(factor, delta.reshape(*factor.shape[:-1], outputs))


def _sums(leaves: Sequence[jax.Array], terms: list[list[Term]], left_out: jax.Array | None) -> list[jax.Array]:
    """Returns each leaf's gradient, summed over the examples that are not left out."""

    def sums(terms):
        return [gradient_sum(leaf, uses) for leaf, uses in zip(leaves, terms, strict=True)]

    if left_out is None:
        return sums(terms)
    # Leaving out takes a pass over the activations, which most batches do not need.
    return jax.lax.cond(
        anywhere(left_out), lambda: sums([without(uses, left_out) for uses in terms]), lambda: sums(terms)
    )
