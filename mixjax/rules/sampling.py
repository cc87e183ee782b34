"""Turns scores into sampling weights, for the two rules whose ``q`` is proportional to ``c`` times a score."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex
from mixjax.rules.base import first_state, masked_softmax, read_signals, share
from mixjax.rules.states import ScoreState

__all__ = ["init_scores", "read_loss_weights", "remember", "sampling_weights"]


def init_scores(prior: ArrayLike, score: float) -> ScoreState:
    """Makes the state before the first update, in which no domain has been seen and ``q`` and ``c`` are the prior."""
    prior = as_simplex("prior", prior)
    scores, seen = jnp.full_like(prior, score), jnp.zeros(prior.shape, bool)
    return first_state(ScoreState, prior, scores=scores, loss_weights=prior, seen=seen)


def read_loss_weights(state: ScoreState, loss_weights: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Reads ``c`` in all rows, also in rows without examples in this update.

    Such a row keeps its last score, and ``q`` multiplies that score by the newest ``c``.

    Args:
        state: the rule's state.
        loss_weights: ``c``, ``[D]``.

    Returns:
        ``(known, c)``: bool ``[D]``, True where ``c`` is finite and the prior positive; and float32 ``[D]``, which
        has the last ``c`` in the other rows.
    """
    # Counts of 1 in place of the update's own make `read_signals` read every row.
    known, c = read_signals(state, jnp.ones_like(state.prior), loss_weights=loss_weights)
    return known, jnp.where(known, c, state.loss_weights)


def remember(state: ScoreState, scores: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Takes the new score of each row seen now, and the last score of every other row.

    Args:
        state: the rule's state.
        scores: ``[D]``.
        now: bool ``[D]``, the rows seen in this update.

    Returns:
        ``(seen, scores)``: bool ``[D]``, the rows seen in this or an earlier update; and their scores ``[D]``.
    """
    return state.seen | now, jnp.where(now, scores, state.scores)


def sampling_weights(
    prior: jax.Array, c: jax.Array, scores: jax.Array, seen: jax.Array, floor: ArrayLike | None = None
) -> jax.Array:
    """Shares out the prior of the rows seen in proportion to ``c`` times their scores.

    Args:
        prior: ``[D]`` on the simplex. Rows never seen keep it as their weight.
        c: loss weights ``[D]``.
        scores: ``[D]``, non-negative.
        seen: bool ``[D]``.
        floor: scalar in [0, 1], the share of ``c`` itself in the weights of the rows seen. None mixes nothing in.

    Returns:
        float32 ``[D]`` on the simplex, positive wherever ``c`` is.
    """
    log_c = jnp.log(c)
    # The product is taken in logarithms, because that of a tiny c and a tiny score would underflow to zero.
    log_scores = jnp.where(seen, log_c + jnp.log(scores), -jnp.inf)
    # Scores that are all zero say nothing, so q follows c.
    log_scores = jnp.where(jnp.isneginf(log_scores.max()), log_c, log_scores)
    if floor is not None:
        mixture = (1.0 - floor) * masked_softmax(log_scores, seen) + floor * masked_softmax(log_c, seen)
        log_scores = jnp.log(mixture)
    q = share(prior, log_scores, seen)
    # Where all of c lies in rows never seen, the rows seen have nothing to share by, and q is c.
    fallback = jnp.where(c.sum() > 0, c, prior)
    q = jnp.where(jnp.any(seen) & ~jnp.any(seen & (c > 0)), fallback / fallback.sum(), q)
    # A domain that is never drawn would bias the estimate, so an underflow to zero is lifted to the smallest float.
    return jnp.maximum(q, jnp.where(c > 0, jnp.finfo(jnp.float32).tiny, 0.0))
