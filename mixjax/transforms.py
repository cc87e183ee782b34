"""Rules inside optax: ``aggregate`` weights stacked gradients, ``track`` only keeps the weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mixjax.types import WeightRule

__all__ = ["AggregateState", "TrackState", "aggregate", "get_weights", "track"]


class AggregateState(NamedTuple):
    """State of :func:`aggregate`: ``rule_state``, whose first field is ``weights``."""

    rule_state: Any


class TrackState(NamedTuple):
    """State of :func:`track`: ``rule_state``, whose first field is ``weights``."""

    rule_state: Any


def _update_rule(name, rule, rule_state, signals):
    if "counts" not in signals:
        raise TypeError(
            f"{name} got no domain signals: call tx.update(grads, state, params, counts=..., ...) with the rule's "
            "signals as keyword arguments. A wrapper that drops extra arguments (optax.MultiSteps inside a chain, a "
            "GradientTransformation without extra args) has to go; mixjax.accumulate keeps them."
        )
    return rule.update(rule_state, **signals)


def aggregate(rule: WeightRule, prior: ArrayLike) -> optax.GradientTransformationExtraArgs:
    r"""Turns stacked per-domain mean gradients into one gradient, ``sum_d c_d g_d``, with the rule's new weights.

    First in the chain: it takes ``updates`` of shapes ``[D, *param]`` and gives ``[*param]``, which the transformations
    behind it see as an ordinary gradient.

    Args:
        rule: a rule for the loss weights.
        prior: non-negative ``[D]``.

    Signals:
        the rule's, as extra arguments of ``tx.update``; ``counts`` always. Gradient rows of absent domains are zeros,
        and rows of weight zero are not read.

    Returns:
        An ``optax.GradientTransformationExtraArgs`` with state :class:`AggregateState`. Sums are float32; the result
        has the gradients' dtype.

    Raises:
        TypeError: ``update`` without ``counts`` or without a signal the rule needs.
        ValueError: gradients whose leading axis is not ``D``.

    Example:
        >>> import jax.numpy as jnp, mixjax, optax
        >>> tx = optax.chain(mixjax.aggregate(mixjax.rules.fgls(), jnp.array([0.5, 0.5])), optax.sgd(1.0))
        >>> params = jnp.zeros(2)
        >>> state, grads = tx.init(params), jnp.array([[4.0, 0.0], [0.0, 4.0]])
        >>> updates, state = tx.update(grads, state, params, losses=jnp.array([1.0, 3.0]), counts=jnp.array([8, 8]))
        >>> updates.tolist()
        [-3.0, -1.0]

    References:
        Paper 000, eq. 5; algorithm 1, line 5 (weights divided by their sum).
    """

    def init(params):
        del params
        return AggregateState(rule.init(prior))

    def update(updates, state, params=None, **signals):
        del params
        rule_state = _update_rule("aggregate", rule, state.rule_state, signals)
        weights = jax.lax.stop_gradient(rule_state.weights)

        def combine(grads):
            if grads.ndim < 1 or grads.shape[0] != weights.size:
                raise ValueError(
                    f"aggregate takes stacked gradients, leading axis {weights.size} (domains), got {grads.shape}."
                )
            c = weights.reshape(-1, *[1] * (grads.ndim - 1))
            return jnp.where(c > 0, c * grads.astype(jnp.float32), 0.0).sum(axis=0).astype(grads.dtype)

        return jax.tree.map(combine, updates), AggregateState(rule_state)

    return optax.GradientTransformationExtraArgs(init, update)


def track(rule: WeightRule, prior: ArrayLike) -> optax.GradientTransformationExtraArgs:
    """Keeps a rule's state inside an optax chain; gradients pass unchanged.

    The weights are read back with :func:`get_weights` and are for the next step: they weight its loss, or draw its
    batch. A loss rule and a sampling rule together go into ``optax.named_chain``.

    Args:
        rule: a rule for loss weights or for sampling weights.
        prior: non-negative ``[D]``.

    Signals:
        the rule's, as extra arguments of ``tx.update``; ``counts`` always.

    Returns:
        An ``optax.GradientTransformationExtraArgs`` with state :class:`TrackState`.

    Raises:
        TypeError: ``update`` without ``counts`` or without a signal the rule needs.

    Example:
        >>> import jax.numpy as jnp, mixjax, optax
        >>> tx = optax.chain(mixjax.track(mixjax.rules.fgls(), jnp.array([0.5, 0.5])), optax.adam(1e-3))
        >>> params = jnp.zeros(2)
        >>> state = tx.init(params)
        >>> signals = dict(losses=jnp.array([1.0, 3.0]), counts=jnp.array([8, 8]))
        >>> updates, state = tx.update(jnp.ones(2), state, params, **signals)
        >>> mixjax.get_weights(state).tolist()
        [0.75, 0.25]
    """

    def init(params):
        del params
        return TrackState(rule.init(prior))

    def update(updates, state, params=None, **signals):
        del params
        return updates, TrackState(_update_rule("track", rule, state.rule_state, signals))

    return optax.GradientTransformationExtraArgs(init, update)


def find_states(opt_state: Any) -> list[tuple[tuple, Any]]:
    """Every ``aggregate`` or ``track`` state in an optimizer state, as pairs of key path and state."""
    kinds = (AggregateState, TrackState)
    found, _ = jax.tree_util.tree_flatten_with_path(opt_state, is_leaf=lambda node: isinstance(node, kinds))
    return [(path, node) for path, node in found if isinstance(node, kinds)]


def get_weights(opt_state: Any, name: str | None = None) -> jax.Array:
    """Reads the weights back from an optimizer state, through chains and wrappers.

    Args:
        opt_state: state of an optax transformation that contains ``aggregate`` or ``track``; also
            ``nnx.Optimizer.opt_state``.
        name: which one, where there are several: its name in ``optax.named_chain``.

    Returns:
        float32 ``[D]``, on the simplex.

    Raises:
        ValueError: no such state, or more than one.

    Example:
        >>> import jax.numpy as jnp, mixjax, optax
        >>> prior = jnp.array([0.5, 0.5])
        >>> tx = optax.named_chain(
        ...     ("c", mixjax.track(mixjax.rules.gls([1.0, 3.0]), prior)),
        ...     ("q", mixjax.track(mixjax.rules.fixed(), prior)),
        ... )
        >>> mixjax.get_weights(tx.init(jnp.zeros(2)), "c").tolist()
        [0.75, 0.25]
    """
    everything = states = find_states(opt_state)
    if name is not None:
        states = [(path, state) for path, state in states if name in (getattr(k, "key", None) for k in path)]
    if len(states) != 1:
        where = ", ".join(jax.tree_util.keystr(path) for path, _ in everything) or "none"
        which = "" if name is None else f" named {name!r}"
        raise ValueError(f"expected one aggregate or track state{which} in the optimizer state, found: {where}.")
    weights = states[0][1].rule_state.weights
    return jnp.asarray(weights[...] if hasattr(weights, "set_value") else weights)
