"""Puts rules into optax chains: ``aggregate`` weights stacked gradients, ``track`` only keeps a rule's state.

The rule's signals are extra arguments of ``tx.update``, so they have to get through whatever stands around the adapter:

- ``optax.chain``, ``named_chain``, ``inject_hyperparams``, ``with_extra_args_support`` and ``contrib.schedule_free``
  pass them on.
- So do ``masked``, ``partition``, ``apply_if_finite``, ``conditionally_mask``, ``conditionally_transform``, ``flatten``
  and ``contrib.mechanize``. But these compare the updates they get with those they return, or with the parameters.
  They may stand around ``track``, and belong behind ``aggregate``::

      optax.chain(mixjax.aggregate(rule, prior), optax.apply_if_finite(optax.adam(1e-3), 5))

- ``optax.MultiSteps`` passes on the last microbatch's signals, and none where it is an element of a chain:
  :func:`mixjax.accumulate` merges them.
- ``lookahead``, ``contrib.sam`` and ``contrib.split_real_and_imaginary`` take no extra arguments. They belong behind
  the adapter in a chain. ``sam`` has to be told to ignore them: ``optax.GradientTransformation(sam.init, sam.update)``.
- ``contrib.differentially_private_aggregate`` turns per-example gradients into one, so it stands before ``track``.

``flax.nnx.Optimizer`` passes signals on: ``optimizer.update(model, grads, **signals)``. The ``TrainState`` of flax's
linen drops them. A subclass does not:

>>> import jax.numpy as jnp, mixjax, optax
>>> from flax.training.train_state import TrainState
>>> class SignalTrainState(TrainState):
...     def apply_gradients(self, *, grads, **signals):
...         updates, opt_state = self.tx.update(grads, self.opt_state, self.params, **signals)
...         params = optax.apply_updates(self.params, updates)
...         return self.replace(step=self.step + 1, params=params, opt_state=opt_state)
>>> tx = optax.chain(mixjax.track(mixjax.rules.fgls(), jnp.array([0.5, 0.5])), optax.sgd(1.0))
>>> state = SignalTrainState.create(apply_fn=None, params=jnp.zeros(2), tx=tx)
>>> signals = dict(losses=jnp.array([1.0, 3.0]), counts=jnp.array([8, 8]))
>>> state = state.apply_gradients(grads=jnp.ones(2), **signals)
>>> mixjax.get_weights(state.opt_state).tolist()
[0.75, 0.25]
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mixjax.placement import NO_SIGNALS, check_all_there, check_place, let_flax_save_named_chains
from mixjax.types import WeightRule

__all__ = ["AggregateState", "TrackState", "aggregate", "find_states", "get_weights", "track"]


class AggregateState(NamedTuple):
    """Holds the rule's state in :func:`aggregate`.

    Attributes:
        rule_state: the rule's state, whose first field is ``weights``.
    """

    rule_state: Any


class TrackState(NamedTuple):
    """Holds the rule's state in :func:`track`.

    Attributes:
        rule_state: the rule's state, whose first field is ``weights``.
    """

    rule_state: Any


def _init_rule(name, rule, prior):
    check_place(name)
    # A rule's first weights and its prior may be one buffer, which could not be donated: every field gets a copy.
    return jax.tree.map(jnp.copy, rule.init(prior))


def _update_rule(name, rule, rule_state, signals):
    if "counts" not in signals:
        raise TypeError(f"{name} {NO_SIGNALS}")
    return rule.update(rule_state, **signals)


def aggregate(rule: WeightRule, prior: ArrayLike) -> optax.GradientTransformationExtraArgs:
    r"""Turns stacked per-domain mean gradients into one gradient, ``sum_d c_d g_d``, with the rule's new weights.

    ``c`` is the rule's weights after its update, and ``g_d`` is the mean gradient of domain ``d``. Put ``aggregate``
    first in the chain. It takes ``updates`` of shapes ``[D, *param]`` and returns ``[*param]``, which the
    transformations behind it see as an ordinary gradient.

    Args:
        rule: a rule for the loss weights.
        prior: non-negative ``[D]``.

    Signals:
        The rule's signals, as extra arguments of ``tx.update``. ``counts`` is always needed. What stands around
        ``aggregate`` has to pass them on: see :mod:`mixjax.transforms`. Gradients of domains that are absent from the
        batch have to be zeros. Gradients of domains of weight zero are not read.

    Returns:
        An ``optax.GradientTransformationExtraArgs`` with state :class:`AggregateState`. It sums in float32, or in the
        gradients' dtype where that is wider or complex, and returns the gradients' dtype.

    Raises:
        TypeError: ``update`` is called without ``counts`` or without a signal that the rule needs.
        ValueError: the leading axis of the gradients is not ``D``, a mask hides some of them, or ``init`` is called by
            a wrapper of optax that belongs behind ``aggregate``.

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

    let_flax_save_named_chains()

    def init(params):
        del params
        return AggregateState(_init_rule("aggregate", rule, prior))

    def update(updates, state, params=None, **signals):
        del params
        rule_state = _update_rule("aggregate", rule, state.rule_state, signals)
        # The built-in rules detach their weights from the gradient, but a rule of the user's own may not.
        weights = jax.lax.stop_gradient(rule_state.weights)
        check_all_there(updates)
        combined = jax.tree.map(lambda grads: _combine(grads, weights), updates)
        return combined, AggregateState(rule_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _combine(grads: jax.Array, weights: jax.Array) -> jax.Array:
    """Sums stacked gradients with the weights, in float32 or wider, and casts the sum to the gradients' dtype."""
    if grads.shape[:1] != weights.shape:
        raise ValueError(
            f"aggregate takes stacked gradients, leading axis {weights.size} (domains), got shape {grads.shape}."
        )
    c = weights.reshape(-1, *[1] * (grads.ndim - 1))
    # The where keeps a NaN gradient of a domain of weight zero out of the sum.
    addends = to_sum(jnp.where(c > 0, grads, 0.0))
    return (c.astype(addends.dtype) * addends).sum(axis=0).astype(grads.dtype)


def to_sum(x: jax.Array) -> jax.Array:
    """Casts an array to the dtype in which gradients are summed: float32, or its own where that is wider or complex."""
    wide = jnp.issubdtype(x.dtype, jnp.inexact) and x.dtype.itemsize >= 4
    return x if wide else x.astype(jnp.float32)


def track(rule: WeightRule, prior: ArrayLike) -> optax.GradientTransformationExtraArgs:
    """Keeps a rule's state inside an optax chain, and lets gradients pass unchanged.

    Read the weights back with :func:`get_weights` and use them in the next step, to weight its loss or to draw its
    batch. A loss rule and a sampling rule together go into ``optax.named_chain``. :func:`mixjax.accumulate` goes around
    the chain where an update has several microbatches. :class:`mixjax.live.Feedback` sends the weights to a loader.

    Args:
        rule: a rule for loss weights or for sampling weights.
        prior: non-negative ``[D]``.

    Signals:
        The rule's signals, as extra arguments of ``tx.update``. ``counts`` is always needed.

    Returns:
        An ``optax.GradientTransformationExtraArgs`` with state :class:`TrackState`.

    Raises:
        TypeError: ``update`` is called without ``counts`` or without a signal that the rule needs.
        ValueError: ``init`` is called by a wrapper of optax that takes no extra arguments.

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

    let_flax_save_named_chains()

    def init(params):
        del params
        return TrackState(_init_rule("track", rule, prior))

    def update(updates, state, params=None, **signals):
        del params
        return updates, TrackState(_update_rule("track", rule, state.rule_state, signals))

    return optax.GradientTransformationExtraArgs(init, update)


def find_states(opt_state: Any) -> list[tuple[tuple, Any]]:
    """Finds every ``aggregate`` or ``track`` state in an optimizer state, as pairs of key path and state."""
    kinds = (AggregateState, TrackState)
    # The search stops at these states: as tuples they would be flattened to their leaves.
    found, _ = jax.tree_util.tree_flatten_with_path(opt_state, is_leaf=lambda node: isinstance(node, kinds))
    return [(path, node) for path, node in found if isinstance(node, kinds)]


def get_weights(opt_state: Any, name: str | None = None) -> jax.Array:
    """Reads the weights back from an optimizer state, through chains and wrappers.

    Args:
        opt_state: the state of an optax transformation that contains ``aggregate`` or ``track``.
            ``nnx.Optimizer.opt_state`` will do too.
        name: the name of the transformation in ``optax.named_chain``. It is needed where there are several.

    Returns:
        float32 ``[D]``, on the simplex.

    Raises:
        ValueError: the optimizer state holds no such state, or more than one.

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
    found = find_states(opt_state)
    chosen = [state for path, state in found if name is None or _is_under(name, path)]
    if len(chosen) != 1:
        where = ", ".join(jax.tree_util.keystr(path) for path, _ in found) or "none"
        which = "" if name is None else f" named {name!r}"
        raise ValueError(f"expected one aggregate or track state{which} in the optimizer state, found: {where}.")
    weights = chosen[0].rule_state.weights
    # nnx.Optimizer keeps its state in variables, whose array is read with [...].
    if hasattr(weights, "set_value"):
        weights = weights[...]
    # A copy of its own outlives the optimizer state where that is donated to the next step.
    return jnp.array(weights)


def _is_under(name: str, path: tuple) -> bool:
    # The state of a named_chain is a dictionary, so the name is a key on the path to whatever lies under it.
    return any(getattr(key, "key", None) == name for key in path)
