"""From per-example losses to the weighted objective: one scalar, one backward pass."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax import signals as _signals
from mixjax.types import WeightRule

__all__ = ["example_weights", "weighted_loss"]

_ESTIMATORS = ("stratified", "horvitz_thompson")


def example_weights(
    weights: ArrayLike,
    domain_ids: ArrayLike,
    counts: ArrayLike,
    *,
    estimator: str = "stratified",
    sampling_weights: ArrayLike | None = None,
) -> jax.Array:
    r"""The coefficient of each example's loss in the estimate of ``sum_d c_d L_d``.

    *Stratified*: ``c_d / n_d``, the mean over the batch's examples of ``d``. Exact for any fixed counts with
    ``n_d >= 1`` wherever ``c_d > 0``; a weighted domain that is absent contributes nothing, and the rest is not
    rescaled.
    *Horvitz-Thompson*: ``c_d / (B q_d)``. Unbiased for random counts with ``E[n_d] = B q_d`` (multinomial, stratified
    or systematic draws), absent domains included; never for the fixed counts of ``allocate``.

    Args:
        weights: loss weights ``c``, ``[D]``.
        domain_ids: int ``[B]``; ids outside ``[0, D)`` mark padding.
        counts: ``[D]``, the batch's examples of each domain; over all devices where the batch is spread.
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
    c, n = jnp.asarray(weights, jnp.float32), jnp.asarray(counts, jnp.float32)
    if estimator == "stratified":
        rows = jnp.where(n > 0, c / jnp.maximum(n, 1.0), 0.0)
    elif estimator == "horvitz_thompson":
        if sampling_weights is None:
            raise ValueError("the Horvitz-Thompson estimator needs sampling_weights, the q the batch was drawn with.")
        q = jnp.asarray(sampling_weights, jnp.float32)
        rows = jnp.where((q > 0) & (c > 0), c / jnp.where(q > 0, q, 1.0), 0.0) / jnp.maximum(n.sum(), 1.0)
    else:
        raise ValueError(f"estimator must be one of {_ESTIMATORS}, got {estimator!r}.")
    _, per_example = _signals.by_domain(jnp.asarray(domain_ids), c.size)
    return per_example(rows)


def weighted_loss(
    rule: WeightRule | None,
    state: Any,
    losses: ArrayLike,
    /,
    domain_ids: ArrayLike,
    *,
    update: bool = True,
    estimator: str = "stratified",
    sampling_weights: ArrayLike | None = None,
    axis_name: str | None = None,
    **signals: ArrayLike,
) -> tuple[jax.Array, Any]:
    r"""The objective ``sum_d c_d L_d`` of a batch, and the rule's new state.

    Its gradient is the estimate ``g`` of ``sum_d c_d ∇L_d`` by the named estimator, see :func:`example_weights`. Its
    scale depends on neither the batch's composition, nor accumulation, nor the number of domains.

    With ``update=True`` the rule is updated on this very batch and its new weights are used: convenient, and biased at
    small counts, since the weights then depend on the examples they weight. With ``update=False`` the state's weights
    are used and it comes back as it is: the loop that updates on a separate probe, ``rule.update(state, **probe)``.

    Args:
        rule: a rule for the loss weights; None will do where ``update`` is False.
        state: its state.
        losses: per-example losses ``[B]``, any float dtype; computed in float32. By position, since the keyword
            ``losses`` is the signal.
        domain_ids: int ``[B]``; ids outside ``[0, D)`` mark padding.
        update: a Python bool.
        estimator: ``"stratified"`` or ``"horvitz_thompson"``.
        sampling_weights: ``q``, ``[D]``; needed by Horvitz-Thompson, and passed on to the rule.
        axis_name: mapped axis over which the batch is spread. Moments are then those of the whole batch, and the scalar
            is the whole objective on every device: under ``shard_map`` its gradient with respect to replicated
            parameters is complete, and under ``vmap`` or ``pmap`` with an axis name the ``pmean`` of the gradients is.
        **signals: override the measured ``losses``, ``loss_vars`` and ``counts``, or add to them.

    Returns:
        ``(objective, state)``: float32 scalar, and the state as auxiliary output for
        ``jax.value_and_grad(..., has_aux=True)``. No gradient flows through the weights. A NaN loss in a domain of
        positive weight makes the objective NaN and leaves the domain's weight as an unseen one's.

    Raises:
        ValueError: shapes that do not fit, an unknown estimator, Horvitz-Thompson without ``sampling_weights``.
        TypeError: a signal the rule needs and nobody gave.

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
    measured = _signals.moments(jax.lax.stop_gradient(losses), domain_ids, state.weights.size)
    if axis_name is not None:
        measured = _signals.psum(measured, axis_name)
    if update:
        extra = {} if sampling_weights is None else {"sampling_weights": sampling_weights}
        state = rule.update(state, **{**measured.signals(), **extra, **signals})
    coefficients = example_weights(
        jax.lax.stop_gradient(state.weights),
        domain_ids,
        measured.count,
        estimator=estimator,
        sampling_weights=sampling_weights,
    )
    objective = jnp.sum(jnp.where(coefficients > 0, coefficients * losses, 0.0))
    return objective if axis_name is None else jax.lax.psum(objective, axis_name), state
