"""Combines per-example losses into one scalar to differentiate, with the weights of a rule."""

from __future__ import annotations

from typing import Any, get_args

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from mixjax.checks import as_ids, check_choice, check_leading_axes, check_real, check_shape
from mixjax.meshes import is_unchecked, spec_of, with_auto_axes
from mixjax.signals import domain_sums, expand, moments, psum
from mixjax.types import Estimator, WeightRule

__all__ = ["example_weights", "weighted_loss"]


def example_weights(
    weights: ArrayLike,
    domain_ids: ArrayLike,
    counts: ArrayLike,
    *,
    mask: ArrayLike | None = None,
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
        domain_ids: integers of any type, ``[B]`` or of more axes; ids outside ``[0, D)`` mark padding.
        counts: ``n``, ``[D]``, the batch's examples of each domain; over all devices where the batch is spread.
        mask: of the leading axes of ``domain_ids``, or with axes behind them, such as ``[B, T]`` for ids ``[B]``. 0 or
            False marks further padding.
        estimator: ``"stratified"`` or ``"horvitz_thompson"``.
        sampling_weights: ``q``, ``[D]``, needed by Horvitz-Thompson.

    Returns:
        float32, of the shape of ``domain_ids``, or of ``mask`` where that has more axes; 0 for padding. ``c/q`` is 0
        where either is 0.

    Raises:
        ValueError: shapes that do not fit, an unknown estimator, or Horvitz-Thompson without ``sampling_weights``.
        TypeError: ids that are not integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax.objectives import example_weights
        >>> example_weights(jnp.array([0.5, 0.5]), jnp.array([0, 0, 1]), jnp.array([2, 1])).tolist()
        [0.25, 0.25, 0.5]

    References:
        Paper 000, eq. 5 and algorithm 1, line 5. Horvitz and Thompson, JASA 1952.
    """
    check_choice("estimator", estimator, get_args(Estimator))
    c, n = jnp.asarray(weights).astype(jnp.float32), jnp.asarray(counts).astype(jnp.float32)
    check_shape("weights", c, ("D",), "one entry per domain")
    check_shape("counts", n, c.shape, "one entry per domain")
    ids = as_ids("domain_ids", domain_ids)
    if mask is not None:
        mask = jnp.asarray(mask)
        if mask.ndim > ids.ndim:
            check_leading_axes("domain_ids", ids, "mask", mask)
        else:
            check_leading_axes("mask", mask, "domain_ids", ids)
    if estimator == "stratified":
        coefficients = jnp.where(n > 0, c / jnp.maximum(n, 1.0), 0.0)
    else:
        if sampling_weights is None:
            raise ValueError("the Horvitz-Thompson estimator needs sampling_weights, the q the batch was drawn with.")
        q = jnp.asarray(sampling_weights).astype(jnp.float32)
        check_shape("sampling_weights", q, c.shape, "one entry per domain")
        ratio = jnp.where((q > 0) & (c > 0), c / jnp.where(q > 0, q, 1.0), 0.0)
        coefficients = ratio / jnp.maximum(n.sum(), 1.0)

    def look_up(coefficients, ids, mask):
        found = domain_sums(ids, c.size).per_example(coefficients)
        if mask is None:
            return found
        ndim = max(found.ndim, mask.ndim)
        return jnp.where(expand(mask.astype(bool), ndim), expand(found, ndim), 0.0)

    spec = spec_of(mask if mask is not None and mask.ndim > ids.ndim else ids)
    return with_auto_axes(look_up, spec)(coefficients, ids, mask)


def weighted_loss(
    rule: WeightRule | None,
    state: Any,
    losses: ArrayLike,
    /,
    domain_ids: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    update: bool = True,
    estimator: Estimator = "stratified",
    sampling_weights: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
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
    - With ``None`` for the rule, the weights are fixed and nothing is ever updated. They are given in place of the
      state, as an array: ``weighted_loss(None, mixjax.get_weights(opt_state), losses, ids)``.

    *Tokens.* Losses of a language model are ``[B, T]``, with an id for each sequence, ``[B]``, or for each token,
    ``[B, T]``, and a ``mask`` that is 0 at padding. Every token that is not masked then counts as one example: ``L_d``
    is the mean over the domain's tokens, the signal ``counts`` counts tokens, and Horvitz-Thompson takes for ``q`` the
    domains' shares of tokens. (With their shares of sequences it would weight a domain by the length of its sequences
    as well.) Where each sequence shall count the same, whatever its length, average its losses over its tokens first
    and pass ``[B]``.

    *Devices.* Where a batch is spread over devices by ``jit`` and a mesh, there is nothing to do. Under ``shard_map``
    give ``axis_name``: the gradient with respect to replicated parameters is then complete on every device. That takes
    ``shard_map``'s default ``check_vma=True``. With ``check_vma=False`` JAX leaves it to you to add up gradients, so
    the objective can be evaluated there, but not differentiated. Differentiate the device's own part instead, and add
    up the gradients::

        found = signals.psum(signals.moments(losses, ids, num_domains), axis_name)
        own = jnp.sum(example_weights(weights, ids, found.count) * losses)      # to be differentiated
        grads = jax.lax.psum(grads, axis_name)

    Args:
        rule: a rule for the loss weights, or None for fixed weights.
        state: the rule's state. Without a rule, also an array of weights ``[D]``, used as they are.
        losses: ``[B]``, one for each example, or ``[B, T]``, one for each token, or of more axes. Any float dtype;
            computed in float32. Given by position, since the keyword ``losses`` is the signal.
        domain_ids: integers of any type, ``[B]``, or of more of the leading axes of ``losses``. An id holds for all
            losses behind it. Ids outside ``[0, D)`` mark padding.
        mask: ``[B]``, or of more of the leading axes of ``losses``: 0 or False marks further padding. Losses there may
            be NaN.
        update: True updates the rule first; a Python bool, not traced.
        estimator: ``"stratified"`` or ``"horvitz_thompson"``.
        sampling_weights: ``q``, ``[D]``; needed by Horvitz-Thompson, and passed on to the rule as a signal.
        axis_name: mapped axis over which the batch is spread, or several. The moments are then measured on the whole
            batch, and the scalar is the whole objective on every device. Under ``vmap`` with an axis name, take the
            ``pmean`` of the gradients; recent versions of JAX treat ``pmap`` as ``shard_map`` with ``check_vma=False``.
        **signals: further signals for the rule. ``losses``, ``loss_vars`` and ``counts`` given here replace the
            measured ones for the rule; the objective always uses the batch's own.

    Returns:
        ``(objective, state)``: float32 scalar, and the state as auxiliary output for
        ``jax.value_and_grad(..., has_aux=True)``. No gradient flows through the weights. A NaN loss in a domain of
        positive weight makes the objective NaN and leaves the domain's weight as an unseen one's.

    Raises:
        ValueError: shapes that do not fit, an unknown estimator, Horvitz-Thompson without ``sampling_weights``, or a
            derivative under ``shard_map`` with ``check_vma=False``.
        TypeError: ids that are not integers, complex losses, a signal the rule needs and nobody gave, or weights in
            place of the state of a rule.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.fgls()
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> losses, ids = jnp.array([1.0, 1.0, 3.0]), jnp.array([0, 0, 1])
        >>> objective, state = mixjax.weighted_loss(rule, state, losses, ids)
        >>> round(float(objective), 4), state.weights.tolist()      # 3/4 * 1 + 1/4 * 3
        (1.5, [0.75, 0.25])

        Tokens of two sequences, the last of which is padding, with fixed weights:

        >>> losses, mask = jnp.array([[1.0, 3.0], [4.0, jnp.nan]]), jnp.array([[1, 1], [1, 0]])
        >>> objective, weights = mixjax.weighted_loss(None, jnp.array([0.5, 0.5]), losses, jnp.array([0, 1]), mask=mask)
        >>> float(objective)                                        # 1/2 * (1 + 3) / 2 + 1/2 * 4
        3.0

    References:
        Paper 000, eq. 5; algorithm 1, line 5.
    """
    losses = jnp.asarray(losses)
    check_real("losses", losses)
    losses = losses.astype(jnp.float32)
    # Here as well as in moments, which calls the losses values.
    check_leading_axes("domain_ids", domain_ids, "losses", losses)
    if mask is not None:
        check_leading_axes("mask", mask, "losses", losses)
    weights = _weights_of(rule, state)
    measured = moments(jax.lax.stop_gradient(losses), domain_ids, weights.size, mask=mask)
    # The weights have to be the same on every device, so they are computed from the moments of the whole batch.
    if axis_name is not None:
        measured = psum(measured, axis_name)
    if update and rule is not None:
        extra = {} if sampling_weights is None else {"sampling_weights": sampling_weights}
        state = rule.update(state, **{**measured.signals(), **extra, **signals})
        weights = state.weights
    coefficients = example_weights(
        jax.lax.stop_gradient(weights),
        domain_ids,
        measured.count,
        mask=mask,
        estimator=estimator,
        sampling_weights=sampling_weights,
    )
    objective = with_auto_axes(_weighted_sum, PartitionSpec())(coefficients, losses)
    if axis_name is not None:
        objective = jax.lax.psum(objective, axis_name)
        if is_unchecked(axis_name):
            objective = _without_derivative(objective)
    return objective, state


def _weights_of(rule: WeightRule | None, state: Any) -> jax.Array:
    """Reads the weights of a rule's state; without a rule, an array is taken for the weights themselves."""
    if hasattr(state, "weights"):
        return state.weights
    if rule is not None:
        raise TypeError(
            f"state must be the rule's, from rule.init(prior), got {type(state).__name__}; "
            "for fixed weights pass None for the rule."
        )
    try:
        weights = jnp.asarray(state)
    except (TypeError, ValueError):
        raise TypeError(
            f"without a rule, state must be weights [D], got {type(state).__name__}; "
            "mixjax.get_weights(opt_state) reads them from an optimizer's state."
        ) from None
    check_shape("weights", weights, ("D",), "one entry per domain")
    if weights.size == 0:
        raise ValueError(f"weights must have at least one entry, one per domain, got shape {weights.shape}.")
    return weights


def _weighted_sum(coefficients, losses):
    coefficients = expand(coefficients, losses.ndim)
    # A NaN loss of padding or of a domain of weight zero, times its coefficient of 0, would be NaN.
    return jnp.sum(coefficients * jnp.where(coefficients != 0, losses, 0.0))


@jax.custom_jvp
def _without_derivative(objective):
    """Returns the objective, and raises an error where it is differentiated."""
    return objective


@_without_derivative.defjvp
def _refuse(primals, tangents):
    raise ValueError(
        "weighted_loss(axis_name=...) cannot be differentiated under shard_map(check_vma=False) or pmap, where no "
        "device would get the whole gradient: use check_vma=True; or differentiate "
        "sum(example_weights(weights, domain_ids, counts) * losses) with the whole batch's counts, and psum the "
        "gradients."
    )
