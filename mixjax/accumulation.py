"""Accumulates gradients over microbatches and keeps the domain signals of every one of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mixjax.checks import check_integer
from mixjax.signals import Moments, merge
from mixjax.transforms import AggregateState, find_states
from mixjax.types import SIGNALS

__all__ = ["AccumulateState", "accumulate"]

# Signals that are merged over microbatches, and signals whose last value is passed on.
_MERGED = ("losses", "loss_vars", "grad_stds")
_LATEST = ("loss_weights", "sampling_weights")


class AccumulateState(NamedTuple):
    """Holds the gradients and signals gathered since the last update of :func:`accumulate`.

    Attributes:
        inner: state of the wrapped transformation.
        microbatch: int32 scalar, microbatches since the last update.
        grads: float32 sums of gradients; where ``tx`` contains ``aggregate``, stacked ``[D, *param]`` and weighted by
            counts.
        moments: :class:`mixjax.signals.Moments` ``[D]`` of the losses.
        grad_squares: float32 ``[D]``, sum of ``(counts - 1) * grad_stds²``.
        grad_freedom: float32 ``[D]``, sum of ``counts - 1`` where there was a ``grad_stds``.
    """

    inner: Any
    microbatch: jax.Array
    grads: Any
    moments: Moments
    grad_squares: jax.Array
    grad_freedom: jax.Array


def accumulate(tx: optax.GradientTransformation, k: int) -> optax.GradientTransformationExtraArgs:
    r"""Updates with ``tx`` once every ``k`` microbatches, on their merged gradients and merged domain signals.

    ``optax.MultiSteps`` hands the inner transformation the last microbatch's extra arguments only. Here every signal is
    merged in its own way:

    - ``counts`` add up, ``losses`` are averaged by counts, ``loss_vars`` are merged by Chan's formula.
    - The squares of ``grad_stds`` are pooled by ``counts - 1``, so that a single example says nothing.
    - ``loss_weights``, ``sampling_weights`` and extra arguments that are no signals keep their last value.

    In the other calls the returned parameter updates are zeros, and the state of ``tx`` stays as it is.

    Around a chain that begins with :func:`mixjax.aggregate` the stacked gradients are averaged by counts, row by row.
    For rules that read ``losses`` and ``loss_vars``, ``k`` microbatches then give exactly the update of one batch of
    all of them. (Pooled ``grad_stds`` are an unbiased estimate, not the batch's own value.) Around
    :func:`mixjax.track` gradients are plain means over microbatches. That is exact where the objective is a
    Horvitz-Thompson one over microbatches of equal size, or where the counts are the same in every microbatch.

    Args:
        tx: a transformation that contains ``aggregate`` or ``track``.
        k: number of microbatches per update, a Python integer of at least 1.

    Signals:
        The signals that the rules need, out of ``counts``, ``losses``, ``loss_vars``, ``grad_stds``, ``loss_weights``
        and ``sampling_weights``; the same ones in every microbatch.

    Returns:
        An ``optax.GradientTransformationExtraArgs`` with state :class:`AccumulateState`. Sums are float32.

    Raises:
        TypeError: ``update`` without ``counts``, or with a signal that cannot be merged.
        ValueError: ``k`` below 1, or a ``tx`` with neither ``aggregate`` nor ``track``.

    Example:
        >>> import jax.numpy as jnp, mixjax, optax
        >>> prior = jnp.array([0.5, 0.5])
        >>> inner = optax.chain(mixjax.aggregate(mixjax.rules.fixed(), prior), optax.sgd(1.0))
        >>> tx = mixjax.accumulate(inner, k=2)
        >>> params = jnp.zeros(())
        >>> state = tx.init(params)
        >>> first, state = tx.update(jnp.array([1.0, 0.0]), state, params, counts=jnp.array([1, 0]))
        >>> second, state = tx.update(jnp.array([3.0, 2.0]), state, params, counts=jnp.array([3, 1]))
        >>> first.tolist(), second.tolist()          # -(1/2 * (1 * 1 + 3 * 3) / 4 + 1/2 * 2)
        (0.0, -2.25)
    """
    check_integer("k", k, 1)
    tx = optax.with_extra_args_support(tx)

    def init(params):
        inner = tx.init(params)
        states = [state for _, state in find_states(inner)]
        if not states:
            raise ValueError("accumulate needs a transformation that contains mixjax.aggregate or mixjax.track.")
        rows = jnp.zeros(states[0].rule_state.weights.shape, jnp.float32)
        lead = rows.shape if _is_stacked(states) else ()
        grads = jax.tree.map(lambda p: jnp.zeros(lead + jnp.shape(p), jnp.float32), params)
        return AccumulateState(inner, jnp.zeros((), jnp.int32), grads, Moments(rows, rows, rows), rows, rows)

    def update(updates, state, params=None, *, counts=None, **signals):
        if counts is None:
            raise TypeError("accumulate got no domain signals: call tx.update(grads, state, params, counts=..., ...).")
        unknown = set(signals) & set(SIGNALS) - {*_MERGED, *_LATEST}
        if unknown:
            raise TypeError(f"accumulate cannot merge {sorted(unknown)}, it takes {['counts', *_MERGED, *_LATEST]}.")
        stacked = _is_stacked([s for _, s in find_states(state.inner)])
        counts = jnp.asarray(counts, jnp.float32)
        gathered = _gather(state, updates, counts, signals, stacked)

        def emit():
            means = _mean_gradients(gathered, updates, k, stacked)
            merged = _merged_signals(gathered)
            passed = {name: merged[name] if name in _MERGED else value for name, value in signals.items()}
            out, inner = tx.update(means, state.inner, params, counts=merged["counts"], **passed)
            zeros = jax.tree.map(jnp.zeros_like, gathered._replace(inner=None))
            return out, zeros._replace(inner=inner)

        def wait():
            # The branches of a cond need equal dtypes, so zeros follow what tx returns, not the gradients it gets.
            shapes = jax.eval_shape(emit)[0]
            out = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
            return out, gathered._replace(microbatch=state.microbatch + 1)

        # A cond, so that tx runs once every k microbatches; a where would run it every time.
        return jax.lax.cond(state.microbatch == k - 1, emit, wait)

    return optax.GradientTransformationExtraArgs(init, update)


def _gather(state, updates, counts, signals, stacked) -> AccumulateState:
    """Adds a microbatch's gradients and signals to the state; its ``inner`` and ``microbatch`` stay as they are."""
    grad_stds = jnp.asarray(signals.get("grad_stds", jnp.zeros_like(counts)), jnp.float32)
    freedom = jnp.where((counts > 1) & jnp.isfinite(grad_stds), counts - 1.0, 0.0)
    # A NaN grad_std times a freedom of 0 would be NaN.
    squares = jnp.where(freedom > 0, freedom * jnp.square(grad_stds), 0.0)
    return state._replace(
        grads=jax.tree.map(lambda total, g: total + _weigh(g, counts, stacked), state.grads, updates),
        moments=merge(state.moments, _read_moments(counts, signals)),
        grad_squares=state.grad_squares + squares,
        grad_freedom=state.grad_freedom + freedom,
    )


def _mean_gradients(gathered, updates, k, stacked):
    """Divides the gathered gradients by their counts, or by ``k``, and casts them to the dtypes of ``updates``."""
    counts = jnp.maximum(gathered.moments.count, 1.0)

    def mean(total, g):
        return (total / (_column(counts, total) if stacked else jnp.float32(k))).astype(g.dtype)

    return jax.tree.map(mean, gathered.grads, updates)


def _merged_signals(gathered):
    freedom = gathered.grad_freedom
    grad_stds = jnp.where(freedom > 0, jnp.sqrt(gathered.grad_squares / freedom), jnp.nan)
    return {**gathered.moments.signals(), "grad_stds": grad_stds}


def _is_stacked(states):
    return any(isinstance(state, AggregateState) for state in states)


def _column(rows, like):
    """Shapes ``rows [D]`` to broadcast against a stacked gradient."""
    return rows.reshape(-1, *[1] * (like.ndim - 1))


def _weigh(grads, counts, stacked):
    # Sums in bfloat16 stall once they are a few hundred times an addend.
    grads = grads.astype(jnp.float32)
    if not stacked:
        return grads
    weights = _column(counts, grads)
    # The row of an absent domain may hold NaN.
    return jnp.where(weights > 0, weights * grads, 0.0)


def _read_moments(counts, signals):
    """Turns a microbatch's ``losses`` and ``loss_vars`` into moments; signals not given count as 0 and go nowhere."""
    losses = jnp.asarray(signals.get("losses", jnp.zeros_like(counts)), jnp.float32)
    loss_vars = jnp.asarray(signals.get("loss_vars", jnp.zeros_like(counts)), jnp.float32)
    mean = jnp.where(counts > 0, losses, 0.0)
    return Moments(counts, mean, jnp.where(counts > 1, loss_vars * (counts - 1.0), 0.0))
