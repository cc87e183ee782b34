"""Defines weight rules, the one concept of mixjax.

Training on several domains asks two separate questions.

*What do we optimise?*  The loss weights ``c``, each domain's share of the objective
``L_c(params) = sum_d c_d L_d(params)``.

*What do we look at?*  The sampling weights ``q``, each domain's share of the batch.

Both are points of the simplex over ``D`` domains, and both may move during training. ``c`` moves the optimum. ``q``
moves only the variance, because the gradient estimate corrects for ``q``. Any partition of the examples may serve as
the domains.

A :class:`WeightRule` says how such a point moves. A rule is a pair ``(init, update)`` like an optax transformation, but
``update`` takes signals instead of gradients and returns the new state only. The weights are its first field::

    rule = mixjax.rules.erma(gamma1=0.01, gamma2=0.05)
    state = rule.init(prior)                                                        # prior: [D]
    state = rule.update(state, counts=counts, losses=losses, loss_vars=loss_vars)   # one row per domain
    state.weights                                                                   # float32 [D], on the simplex

``update`` is pure, so it runs under ``jit``, ``vmap``, ``scan`` and ``shard_map``. The signals it looks at are keyword
arguments from the closed vocabulary :data:`SIGNALS`. A rule names the signals it needs, and a missing one raises a
``TypeError`` that names it. A rule ignores all other signals, so a loss rule and a sampling rule can be given the same
dictionary.

A domain's row is *unseen* in an update when its count is 0, when its prior is 0, or when a signal that the rule reads
is not finite there:

- Rules that step from the current weights (``erma``, ``mirror_descent``, ...) leave the weight of an unseen row exactly
  as it was. They move only the weights of the seen rows, whose total stays the same.
- Rules that compute the weights anew from the signals (``fgls``, ``dro``, ...) use the last signal seen in that row.
  Before the first one, the row keeps its prior share.
- The wrapper ``smooth`` is an exception: its average follows the wrapped weights in all rows.
- Counts that are all zero mean that there is no news, and the state comes back unchanged.

No gradient ever flows through weights.

Four thin adapters connect rules to training: :func:`mixjax.weighted_loss` (per-example losses to a scalar),
:func:`mixjax.aggregate` and :func:`mixjax.track` (inside an optax chain), and the samplers (weights to counts, to
domain ids, to example indices).

The docstrings of mixjax cite the papers it implements by number:

- paper 000: Salmani, Worah, Razaviyayn and Mirrokni, "Sampling and loss weights in multi-domain training";
- papers 001 and 002: Das, Patel, Razaviyayn and Mirrokni, "Less is more: convergence benefits of fewer data weight
  updates over longer horizon", of which only the abstract was available;
- paper 003: An and Ying, "Combining resampling and reweighting for faithful stochastic optimization";
- paper 004: Fidon, Ourselin and Vercauteren, "Distributionally robust deep learning using hardness weighted sampling".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
from jax.typing import ArrayLike

__all__ = ["SIGNALS", "UNKNOWN", "Estimator", "Update", "WeightRule", "WeightState"]

Estimator = Literal["stratified", "horvitz_thompson"]
"""The two estimates of ``sum_d c_d L_d`` from a batch; :func:`mixjax.objectives.example_weights` defines both."""

SIGNALS = {
    "counts": "number of examples behind the row's signals (probe or batch); 0 means unseen",
    "losses": "mean loss",
    "loss_vars": "variance of the loss over examples, divisor n - 1",
    "loss_weights": "loss weights c, on the simplex",
    "sampling_weights": "sampling weights q, on the simplex",
    "grad_stds": "root of the mean squared distance of per-example gradients from their mean (paper 000, eq. 15)",
    "grad_norms": "root mean square of the per-example gradient norm; for doge the norm of the mean gradient",
    "hypergrads": "dF/dc: derivative of a validation loss with respect to the loss weights",
    "reference_losses": "mean loss of a reference model",
}
"""The closed vocabulary of signals: keyword arguments of ``WeightRule.update``, each of shape ``[D]``."""

UNKNOWN = math.inf
"""The value of a signal's row of which nothing is known, such as the loss of an absent domain.

Rules treat any number that is not finite as unknown, so NaN will do as well. mixjax itself writes infinity, because a
NaN that is meant stops every program that runs under ``jax_debug_nans``.
"""


class Update(Protocol):
    """Describes ``WeightRule.update``: a pure function of a state and keyword signals that returns the new state."""

    # To type checkers *args and **signals, both Any, mean "any other arguments": a rule may name its signals.
    def __call__(self, state: Any, *args: Any, counts: ArrayLike, **signals: Any) -> Any:
        """Returns the state after the weights have moved.

        Args:
            state: the rule's state.
            *args: unused; present for type checkers only.
            counts: ``[D]``, examples behind each row's signals.
            **signals: the other signals, by the names of :data:`SIGNALS`, ``[D]`` each.
        """
        ...


class WeightState(NamedTuple):
    """Holds the weights and the prior. The state of every rule begins with these two fields.

    Attributes:
        weights: float32 ``[D]``, on the simplex. Zero wherever the prior is zero.
        prior: float32 ``[D]``, the normalised prior.
    """

    weights: jax.Array
    prior: jax.Array


class WeightRule(NamedTuple):
    """Holds the two pure functions that start and move the weights of ``D`` domains.

    Attributes:
        init: ``init(prior) -> state``; ``prior`` is a non-negative vector ``[D]``, normalised by ``init``.
        update: ``update(state, *, counts, **signals) -> state``; every signal has one row per domain.

    Example:
        Here is a rule of your own, with weights proportional to the prior times the last mean loss. The contract asks
        for a normalised prior, for a state that can be donated (no two of its arrays share memory), and for care with
        unseen rows and with updates without news. ``mixjax.rules.base`` has a function for each:

        >>> import jax.numpy as jnp
        >>> from mixjax import checks
        >>> from mixjax.rules import base
        >>> from mixjax.types import WeightRule, WeightState
        >>> def init(prior):
        ...     prior = checks.as_simplex("prior", prior)
        ...     return base.first_state(WeightState, prior)
        >>> def update(state, *, counts, losses, **signals):
        ...     seen, losses = base.read_signals(state, counts, losses=losses)
        ...     weights = base.share(state.weights, jnp.log(state.prior) + jnp.log(losses), seen)
        ...     return base.if_news(counts, WeightState(weights, state.prior), state)
        >>> rule = WeightRule(init, update)
        >>> state = rule.init([1, 1, 2])
        >>> rule.update(state, counts=jnp.array([4, 4, 0]), losses=jnp.array([1.0, 3.0, jnp.nan])).weights.tolist()
        [0.125, 0.375, 0.5]
    """

    init: Callable[[ArrayLike], Any]
    update: Update
