"""Rules made from rules: when they update, how fast they follow, how low they go, and which one is used."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import check_integer, check_range, is_concrete
from mixjax.rules.base import if_news
from mixjax.types import WeightRule


class WrapperState(NamedTuple):
    """State of :func:`smooth` and :func:`floor`.

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        inner: the wrapped rule's state.
    """

    weights: jax.Array
    prior: jax.Array
    inner: Any


class CountingState(NamedTuple):
    """State of :func:`every` and :func:`freeze_after`.

    Attributes:
        weights: float32 ``[D]`` on the simplex: the wrapped rule's.
        prior: float32 ``[D]``.
        inner: the wrapped rule's state.
        step: int32 scalar, number of updates that brought news so far.
    """

    weights: jax.Array
    prior: jax.Array
    inner: Any
    step: jax.Array


class SelectState(NamedTuple):
    """State of :func:`select`.

    Attributes:
        weights: float32 ``[D]`` on the simplex: the selected rule's.
        prior: float32 ``[D]``.
        states: tuple of all rules' states; only the selected one moves.
    """

    weights: jax.Array
    prior: jax.Array
    states: tuple


def _gated(rule: WeightRule, is_open) -> WeightRule:
    """The rule, updated in those steps ``t = 0, 1, ...`` for which ``is_open(t)``."""

    def init(prior):
        inner = rule.init(prior)
        return CountingState(inner.weights, inner.prior, inner, jnp.zeros((), jnp.int32))

    def update(state, *, counts, **signals):
        moved = rule.update(state.inner, counts=counts, **signals)
        inner = jax.tree.map(lambda a, b: jnp.where(is_open(state.step), a, b), moved, state.inner)
        new = CountingState(inner.weights, inner.prior, inner, state.step + 1)
        return if_news(counts, new, state)

    return WeightRule(init, update)


def every(rule: WeightRule, k: ArrayLike, start: ArrayLike = 0) -> WeightRule:
    """Updates the wrapped rule once every ``k`` steps, after a warm-up.

    In step ``t = 0, 1, ...`` (counted over the updates that bring news) the rule is updated if ``t >= start`` and
    ``t mod k = k - 1``. The choice is made by ``where``, so ``k`` and ``start`` may be traced and batched; the signals
    have to be there in every step. Where they are costly, measure them every k steps in an outer scan instead, as
    :func:`mixjax.training.fit` does.

    Args:
        rule: the rule to wrap.
        k: update interval in steps, an integer of at least 1; the paper's T₀.
        start: first step in which an update may happen, an integer of at least 0; warm-up.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`CountingState`. Signals: the wrapped rule's.

    Raises:
        ValueError: ``k`` not an integer of at least 1, or ``start`` not one of at least 0.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.every(mixjax.rules.fgls(), k=2)
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> signals = dict(counts=jnp.array([9, 9]), losses=jnp.array([1.0, 3.0]))
        >>> state = rule.update(state, **signals)
        >>> state.weights.tolist(), rule.update(state, **signals).weights.tolist()
        ([0.5, 0.5], [0.75, 0.25])

    References:
        Paper 000, algorithm 1, line 8, and section 5.1 (updates begin after a fifth of the steps).
    """
    check_integer("k", k, 1)
    check_integer("start", start, 0)
    return _gated(rule, lambda t: (t >= start) & (t % k == jnp.asarray(k, jnp.int32) - 1))


def freeze_after(rule: WeightRule, k: ArrayLike) -> WeightRule:
    """Updates the wrapped rule in its first ``k`` steps only; ``freeze_after(fgls(), 1)`` is two-stage FGLS.

    Args:
        rule: the rule to wrap.
        k: number of updates (that bring news), an integer of at least 0.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`CountingState`. Signals: the wrapped rule's.

    Raises:
        ValueError: ``k`` not an integer of at least 0.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.freeze_after(mixjax.rules.fgls(), 1)
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> state = rule.update(state, counts=jnp.array([9, 9]), losses=jnp.array([1.0, 3.0]))
        >>> rule.update(state, counts=jnp.array([9, 9]), losses=jnp.array([3.0, 1.0])).weights.tolist()
        [0.75, 0.25]
    """
    check_integer("k", k, 0)
    return _gated(rule, lambda t: t < k)


def smooth(rule: WeightRule, decay: ArrayLike) -> WeightRule:
    """Exponential moving average of the wrapped rule's weights: ``decay * old + (1 - decay) * new``.

    The wrapped rule goes on from its own, unsmoothed state. The average follows the wrapped weights in all rows, seen
    or not.

    Args:
        rule: the rule to wrap.
        decay: scalar in [0, 1]; 0 is the rule itself.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`WrapperState`. Signals: the wrapped rule's.

    Raises:
        ValueError: ``decay`` outside [0, 1].

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.smooth(mixjax.rules.fgls(), decay=0.5)
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> rule.update(state, counts=jnp.array([9, 9]), losses=jnp.array([1.0, 3.0])).weights.tolist()
        [0.625, 0.375]
    """
    check_range("decay", decay, 0.0, 1.0)

    def init(prior):
        inner = rule.init(prior)
        return WrapperState(inner.weights, inner.prior, inner)

    def update(state, *, counts, **signals):
        inner = rule.update(state.inner, counts=counts, **signals)
        rate = jnp.asarray(decay, jnp.float32)
        weights = rate * state.weights + (1.0 - rate) * inner.weights
        return if_news(counts, WrapperState(weights, inner.prior, inner), state)

    return WeightRule(init, update)


def floor(rule: WeightRule, fraction: ArrayLike) -> WeightRule:
    """Mixes the wrapped rule's weights with the prior: ``(1 - fraction) * weights + fraction * prior``.

    No weight falls below ``fraction`` of its prior; the defensive mixture of importance sampling where the rule is a
    sampling rule. The wrapped rule goes on from its own, unmixed state.

    Args:
        rule: the rule to wrap.
        fraction: scalar in [0, 1]; 0 is the rule itself, 1 the prior.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`WrapperState`. Signals: the wrapped rule's.

    Raises:
        ValueError: ``fraction`` outside [0, 1].

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.floor(mixjax.rules.fixed([1.0, 0.0]), fraction=0.25)
        >>> rule.init(jnp.array([0.5, 0.5])).weights.tolist()
        [0.875, 0.125]
    """
    check_range("fraction", fraction, 0.0, 1.0)

    def wrap(inner):
        rate = jnp.asarray(fraction, jnp.float32)
        return WrapperState((1.0 - rate) * inner.weights + rate * inner.prior, inner.prior, inner)

    def init(prior):
        return wrap(rule.init(prior))

    def update(state, *, counts, **signals):
        return if_news(counts, wrap(rule.update(state.inner, counts=counts, **signals)), state)

    return WeightRule(init, update)


def select(rules: Sequence[WeightRule], index: ArrayLike) -> WeightRule:
    """One of several rules, chosen by an index that may be traced: a whole method comparison as one program.

    ``lax.switch`` encloses ``update`` only. Under ``vmap`` with a batched index every rule is computed and one is kept,
    which is cheap for rules over ``D`` domains; the signals are those of all rules together. Do not put such a switch
    around a training run, where every branch would train.

    Args:
        rules: the rules to choose from, at least one.
        index: integer scalar in [0, len(rules)); a traced one is clamped into it, as ``lax.switch`` does.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`SelectState`. Signals: those of every rule.

    Raises:
        ValueError: no rules, or a concrete index out of range.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> def weights(index):
        ...     rule = mixjax.rules.select([mixjax.rules.fixed(), mixjax.rules.fgls()], index)
        ...     state = rule.init(jnp.array([0.5, 0.5]))
        ...     return rule.update(state, counts=jnp.array([9, 9]), losses=jnp.array([1.0, 3.0])).weights
        >>> jax.vmap(weights)(jnp.arange(2)).tolist()
        [[0.5, 0.5], [0.75, 0.25]]
    """
    rules = tuple(rules)
    if not rules:
        raise ValueError("select needs at least one rule.")
    if is_concrete(index) and not 0 <= int(index) < len(rules):
        raise ValueError(f"index must be in [0, {len(rules)}), got {index}.")
    index = jnp.clip(jnp.asarray(index, jnp.int32), 0, len(rules) - 1)

    def wrap(states):
        weights = jnp.stack([state.weights for state in states])[index]
        return SelectState(weights, states[0].prior, states)

    def init(prior):
        return wrap(tuple(rule.init(prior) for rule in rules))

    def update(state, *, counts, **signals):
        def branch(i):  # closes over the signals, since the unknown ones need not be arrays
            return lambda states: (
                *states[:i],
                rules[i].update(states[i], counts=counts, **signals),
                *states[i + 1 :],
            )

        return wrap(jax.lax.switch(index, [branch(i) for i in range(len(rules))], state.states))

    return WeightRule(init, update)
