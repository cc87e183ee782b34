"""Weight rules: the one concept of mixjax.

Training on several domains asks two separate questions.

*What do we optimise?*  The loss weights ``c``, each domain's share of the objective
``L_c(params) = sum_d c_d L_d(params)``.

*What do we look at?*  The sampling weights ``q``, each domain's share of the batch.

Both are points of the simplex over ``D`` domains and both may move during training. ``c`` moves the optimum; ``q``
moves only the variance, because the gradient estimate corrects for it. A domain is any partition of the examples.

A :class:`WeightRule` says how such a point moves. It has the shape of an optax transformation, for weights of domains
instead of gradients::

    rule = mixjax.rules.erma(gamma1=0.01, gamma2=0.05)
    state = rule.init(prior)                                                        # prior: [D]
    state = rule.update(state, counts=counts, losses=losses, loss_vars=loss_vars)   # one row per domain
    state.weights                                                                   # float32 [D], on the simplex

``update`` is pure, so it runs under ``jit``, ``vmap``, ``scan`` and ``shard_map``. What it looks at comes as keyword
arguments from the closed vocabulary :data:`SIGNALS`: a rule names the ones it needs (a missing one is a ``TypeError``
that names it) and swallows the rest, so a loss rule and a sampling rule can be fed the same dictionary.

A row is *unseen* in an update when its count is 0 or when a signal the rule reads is not finite there. Rules that move
multiplicatively leave the weight of an unseen row exactly as it was and move only the total of the seen rows; rules in
closed form use the row's last seen signal and, before the first one, keep the row's prior share. Counts that are all
zero mean no news: the state comes back unchanged. No gradient ever flows through weights.

Four thin adapters connect rules to training: :func:`mixjax.weighted_loss` (per-example losses to a scalar),
:func:`mixjax.aggregate` and :func:`mixjax.track` (inside an optax chain), and the samplers (weights to counts, to
domain ids, to example indices).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

__all__ = ["SIGNALS", "WeightRule", "WeightState"]

SIGNALS = {
    "counts": "number of examples behind the row's signals (probe or batch); 0 means unseen",
    "losses": "mean loss",
    "loss_vars": "variance of the loss over examples, divisor n - 1",
    "loss_weights": "loss weights c, on the simplex",
    "sampling_weights": "sampling weights q, on the simplex",
    "grad_stds": "standard deviation of the per-example gradient, a Euclidean norm (paper 000, eq. 15)",
    "grad_norms": "root mean square of the per-example gradient norm (doge: norm of the mean gradient)",
    "hypergrads": "dF/dc: derivative of a validation loss with respect to the loss weights",
    "reference_losses": "mean loss of a reference model",
}
"""The closed vocabulary of signals: keyword arguments of ``WeightRule.update``, each of shape ``[D]``."""


class WeightState(NamedTuple):
    """State of a rule that remembers nothing else; every rule's state begins with these two fields.

    Attributes:
        weights: float32 ``[D]``, on the simplex. Zero wherever the prior is zero.
        prior: float32 ``[D]``, the normalised prior.
    """

    weights: jax.Array
    prior: jax.Array


class WeightRule(NamedTuple):
    """A pair of pure functions that says how the weights of ``D`` domains move.

    Attributes:
        init: ``init(prior) -> state``; ``prior`` is a non-negative vector ``[D]``, normalised by ``init``.
        update: ``update(state, *, counts, **signals) -> state``; every signal has one row per domain.

    Example:
        A rule of your own, weights proportional to the prior times the last mean loss; ``mixjax.rules.base`` has what
        the contract asks of it (normalised prior, unseen rows, no news):

        >>> import jax.numpy as jnp
        >>> from mixjax import checks
        >>> from mixjax.rules import base
        >>> from mixjax.types import WeightRule, WeightState
        >>> def init(prior):
        ...     prior = checks.as_simplex("prior", prior)
        ...     return WeightState(prior, prior)
        >>> def update(state, *, counts, losses, **signals):
        ...     seen, losses = base.read_signals(state, counts, losses=losses)
        ...     weights = base.share(state.weights, jnp.log(state.prior) + jnp.log(losses), seen)
        ...     return base.if_news(counts, WeightState(weights, state.prior), state)
        >>> rule = WeightRule(init, update)
        >>> state = rule.init([1, 1, 2])
        >>> rule.update(state, counts=jnp.array([4, 4, 0]), losses=jnp.array([1.0, 3.0, jnp.nan])).weights.tolist()
        [0.125, 0.375, 0.5]
    """

    init: Callable[[jax.typing.ArrayLike], Any]
    update: Callable[..., Any]
