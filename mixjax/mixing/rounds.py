"""The loop of data mixing: T optimizer steps, then one update of the weights."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mixjax.checks import check_integer, is_concrete
from mixjax.hypergrad import Hypergradient, hypergrad, unroll
from mixjax.hypergrad.steps import Loss
from mixjax.mixing.horizons import contraction, horizon, pilot_steps
from mixjax.types import WeightRule

__all__ = ["MixingState", "fit", "init_state"]

_LOG = logging.getLogger(__name__)


class MixingState(NamedTuple):
    """What data mixing carries from round to round.

    Attributes:
        params: pytree of parameters.
        opt_state: the optimizer's state.
        rule_state: the rule's state; ``rule_state.weights`` are the last weights.
        mean_weights: float32 ``[D]``, mean over the updates of the weights before each: what theory speaks of, and what
            to train another model with.
        round: int32 scalar, updates of the weights so far.
        step: int32 scalar, optimizer steps so far.
        T: int32 scalar, steps a round; 0 before :func:`fit` has chosen it.
    """

    params: Any
    opt_state: Any
    rule_state: Any
    mean_weights: jax.Array
    round: jax.Array
    step: jax.Array
    T: jax.Array


def init_state(params: Any, optimizer: optax.GradientTransformation, prior: ArrayLike, rule: WeightRule) -> MixingState:
    """The state before the first round.

    Args:
        params: pytree of parameters.
        optimizer: an optax transformation.
        prior: non-negative ``[D]``; uniform over the domains, or in proportion to their sizes.
        rule: rule for the loss weights.

    Returns:
        A :class:`MixingState`; see :func:`fit` for an example.

    Raises:
        ValueError: a prior that is no non-negative vector.
    """
    rule_state, zero = rule.init(prior), jnp.zeros((), jnp.int32)
    own = jax.tree.map(jnp.copy, (rule_state, rule_state.weights, zero, zero, zero))  # so that it can be donated
    return MixingState(params, optimizer.init(params), *own)


def fit(
    loss: Loss,
    val_loss: Loss,
    optimizer: optax.GradientTransformation,
    rule: WeightRule,
    draw: Callable[[jax.Array], Any],
    draw_val: Callable[[jax.Array], Any],
    state: MixingState,
    key: jax.Array,
    *,
    num_steps: int,
    T: int | str = "auto",
    mode: str | None = "reverse",
    every: int = 1,
    signals: Callable[[MixingState, jax.Array], dict[str, ArrayLike]] = lambda state, key: {},
    record: Callable[[MixingState, Hypergradient], Any] = lambda state, result: None,
    **options,
) -> tuple[MixingState, Any]:
    r"""Trains with weights that move every T steps.

    Args:
        loss: ``loss(params, batch) -> scalar``, the mean loss of one domain; it is vmapped over the domains.
        val_loss: ``val_loss(params, val_batch) -> scalar``, what the weights are to lower.
        optimizer: any optax transformation of ordinary gradients.
        rule: rule for the loss weights. It gets the signals ``counts`` (all 1), ``losses`` (mean over the round's
            differentiated steps), ``loss_weights`` and, unless ``mode`` is None, ``hypergrads``.
        draw: ``draw(key) -> batch``, leaves ``[D, ...]``; called inside the step.
        draw_val: ``draw_val(key) -> val_batch``, once a round.
        state: from :func:`init_state`, or where a run stopped.
        key: a ``jax.random.key``. Every step has a key of its own, so that a run cut after a round and gone on with,
            with the same key, is the run without the cut.
        num_steps: ``N``, optimizer steps to take now, at least ``T * every``. Steps left over after the last round are
            taken with the last weights.
        T: steps a round, an integer of at least 1, not traced. ``"auto"``: the first ``min(64, N / 16)`` steps, with
            the first weights, measure the :func:`contraction` (if that is at least two), and the :func:`horizon` is
            taken for it and the N that is left, over ``every``; a state that has a ``T`` keeps it. That needs values:
            in jit or vmap T is to be given, ``int(state.T)`` of an earlier call for example.
        mode: of :func:`mixjax.hypergrad.hypergrad`; None computes no hypergradient.
        every: rounds from one update of the weights to the next, an integer of at least 1. Only the last of them, its T
            steps, is differentiated: at ``every = r`` the hypergradient's cost is divided by r, and so is the number of
            updates.
        signals: ``signals(state, key) -> dict``, more signals for the rule or others in place of the above, measured
            before each update, ``state`` being the one after the round's steps. It does not see their batches: what is
            to be compared on the same examples, it draws itself.
        record: ``record(state, result) -> pytree``, kept for each update; ``state`` is the one after it, ``result``
            what the rule saw.
        **options: the mode's.

    Returns:
        ``(state, records)``: the last state, with the last weights and the mean of all updates' weights, and records
        with a leading axis of one for each update. Call it inside ``jax.jit`` where it is called more than once: each
        call outside compiles anew.

    Raises:
        ValueError: T, ``every`` or ``num_steps`` out of range, an unknown mode, ``"auto"`` or a traced T inside jit.
        TypeError: a signal that the rule needs and that is not there; options that the mode does not have.

    Example:
        Two domains with optima (1, 1) and (0, 0); a weight of p on the first leads to (p, p), and p = 0.25 is best. One
        step ahead, the stiff first coordinate looks more important than it is:

        >>> import jax, jax.numpy as jnp, mixjax, optax
        >>> from mixjax import mixing
        >>> centers, tx, rule = jnp.array([[1.0, 1.0], [0.0, 0.0]]), optax.sgd(1.0), mixjax.rules.mirror_descent()
        >>> def loss(x, center):
        ...     return 0.5 * jnp.sum(jnp.array([1.0, 0.1]) * (x - center) ** 2)
        >>> def val_loss(x, target):
        ...     return 0.5 * jnp.sum((x - target) ** 2)
        >>> def draw(key):
        ...     return centers
        >>> def draw_val(key):
        ...     return jnp.array([1.0, -0.5])
        >>> state = mixing.init_state(jnp.zeros(2), tx, [0.5, 0.5], rule)
        >>> for T in (1, 80):
        ...     last, _ = mixing.fit(
        ...         loss, val_loss, tx, rule, draw, draw_val, state, jax.random.key(0), num_steps=8000, T=T
        ...     )
        ...     print(T, last.rule_state.weights.round(2).tolist())
        1 [0.86, 0.14]
        80 [0.25, 0.75]

    References:
        Papers 001 and 002. The warm start, and dropping what earlier rounds owe to the weights, are our choices.
    """
    check_integer("num_steps", num_steps, 0)
    check_integer("every", every, 1)
    step_key, val_key, signal_key, pilot_key = jax.random.split(key, 4)
    plain = unroll(loss, optimizer, draw=draw)

    def keys(state, count):
        return jax.vmap(lambda i: jax.random.fold_in(step_key, state.step + i))(jnp.arange(count))

    def train(state, count):
        trained = plain(state.rule_state.weights, state.params, state.opt_state, keys(state, count))
        return state._replace(params=trained[0], opt_state=trained[1], step=state.step + count), trained[2]

    if T == "auto":
        state, num_steps, T = _pilot(loss, optimizer, draw, state, keys, pilot_key, num_steps, every)
    if not is_concrete(T):
        raise ValueError("T is the length of a loop that is differentiated backwards: it cannot be traced.")
    check_integer("T", T, 1)
    if num_steps and num_steps < T * every:
        raise ValueError(f"num_steps must be at least T * every = {T * every}, one update, got {num_steps}.")
    state = state._replace(T=jnp.asarray(T, jnp.int32))
    if mode is not None:
        gradient = hypergrad(loss, val_loss, optimizer, mode=mode, draw=draw, **options)
    elif options:
        raise TypeError(f"mode None takes no options, got {', '.join(options)}.")

    def update(state, _):
        weights = state.rule_state.weights
        if every > 1:
            state, _ = train(state, (every - 1) * T)
        if mode is None:
            state, losses = train(state, T)
            result, seen = Hypergradient(None, state.params, state.opt_state, losses, None), {}
        else:
            val_batch = draw_val(jax.random.fold_in(val_key, state.step))
            result = gradient(weights, state.params, state.opt_state, keys(state, T), val_batch)
            state = state._replace(params=result.params, opt_state=result.opt_state, step=state.step + T)
            seen = {"hypergrads": result.hypergrads}
        seen |= {"counts": jnp.ones_like(weights), "losses": result.losses, "loss_weights": weights}
        seen |= signals(state, jax.random.fold_in(signal_key, state.step))
        mean = state.mean_weights + (weights - state.mean_weights) / (state.round + 1)
        rule_state = rule.update(state.rule_state, **seen)
        state = state._replace(rule_state=rule_state, mean_weights=mean, round=state.round + 1)
        return state, record(state, result)

    rounds, rest = divmod(num_steps, T * every)
    state, records = jax.lax.scan(update, state, length=rounds)
    return train(state, rest)[0] if rest else state, records


def _pilot(loss, optimizer, draw, state, keys, key, num_steps, every):
    """The state, the steps left, and T: from the state, or by measuring the contraction on the first steps."""
    if not is_concrete((state, num_steps)):
        raise ValueError("T='auto' needs values, outside jit and vmap: take T from mixing.horizon and give it.")
    if state.T > 0 or num_steps == 0:
        return state, num_steps, max(int(state.T), 1)
    count, rate = pilot_steps(num_steps), None
    if count > 1:
        run = jax.jit(contraction(loss, optimizer, draw=draw))
        weights, pilot_keys = state.rule_state.weights, keys(state, count)
        rate, params, opt_state = run(weights, state.params, state.opt_state, pilot_keys, key)
        state = state._replace(params=params, opt_state=opt_state, step=state.step + count)
        num_steps, rate = num_steps - count, float(rate)
    T = horizon(max(num_steps // every, 1), rate)
    _LOG.info("T = %d for %d steps and %d rounds an update; contraction a step: %s", T, num_steps, every, rate)
    return state, num_steps, T
