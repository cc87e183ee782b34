"""Combines per-example losses into one scalar to differentiate, with the weights of a rule."""

from __future__ import annotations

from typing import Any, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import check_choice
from mixjax.signals import domain_sums, moments, psum
from mixjax.types import Estimator, WeightRule

__all__ = ["example_weights", "weighted_loss"]


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
