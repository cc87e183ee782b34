"""Implements weights that do not move: the prior, uniform, a temperature of the prior, or given values."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_positive, check_shape
from mixjax.rules.base import first_state, masked_softmax
from mixjax.rules.states import ConstantState
from mixjax.types import WeightRule

__all__ = ["fixed"]


def fixed(weights: ArrayLike | None = None, *, temperature: ArrayLike = 1.0) -> WeightRule:
    r"""Keeps constant weights ``c_d ∝ p_d^(1/temperature)``, with ``p`` the prior or the given weights.

    A temperature of 1 gives ``p`` itself (plain SGD where ``p`` is the prior), above 1 flattens it, and ``inf`` is
    uniform over the domains with ``p_d > 0``.

    Args:
        weights: non-negative ``[D]`` in place of the prior; normalised here. Domains of prior zero stay at zero.
        temperature: positive scalar, ``inf`` included.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.ConstantState`. Signals: none.

    Raises:
        ValueError: a temperature that is not positive, or weights that do not match the prior's shape, are negative,
            not finite or all zero where the prior is positive.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> mixjax.rules.fixed(temperature=2.0).init(jnp.array([0.8, 0.2])).weights.tolist()
        [0.667, 0.333]

    References:
        Temperature sampling of multilingual pretraining; exponent ``1/temperature`` as in Devlin et al., multilingual
        BERT. Papers that write "a temperature of 0.3" mean the exponent, ``fixed(temperature=1 / 0.3)`` here. UniMax is
        ``cap(fixed(temperature=inf), sizes * max_epochs / budget)``, see :func:`mixjax.rules.cap`.
    """
    check_positive("temperature", temperature)

    def init(prior):
        prior = as_simplex("prior", prior)
        if weights is None:
            base = prior
        else:
            given = jnp.asarray(weights, jnp.float32)
            check_shape("weights", given, prior.shape, "the prior's shape")
            # Zeroed where the prior is zero and normalised again, so that no weight is lost.
            base = as_simplex("weights", jnp.where(prior > 0, given, 0.0))
        logs = jnp.log(base)
        below = logs - logs.max()
        # The division may give -inf or NaN; the largest entry, whose 0 is not divided, has a share at any temperature.
        logits = jnp.where(below < 0, below / jnp.float32(temperature), 0.0)
        return first_state(ConstantState, prior, weights=masked_softmax(logits, base > 0))

    def update(state, *, counts, **signals):
        del counts, signals
        return state

    return WeightRule(init, update)
