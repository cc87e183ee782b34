"""What every rule needs, your own too: reading prior and signals, sharing out the simplex over the rows seen."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

State = TypeVar("State")

MAX_LOG_W = 80.0
"""Bound on the absolute value of ``log_w``: exp(80) and exp(-80) are within float32."""

HUGE = 1e30
"""Bound on what rules multiply and add: a few such terms stay finite in float32."""


def read_signals(state, counts: ArrayLike, **signals: ArrayLike) -> tuple[jax.Array, ...]:
    """Reads one row per domain from each signal and says which rows were seen.

    Args:
        state: the rule's state; its prior gives ``D``.
        counts: ``[D]``, examples behind each row.
        **signals: ``[D]`` each, by the names of ``mixjax.types.SIGNALS``.

    Returns:
        ``(seen, *signals)``: ``seen`` is bool ``[D]`` (prior and count positive, every signal finite); the signals are
        float32 ``[D]``, detached from the gradient, with 0 in the rows not seen.

    Raises:
        ValueError: a signal whose shape is not ``[D]``.
    """
    shape = state.prior.shape
    for name, value in {"counts": counts, **signals}.items():
        if jnp.shape(value) != shape:
            raise ValueError(f"signal {name!r} must have one row per domain, shape {shape}, got {jnp.shape(value)}.")
    arrays = [jax.lax.stop_gradient(jnp.asarray(value).astype(jnp.float32)) for value in signals.values()]
    seen = (jnp.asarray(counts) > 0) & (state.prior > 0)
    for array in arrays:
        seen &= jnp.isfinite(array)
    return seen, *(jnp.where(seen, array, 0.0) for array in arrays)


def masked_softmax(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Softmax over the entries of ``mask``; 0 elsewhere, and everywhere if the mask is empty or all are -inf.

    Args:
        logits: float ``[D]``; -inf means a share of zero.
        mask: bool ``[D]``.

    Returns:
        float ``[D]``, which sums to 1 or is all zero.
    """
    logits = jnp.where(mask, logits, -jnp.inf)
    top = logits.max()
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
        1 exactly, so that rounding does not add up over updates.
    """
    return jnp.where(rows, total_of(weights, rows) * masked_softmax(log_scores, rows), weights)


def total_of(weights: jax.Array, rows: jax.Array) -> jax.Array:
    """The weight of ``rows`` together: 1 exactly where they hold all of it, so that rounding does not add up.

    Args:
        weights: ``[D]`` on the simplex.
        rows: bool ``[D]``.

    Returns:
        A scalar.
    """
    everything = jnp.all(rows | (weights == 0))
    return jnp.where(everything, 1.0, jnp.where(rows, weights, 0.0).sum())


def log_ratio(weights: jax.Array, prior: jax.Array) -> jax.Array:
    """``log(weights / prior)`` within ``±MAX_LOG_W``: the raw ``log_w`` of a rule that is scale-free, so that a weight
    driven to nothing can come back.

    Args:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.

    Returns:
        float32 ``[D]``, finite also where both are zero.
    """
    tiny = jnp.finfo(jnp.float32).tiny
    return jnp.clip(jnp.log(jnp.maximum(weights, tiny)) - jnp.log(prior), -MAX_LOG_W, MAX_LOG_W)


def if_news(counts: ArrayLike, new: State, old: State) -> State:
    """``new`` if any count is positive, else ``old``, leaf by leaf; no gradient flows through either.

    Args:
        counts: ``[D]``, examples behind each row.
        new: the updated state.
        old: the state before, of the same structure.

    Returns:
        A state of that structure.
    """
    news = jnp.any(jnp.asarray(counts) > 0)
    return jax.lax.stop_gradient(jax.tree.map(lambda a, b: jnp.where(news, a, b), new, old))
