"""Combines losses into one scalar to differentiate: by a rule's weights, or robustly over the losses themselves."""

from __future__ import annotations

from typing import Any, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_choice, check_same_shape
from mixjax.rules.base import masked_softmax
from mixjax.rules.divergences import Divergence, check_arguments, log_ratios, penalty
from mixjax.signals import domain_sums, moments, psum
from mixjax.types import Estimator, WeightRule

__all__ = ["example_weights", "robust_loss", "robust_weights", "weighted_loss"]


def example_weights(
    weights: ArrayLike,
    domain_ids: ArrayLike,
    counts: ArrayLike,
    *,
    estimator: Estimator = "stratified",
    sampling_weights: ArrayLike | None = None,
) -> jax.Array:
    r"""Returns the coefficient of each example's loss in the estimate of ``sum_d c_d L_d``.

    - *Stratified*: ``c_d / n_d``, so that each domain counts by the mean over its examples in the batch. The estimate
      is unbiased for any fixed counts with ``n_d >= 1`` wherever ``c_d > 0``. A weighted domain that is absent
      contributes nothing, and the rest is not rescaled.
    - *Horvitz-Thompson*: ``c_d / (B q_d)`` with ``B = sum(counts)``. The estimate is unbiased for random counts with
      ``E[n_d] = B q_d``, such as those of ``multinomial``, ``stratified`` and ``systematic`` in :mod:`mixjax.samplers`,
      also where domains are absent. It is biased for the fixed counts of :func:`mixjax.samplers.allocate`.

    Args:
        weights: loss weights ``c``, ``[D]``.
        domain_ids: int ``[B]``; ids outside ``[0, D)`` mark padding.
        counts: ``n``, ``[D]``, the batch's examples of each domain; over all devices where the batch is spread.
        estimator: ``"stratified"`` or ``"horvitz_thompson"``.
        sampling_weights: ``q``, ``[D]``, needed by Horvitz-Thompson.

    Returns:
        float32 ``[B]``; 0 for padding. ``c/q`` is 0 where either is 0.

    Raises:
        ValueError: an unknown estimator, or Horvitz-Thompson without ``sampling_weights``.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax.objectives import example_weights
        >>> example_weights(jnp.array([0.5, 0.5]), jnp.array([0, 0, 1]), jnp.array([2, 1])).tolist()
        [0.25, 0.25, 0.5]

    References:
        Paper 000, eq. 5 and algorithm 1, line 5. Horvitz and Thompson, JASA 1952.
    """
    check_choice("estimator", estimator, get_args(Estimator))
    c, n = jnp.asarray(weights, jnp.float32), jnp.asarray(counts, jnp.float32)
    if estimator == "stratified":
        coefficients = jnp.where(n > 0, c / jnp.maximum(n, 1.0), 0.0)
    else:
        if sampling_weights is None:
            raise ValueError("the Horvitz-Thompson estimator needs sampling_weights, the q the batch was drawn with.")
        q = jnp.asarray(sampling_weights, jnp.float32)
        ratio = jnp.where((q > 0) & (c > 0), c / jnp.where(q > 0, q, 1.0), 0.0)
        coefficients = ratio / jnp.maximum(n.sum(), 1.0)
    return domain_sums(jnp.asarray(domain_ids), c.size).per_example(coefficients)


def weighted_loss(
    rule: WeightRule | None,
    state: Any,
    losses: ArrayLike,
    /,
    domain_ids: ArrayLike,
    *,
    update: bool = True,
    estimator: Estimator = "stratified",
    sampling_weights: ArrayLike | None = None,
    axis_name: str | None = None,
    **signals: ArrayLike,
) -> tuple[jax.Array, Any]:
    r"""Computes the objective ``sum_d c_d L_d`` of a batch, and the rule's new state.

    The gradient of the objective is the estimate of ``sum_d c_d ∇L_d`` by the named estimator, see
    :func:`example_weights`. The scale of the objective does not depend on the number of domains, nor on how many
    examples of each the batch has, as long as no domain of positive weight is absent.

    - With ``update=True`` the rule is updated on this very batch, and the new weights are used. This is convenient, and
      biased at small counts, since the weights then depend on the examples they weight.
    - With ``update=False`` the state's weights are used, and the state comes back as it is. Loops that update on a
      separate probe use this, with ``rule.update(state, **probe)``.

    Args:
        rule: a rule for the loss weights; None will do where ``update`` is False.
        state: its state.
        losses: per-example losses ``[B]``, any float dtype; computed in float32. Given by position, since the keyword
            ``losses`` is the signal.
        domain_ids: int ``[B]``; ids outside ``[0, D)`` mark padding.
        update: True updates the rule first; a Python bool, not traced.
        estimator: ``"stratified"`` or ``"horvitz_thompson"``.
        sampling_weights: ``q``, ``[D]``; needed by Horvitz-Thompson, and passed on to the rule as a signal.
        axis_name: mapped axis over which the batch is spread. The moments are then measured on the whole batch, and
            the scalar is the whole objective on every device. Under ``shard_map`` its gradient with respect to
            replicated parameters is complete; under ``vmap`` or ``pmap`` with an axis name, take the ``pmean`` of the
            gradients.
        **signals: further signals for the rule. ``losses``, ``loss_vars`` and ``counts`` given here replace the
            measured ones for the rule; the objective always uses the batch's own.

    Returns:
        ``(objective, state)``: float32 scalar, and the state as auxiliary output for
        ``jax.value_and_grad(..., has_aux=True)``. No gradient flows through the weights. A NaN loss in a domain of
        positive weight makes the objective NaN and leaves the domain's weight as an unseen one's.

    Raises:
        ValueError: shapes that do not fit, an unknown estimator, Horvitz-Thompson without ``sampling_weights``.
        TypeError: a signal the rule needs and nobody gave, or no rule where ``update`` is True.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.fgls()
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> losses, ids = jnp.array([1.0, 1.0, 3.0]), jnp.array([0, 0, 1])
        >>> objective, state = mixjax.weighted_loss(rule, state, losses, ids)
        >>> round(float(objective), 4), state.weights.tolist()      # 3/4 * 1 + 1/4 * 3
        (1.5, [0.75, 0.25])

    References:
        Paper 000, eq. 5; algorithm 1, line 5.
    """
    losses = jnp.asarray(losses).astype(jnp.float32)
    measured = moments(jax.lax.stop_gradient(losses), domain_ids, state.weights.size)
    # The weights have to be the same on every device, so they are computed from the moments of the whole batch.
    if axis_name is not None:
        measured = psum(measured, axis_name)
    if update:
        if rule is None:
            raise TypeError("weighted_loss needs a rule to update; without one, pass update=False.")
        extra = {} if sampling_weights is None else {"sampling_weights": sampling_weights}
        state = rule.update(state, **{**measured.signals(), **extra, **signals})
    coefficients = example_weights(
        jax.lax.stop_gradient(state.weights),
        domain_ids,
        measured.count,
        estimator=estimator,
        sampling_weights=sampling_weights,
    )
    # A NaN loss of padding or of a domain of weight zero, times its coefficient of 0, would be NaN.
    objective = jnp.sum(jnp.where(coefficients > 0, coefficients * losses, 0.0))
    if axis_name is not None:
        objective = jax.lax.psum(objective, axis_name)
    return objective, state


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
        >>> from mixjax.objectives import robust_weights
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
        >>> from mixjax.objectives import robust_loss
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
    # Called for its checks only: the float32 that it returns would cost float64 losses half of their digits.
    as_simplex("prior", prior)
    prior, beta, scale = (jnp.asarray(x, losses.dtype) for x in (prior, beta, scale))
    return losses, prior / prior.sum(), beta, scale


def _maximiser(losses, prior, beta, divergence, scale):
    """Computes ``p̄``, detached from the gradient."""
    # Detached at once too, so that the solver inside log_ratios is not differentiated.
    losses = jax.lax.stop_gradient(losses)
    ratios = log_ratios(losses, prior, beta, divergence, scale)
    weights = masked_softmax(jnp.log(prior) + ratios, prior > 0)
    # At beta = 0 the closed forms agree with the prior only up to rounding.
    return jax.lax.stop_gradient(jnp.where(beta > 0, weights, prior))
