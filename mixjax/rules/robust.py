"""Computes the distributionally robust loss of given losses, and the weights behind it (paper 004)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_same_shape
from mixjax.rules.base import masked_softmax
from mixjax.rules.divergences import Divergence, check_arguments, log_ratios, penalty

__all__ = ["robust_loss", "robust_weights"]


def robust_weights(
    losses: ArrayLike, prior: ArrayLike, beta: ArrayLike, divergence: Divergence = "kl", *, scale: ArrayLike = 1.0
) -> jax.Array:
    """Computes the weights ``p̄`` at which the maximum in :func:`robust_loss` is attained, those of ``rules.dro``.

    Args:
        losses: ``L``, ``[n]``, finite; entries where the prior is zero do not matter.
        prior: ``pi``, ``[n]``, non-negative, not all zero; normalised here. Zero stays zero: the way to pad.
        beta: non-negative scalar, in 1 / loss; ``inf`` is allowed.
        divergence: as in :func:`mixjax.rules.dro`.
        scale: as in :func:`mixjax.rules.dro`.

    Returns:
        float32 ``[n]`` on the simplex, or float64 for float64 losses; no gradient flows through it.

    Raises:
        ValueError: shapes that differ or are not ``[n]``, a negative or NaN ``beta``, a ``scale`` that is not positive
            and finite, an unknown ``divergence``.

    Example:
        >>> from mixjax.rules import robust_weights
        >>> robust_weights([0.0, 1.0, 2.0], [1, 1, 1], 1.0, "chi2").tolist()   # (1 + (L - 1) / 2) / 3
        [0.1667, 0.3333, 0.5]

    References:
        Paper 004, eq. 9, 12 and 34.
    """
    losses, prior, beta, scale = _robust_arguments(losses, prior, beta, divergence, scale)
    return _maximiser(losses, prior, beta, divergence, scale)


def robust_loss(
    losses: ArrayLike, prior: ArrayLike, beta: ArrayLike, divergence: Divergence = "kl", *, scale: ArrayLike = 1.0
) -> jax.Array:
    r"""Computes the distributionally robust loss, whose gradient is the weighted mean of the losses' gradients.

    .. math:: R(L) = \max_{q \in \Delta} \; \sum_i q_i L_i - \frac{s}{\beta} \sum_i \pi_i \phi(q_i / \pi_i), \qquad
              \nabla R(L) = \bar p(L)

    ``L`` is ``losses``, ``pi`` is the ``prior``, ``phi`` is named by ``divergence``, ``s`` is ``scale``. The maximum is
    attained at ``p̄`` (:func:`robust_weights`). By the envelope theorem the first derivative may be taken with ``p̄``
    held fixed. Second derivatives are not available: they come out as zero.

    Args:
        losses: ``L``, ``[n]``, finite; entries where the prior is zero do not matter.
        prior: ``pi``, ``[n]``, non-negative, not all zero; normalised here.
        beta: non-negative scalar, in 1 / loss; 0 gives the mean under the prior, ``inf`` the largest loss.
        divergence: as in :func:`mixjax.rules.dro`. ``"cvar"`` has no penalty: ``R`` is the mean over the worst fraction
            ``1 / (1 + beta)``.
        scale: as in :func:`mixjax.rules.dro`.

    Returns:
        float32 scalar, or float64 for float64 losses.

    Raises:
        ValueError: as :func:`robust_weights`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from mixjax.rules import robust_loss
        >>> losses, prior = jnp.log(jnp.array([1.0, 3.0])), jnp.array([0.5, 0.5])
        >>> float(robust_loss(losses, prior, 1.0)), float(jnp.log(2.0))     # log of the mean of exp(L)
        (0.693, 0.693)
        >>> jax.grad(robust_loss)(losses, prior, 1.0).tolist()
        [0.25, 0.75]

    References:
        Paper 004, eq. 3 and lemma 3.2.
    """
    losses, prior, beta, scale = _robust_arguments(losses, prior, beta, divergence, scale)
    weights = _maximiser(losses, prior, beta, divergence, scale)
    value = jnp.sum(weights * jnp.where(prior > 0, losses, 0.0))
    if divergence == "cvar":
        return value
    cost = scale * penalty(weights, prior, divergence)
    # At beta = 0 the weights are the prior, whose penalty is 0, and 0 / 0 is NaN.
    return value - jnp.where(beta > 0, cost / jnp.where(beta > 0, beta, 1.0), 0.0)


def _robust_arguments(losses, prior, beta, divergence, scale):
    """Checks all arguments and casts them to float32, or to the losses' type if that is wider; normalises the prior."""
    check_arguments(beta, divergence, scale)
    losses, prior = jnp.asarray(losses), jnp.asarray(prior)
    losses = losses.astype(jnp.promote_types(losses.dtype, jnp.float32))
    check_same_shape(("n",), losses=losses, prior=prior)
    beta, scale = jnp.asarray(beta, losses.dtype), jnp.asarray(scale, losses.dtype)
    return losses, as_simplex("prior", prior, losses.dtype), beta, scale


def _maximiser(losses, prior, beta, divergence, scale):
    """Computes ``p̄``, detached from the gradient."""
    # Detached at once too, so that the solver inside log_ratios is not differentiated.
    losses = jax.lax.stop_gradient(losses)
    ratios = log_ratios(losses, prior, beta, divergence, scale)
    weights = masked_softmax(jnp.log(prior) + ratios, prior > 0)
    # At beta = 0 the closed forms agree with the prior only up to rounding.
    return jax.lax.stop_gradient(jnp.where(beta > 0, weights, prior))
