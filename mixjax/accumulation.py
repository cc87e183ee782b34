"""Gradient accumulation that keeps every microbatch's domain signals."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mixjax.checks import check_integer
from mixjax.signals import Moments, merge
from mixjax.transforms import AggregateState, find_states
from mixjax.types import SIGNALS

__all__ = ["AccumulateState", "accumulate"]

_MERGED = ("losses", "loss_vars", "grad_stds")
_LATEST = ("loss_weights", "sampling_weights")


class AccumulateState(NamedTuple):
    """State of :func:`accumulate`.

    Attributes:
        inner: state of the wrapped transformation.
        microbatch: int32 scalar, microbatches since its last update.
        grads: float32 running gradients: sums weighted by counts (stacked) or plain sums.
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

    ``optax.MultiSteps`` hands the inner transformation the last microbatch's extra arguments only. Here ``counts``
    add up, ``losses`` are averaged by counts, ``loss_vars`` are merged by Chan's formula, the squares of ``grad_stds``
    are pooled within microbatches (by ``counts - 1``: a single example says nothing), and ``loss_weights``,
    ``sampling_weights`` and extra arguments that are no signals are the last ones. In between, updates are zeros and
    the inner state rests.

    Around a chain that begins with :func:`mixjax.aggregate` the stacked gradients are averaged by counts, row by row,
    and ``k`` microbatches give exactly the update of one batch of all of them for rules that read ``losses`` and
    ``loss_vars`` (pooled ``grad_stds`` are an unbiased estimate, not the batch's own). Around :func:`mixjax.track`
    gradients are plain means over microbatches, which is exact where the objective is a Horvitz-Thompson one over
    microbatches of equal size, or where the counts are the same in every microbatch.

    Args:
        tx: a transformation that contains ``aggregate`` or ``track``.
        k: microbatches an update, a Python integer of at least 1.

    Signals:
        ``counts``, ``losses``, ``loss_vars``, ``grad_stds``, ``loss_weights``, ``sampling_weights``: those the rules
        need, the same ones in every microbatch.

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
            raise TypeError(f"accumulate cannot merge {sorted(unknown)} over microbatches.")
        stacked = _is_stacked([s for _, s in find_states(state.inner)])
        counts = jnp.asarray(counts, jnp.float32)
        moments = merge(state.moments, _read_moments(counts, signals))
        grad_stds = jnp.asarray(signals.get("grad_stds", jnp.zeros_like(counts)), jnp.float32)
        freedom = jnp.where((counts > 1) & jnp.isfinite(grad_stds), counts - 1.0, 0.0)
        squares = state.grad_squares + jnp.where(freedom > 0, freedom * jnp.square(grad_stds), 0.0)
        freedom = state.grad_freedom + freedom
        grads = jax.tree.map(lambda total, g: total + _weigh(g, counts, stacked), state.grads, updates)

        def emit():
            mass = jnp.maximum(moments.count, 1.0) if stacked else jnp.full_like(counts, k)
            means = jax.tree.map(lambda t, g: (t / _column(mass, t, stacked)).astype(g.dtype), grads, updates)
            merged = {**moments.signals(), "grad_stds": jnp.where(freedom > 0, jnp.sqrt(squares / freedom), jnp.nan)}
            passed = {name: merged[name] if name in _MERGED else value for name, value in signals.items()}
            out, inner = tx.update(means, state.inner, params, counts=moments.count, **passed)
            zeros = jax.tree.map(jnp.zeros_like, (state.microbatch, grads, moments, squares, freedom))
            return out, AccumulateState(inner, *zeros)

        def wait():
            shapes = jax.eval_shape(emit)[0]
            out = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
            return out, AccumulateState(state.inner, state.microbatch + 1, grads, moments, squares, freedom)

        return jax.lax.cond(state.microbatch == k - 1, emit, wait)

    return optax.GradientTransformationExtraArgs(init, update)


def _is_stacked(states):
    return any(isinstance(state, AggregateState) for state in states)


def _column(rows, like, stacked):
    """``rows`` shaped to broadcast against a stacked gradient; the first entry where it is not stacked."""
    return rows.reshape(-1, *[1] * (like.ndim - 1)) if stacked else rows[0]


def _weigh(grads, counts, stacked):
    grads = grads.astype(jnp.float32)
    if not stacked:
        return grads
    weights = _column(counts, grads, stacked)
    return jnp.where(weights > 0, weights * grads, 0.0)


def _read_moments(counts, signals):
    losses = jnp.asarray(signals.get("losses", jnp.zeros_like(counts)), jnp.float32)
    loss_vars = jnp.asarray(signals.get("loss_vars", jnp.zeros_like(counts)), jnp.float32)
    mean = jnp.where(counts > 0, losses, 0.0)
    return Moments(counts, mean, jnp.where(counts > 1, loss_vars * (counts - 1.0), 0.0))
