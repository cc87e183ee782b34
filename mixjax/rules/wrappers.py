"""Wraps a rule to change when it updates, how fast its weights move, and how near the prior they stay."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import check_integer, check_range
from mixjax.rules.base import if_news, own_buffers, read_signals, share, with_weights
from mixjax.rules.states import CountingState, WrapperState
from mixjax.types import WeightRule

__all__ = ["every", "floor", "freeze_after", "kl_to_prior", "smooth"]


def _gated(rule: WeightRule, is_open: Callable[[jax.Array], jax.Array]) -> WeightRule:
    """Updates the wrapped rule in those calls with news, ``t = 0, 1, ...``, for which ``is_open(t)``."""

    def init(prior):
        inner = rule.init(prior)
        return own_buffers(CountingState(inner.weights, inner.prior, inner, jnp.zeros((), jnp.int32)))

    def update(state, *, counts, **signals):
        # A where in place of a cond, since under vmap a cond whose predicate is batched is a where in any case.
        moved = rule.update(state.inner, counts=counts, **signals)
        inner = jax.tree.map(lambda a, b: jnp.where(is_open(state.step), a, b), moved, state.inner)
        new = CountingState(inner.weights, inner.prior, inner, state.step + 1)
        return if_news(counts, new, state)

    return WeightRule(init, update)


def every(rule: WeightRule, k: ArrayLike, start: ArrayLike = 0) -> WeightRule:
    """Updates the wrapped rule in every ``k``-th call, after a warm-up.

    Calls ``t = 0, 1, ...`` are counted only if they bring news (a positive count). In call ``t`` the rule is updated if
    ``t >= start`` and ``t mod k = k - 1``. The choice is made by ``where``, so ``k`` and ``start`` may be traced and
    batched, and the signals have to be there in every call. Where signals are costly, measure them every k training
    steps in an outer scan instead, as :func:`mixjax.training.fit` does.

    Args:
        rule: the rule to wrap.
        k: interval in calls, an integer of at least 1; T₀ in paper 000.
        start: first call in which an update may happen, an integer of at least 0; the calls before it are the warm-up.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.CountingState`. Signals: the wrapped rule's.

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

    def is_open(t):
        period = jnp.asarray(k, jnp.int32)
        return (t >= jnp.asarray(start, jnp.int32)) & (t % period == period - 1)

    return _gated(rule, is_open)


def freeze_after(rule: WeightRule, k: ArrayLike) -> WeightRule:
    """Updates the wrapped rule in the first ``k`` calls that bring news, and keeps it as it is afterwards.

    ``freeze_after(fgls(), 1)`` is two-stage feasible generalised least squares.

    Args:
        rule: the rule to wrap.
        k: number of calls, an integer of at least 0.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.CountingState`. Signals: the wrapped rule's.

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
    return _gated(rule, lambda t: t < jnp.asarray(k, jnp.int32))


def smooth(rule: WeightRule, decay: ArrayLike) -> WeightRule:
    """Averages the wrapped rule's weights over updates: ``decay * old + (1 - decay) * new``.

    The wrapped rule goes on from its own, unsmoothed state. The average follows the wrapped weights in all rows, seen
    or not.

    Args:
        rule: the rule to wrap.
        decay: scalar in [0, 1], weight of the old average; 0 is the rule itself.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.WrapperState`. Signals: the wrapped rule's.

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
        return own_buffers(WrapperState(inner.weights, inner.prior, inner))

    def update(state, *, counts, **signals):
        inner = rule.update(state.inner, counts=counts, **signals)
        rate = jnp.asarray(decay, jnp.float32)
        # The average continues from this wrapper's own weights, not from the wrapped rule's.
        weights = rate * state.weights + (1.0 - rate) * inner.weights
        # With a decay of 0.9999 the roundings of 1e4 updates would add up in the sum.
        return if_news(counts, WrapperState(weights / weights.sum(), inner.prior, inner), state)

    return WeightRule(init, update)


def floor(rule: WeightRule, fraction: ArrayLike) -> WeightRule:
    """Mixes the wrapped rule's weights with the prior: ``(1 - fraction) * weights + fraction * prior``.

    No weight falls below ``fraction`` of its prior. Around a sampling rule this is the defensive mixture of importance
    sampling. The wrapped rule goes on from its own, unmixed state.

    Args:
        rule: the rule to wrap.
        fraction: scalar in [0, 1]; 0 is the rule itself, 1 the prior.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.WrapperState`. Signals: the wrapped rule's.

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
        return own_buffers(wrap(rule.init(prior)))

    def update(state, *, counts, **signals):
        return if_news(counts, wrap(rule.update(state.inner, counts=counts, **signals)), state)

    return WeightRule(init, update)


def kl_to_prior(rule: WeightRule, strength: ArrayLike) -> WeightRule:
    r"""Adds ``strength * KL(c | prior)`` to the loss that mirror descent lowers, so that weights stay near the prior.

    .. math:: c \leftarrow \arg\min_{c' \in \Delta} \; \langle g, c' \rangle + \lambda \, \mathrm{KL}(c' \,\|\, \pi)
              + \frac{1}{\alpha} \mathrm{KL}(c' \,\|\, c), \qquad
              \log \frac{c_d}{\pi_d} \leftarrow \frac{\log (c_d / \pi_d) - \alpha g_d}{1 + \alpha \lambda} + const

    ``g`` is ``hypergrads``, ``c`` is the weights, ``pi`` is the ``prior``, ``lambda`` is ``strength``, and ``alpha`` is
    the step size of the wrapped rule in this update, constant or adaptive (which sees ``g`` alone). This is a proximal
    step: the wrapped rule's step, and then a pull of ``log(c / pi)`` towards 0. No strength is too large for it. A step
    along the gradient of the penalty would overshoot the prior where ``alpha * lambda > 1``.

    Args:
        rule: :func:`mixjax.rules.mirror_descent`, or a rule of your own whose state has the fields ``log_w``, the log
            of ``weights / prior``, and ``step_size``, the ``alpha`` of its last update.
        strength: non-negative scalar, in units of the validation loss.

    Signals:
        hypergrads: dF/dc ``[D]``; the wrapped rule's.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.WrapperState`. Rows not seen keep their
        ``c_d``.

    Raises:
        ValueError: a ``strength`` that is negative or not finite.
        TypeError: a rule of another kind, when its state is made.

    Example:
        Where the hypergradients are zero, the weights go back towards the prior, by half in each update here:

        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.kl_to_prior(mixjax.rules.mirror_descent(1.0, adaptive=False), strength=1.0)
        >>> state, counts = rule.init(jnp.array([0.5, 0.5])), jnp.array([9, 9])
        >>> pushed = rule.update(state, counts=counts, hypergrads=jnp.array([0.0, 2.0]))
        >>> pulled = rule.update(pushed, counts=counts, hypergrads=jnp.zeros(2))
        >>> [jnp.log(s.weights[0] / s.weights[1]).round(2).tolist() for s in (pushed, pulled)]
        [1.0, 0.5]

    References:
        Composite mirror descent: Duchi, Shalev-Shwartz, Singer and Tewari (COLT 2010).
    """
    check_range("strength", strength, 0.0)

    def wrap(inner):
        return WrapperState(inner.weights, inner.prior, inner)

    def init(prior):
        inner = rule.init(prior)
        if not {"log_w", "step_size"} <= set(inner._fields):
            raise TypeError(
                "kl_to_prior takes mirror_descent, or a rule whose state has log_w and step_size, got a rule with "
                f"{type(inner).__name__}. Put other wrappers around it: floor(kl_to_prior(mirror_descent(), 1.0), 0.1)."
            )
        return own_buffers(wrap(inner))

    def update(state, *, counts, hypergrads, **signals):
        seen, _ = read_signals(state, counts, hypergrads=hypergrads)
        inner = rule.update(state.inner, counts=counts, hypergrads=hypergrads, **signals)
        pulled = inner.log_w / (1.0 + inner.step_size * jnp.asarray(strength, jnp.float32))
        weights = share(inner.weights, jnp.log(inner.prior) + pulled, seen)
        return if_news(counts, wrap(with_weights(inner, weights, seen)), state)

    return WeightRule(init, update)
