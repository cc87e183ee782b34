"""Helps to write weight rules: reads signals, shares out weights, makes exponentiated steps, keeps numbers finite."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import check_real, check_shape
from mixjax.meshes import placed_like

__all__ = [
    "HUGE",
    "MAX_LOG_W",
    "bounded",
    "exponentiated_step",
    "fall_below_largest",
    "first_state",
    "if_news",
    "log_ratio",
    "log_weights",
    "masked_softmax",
    "own_buffers",
    "read_signals",
    "share",
    "total_of",
    "with_weights",
]

State = TypeVar("State")

MAX_LOG_W = 80.0
"""Bound on the absolute value of a state's ``log_w``, the log of raw weights: exp(±80) are within float32."""

HUGE = 1e30
"""Default bound on a term: a sum of up to 1e8 such terms stays finite in float32, a product of two does not."""


def own_buffers(state: State) -> State:
    """Copies every array, so that no two of them share a buffer and the whole state can be donated.

    Args:
        state: a pytree of arrays, such as a rule's first state, whose weights often are its prior.

    Returns:
        An equal pytree.
    """
    return jax.tree.map(lambda x: jnp.copy(x) if isinstance(x, jax.Array) else x, state)


def first_state(kind: Any, prior: jax.Array, /, **fields: Any) -> Any:
    """Makes a rule's state before the first update: the weights are the prior, unless others are given.

    Args:
        kind: the state's class, one of :mod:`mixjax.rules.states` or a NamedTuple that begins as they do.
        prior: float32 ``[D]`` on the simplex.
        **fields: the other fields; ``unseen_updates`` is set to 0 here.

    Returns:
        The state, with a buffer for every leaf. It can be donated, as a training step does with its optimizer state.
    """
    given = {"weights": prior, "prior": prior, "unseen_updates": jnp.zeros((), jnp.int32), **fields}
    return own_buffers(kind(**{name: given[name] for name in kind._fields}))


def read_signals(state: Any, counts: ArrayLike, **signals: ArrayLike) -> tuple[jax.Array, ...]:
    """Checks the signals' shapes, casts them to float32, and marks the rows seen.

    Args:
        state: the rule's state; its prior gives ``D``.
        counts: ``[D]``, examples behind each row.
        **signals: ``[D]`` each, by the names of ``mixjax.types.SIGNALS``.

    Returns:
        ``(seen, *signals)``: ``seen`` is bool ``[D]`` (prior and count positive, every signal finite); the signals are
        float32 ``[D]``, detached from the gradient, with 0 in the rows not seen.

    Raises:
        ValueError: a signal whose shape is not ``[D]``.
        TypeError: a complex signal.
    """
    for name, value in {"counts": counts, **signals}.items():
        check_shape(f"signal {name!r}", value, state.prior.shape, "one row per domain")
        check_real(f"signal {name!r}", value)
    # Whatever the model computes in, the state stays float32, and no gradient may flow into weights.
    arrays = [jax.lax.stop_gradient(jnp.asarray(value).astype(jnp.float32)) for value in signals.values()]
    # On a mesh with Explicit axes a new state has to be placed as the old one is, however the signals are.
    counted, *arrays = (placed_like(array, state.prior) for array in (_counted(counts), *arrays))
    seen = counted & (state.prior > 0)
    for array in arrays:
        seen &= jnp.isfinite(array)
    # A NaN in a row not seen would spoil every sum over rows, also one that multiplies the row by zero.
    return seen, *(jnp.where(seen, array, 0.0) for array in arrays)


def bounded(values: jax.Array, bound: float | jax.Array = HUGE) -> jax.Array:
    """Clips values to ``[-bound, bound]``, by default so that a sum of them stays finite; bound each product anew.

    Args:
        values: any shape; NaN stays NaN.
        bound: positive scalar.

    Returns:
        An array of the same shape.
    """
    return jnp.clip(values, -bound, bound)


def masked_softmax(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Computes the softmax over the entries of ``mask``, and 0 elsewhere.

    Args:
        logits: float ``[D]``; -inf means a share of zero.
        mask: bool ``[D]``.

    Returns:
        float ``[D]``, which sums to 1. All zeros if no entry of the mask has a finite logit.
    """
    logits = jnp.where(mask, logits, -jnp.inf)
    top = logits.max()
    # Without a finite logit the largest is -inf, and -inf - -inf is NaN.
    exps = jnp.where(mask, jnp.exp(logits - jnp.where(jnp.isfinite(top), top, 0.0)), 0.0)
    return exps / jnp.maximum(exps.sum(), jnp.finfo(jnp.float32).tiny)


def share(weights: jax.Array, log_scores: jax.Array, rows: jax.Array) -> jax.Array:
    """Shares out the total weight of ``rows`` among them, in proportion to ``exp(log_scores)``.

    Args:
        weights: ``[D]`` on the simplex.
        log_scores: ``[D]``; -inf means a score of zero.
        rows: bool ``[D]``.

    Returns:
        ``[D]`` on the simplex; bitwise ``weights`` outside ``rows``. Where ``rows`` hold all the weight their total is
        1 exactly, so that rounding does not add up over updates. Where all scores are zero there is nothing to share
        by, and ``rows`` keep their weights.
    """
    shares = masked_softmax(log_scores, rows)
    return jnp.where(rows & jnp.any(shares > 0), total_of(weights, rows) * shares, weights)


def total_of(weights: jax.Array, rows: jax.Array) -> jax.Array:
    """Sums the weights of ``rows`` as a share of all weights; exactly 1 where all other weights are zero.

    A sum of weights in float32 is 1 up to rounding only, and each update multiplies the rows by it once more. Dividing
    by the sum of all weights takes back a part of what earlier roundings added, as large as the rows' own share. The
    obvious ``1 - sum(others)`` takes back all of it, but has no correct digits where ``rows`` weigh 1e-7 in all.

    Args:
        weights: ``[D]`` on the simplex.
        rows: bool ``[D]``.

    Returns:
        A scalar.
    """
    everything = jnp.all(rows | (weights == 0))
    return jnp.where(everything, 1.0, jnp.where(rows, weights, 0.0).sum() / weights.sum())


def log_ratio(weights: jax.Array, prior: jax.Array) -> jax.Array:
    """Returns ``log(weights / prior)`` within ``±MAX_LOG_W``, so that a weight driven to nothing can come back.

    Rules whose steps do not depend on the scale of their raw weights ``w`` store this as ``log_w``, the log of ``w``.

    Args:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.

    Returns:
        float32 ``[D]``, finite also where both are zero.
    """
    # The log of a weight of zero is -inf, and -inf minus -inf at a prior of zero is NaN.
    tiny = jnp.finfo(jnp.float32).tiny
    return bounded(jnp.log(jnp.maximum(weights, tiny)) - jnp.log(prior), MAX_LOG_W)


def log_weights(state: Any) -> jax.Array:
    """Returns the log of the weights before normalisation, ``log(prior) + log_w``.

    Args:
        state: a state with the fields ``prior`` and ``log_w``.

    Returns:
        ``[D]``; -inf where the prior is zero.
    """
    return jnp.log(state.prior) + state.log_w


# The first arguments are positional here and below, so that **fields may have any field's name.
def with_weights(state: Any, weights: jax.Array, rows: jax.Array, /, **fields: Any) -> Any:
    """Puts new weights into a state whose ``log_w`` is the log of ``weights / prior``.

    Args:
        state: a state with the fields ``weights``, ``prior`` and ``log_w``.
        weights: ``[D]`` on the simplex.
        rows: bool ``[D]``, the rows that have moved; the others keep their ``log_w``.
        **fields: new values of other fields.

    Returns:
        The new state.
    """
    log_w = jnp.where(rows, log_ratio(weights, state.prior), state.log_w)
    return state._replace(weights=weights, log_w=log_w, **fields)


def exponentiated_step(state: Any, counts: ArrayLike, log_scores: jax.Array, rows: jax.Array, /, **fields: Any) -> Any:
    """Moves the weights of ``rows`` to be proportional to ``exp(log_scores)``, with their total kept.

    This is the exponentiated gradient step ``c_d <- c_d exp(step_d) / Z`` where
    ``log_scores = log_weights(state) + step``.

    Args:
        state: a state with the fields ``weights``, ``prior`` and ``log_w``.
        counts: ``[D]``, examples behind each row; if all are zero, the state comes back unchanged.
        log_scores: ``[D]``.
        rows: bool ``[D]``, the rows seen; the others keep their weight bitwise.
        **fields: new values of other fields.

    Returns:
        The new state.
    """
    weights = share(state.weights, log_scores, rows)
    return if_news(counts, with_weights(state, weights, rows, **fields), state, rows)


def fall_below_largest(heights: jax.Array, rows: jax.Array, step_size: ArrayLike, max_log_step: ArrayLike) -> jax.Array:
    """Computes ``min(step_size * (max(heights) - heights), max_log_step)``, to be subtracted from log-weights.

    Subtracting a row's distance to the highest row gives the same weights as adding ``step_size * heights``, since the
    normalisation cancels what all rows have in common. The exponents are then never above zero and cannot overflow.

    Args:
        heights: ``[D]``, how far each row would be raised.
        rows: bool ``[D]``, the rows over which the maximum is taken.
        step_size: non-negative scalar.
        max_log_step: positive scalar, bound on the result.

    Returns:
        ``[D]`` in ``[0, max_log_step]``; 0 outside ``rows``.
    """
    largest = jnp.where(rows, heights, -jnp.inf).max()
    below = jnp.where(rows, jnp.minimum(largest - heights, HUGE), 0.0)
    return jnp.minimum(jnp.asarray(step_size, jnp.float32) * below, jnp.asarray(max_log_step, jnp.float32))


def if_news(counts: ArrayLike, new: Any, old: Any, seen: jax.Array | None = None) -> Any:
    """Returns ``new`` if any count is positive, else ``old``, leaf by leaf; no gradient flows through either.

    Counts the updates in a row without a row seen too, in the field ``unseen_updates`` where the state has one.

    Args:
        counts: ``[D]``, examples behind each row.
        new: the updated state.
        old: the state before, of the same structure.
        seen: bool ``[D]``, the rows that the update could use. None leaves ``unseen_updates`` as ``new`` has it.

    Returns:
        A state of that structure, with a buffer for every leaf.
    """
    if seen is not None and hasattr(old, "unseen_updates"):
        new = new._replace(unseen_updates=jnp.where(jnp.any(seen), 0, old.unseen_updates + 1))
    # A where in place of a cond: both states exist already, and under vmap a cond would become a where.
    news = jnp.any(_counted(counts))
    return jax.lax.stop_gradient(jax.tree.map(lambda a, b: jnp.where(news, a, b), new, old))


def _counted(counts):
    """Marks the rows with examples. Counts may be a mask too, which strict promotion does not compare with 0."""
    return jnp.asarray(counts).astype(jnp.float32) > 0
