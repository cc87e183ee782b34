"""Runs the loop of data mixing: rounds of T optimizer steps, and updates of the loss weights between them."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mixjax.checks import check_integer, is_concrete
from mixjax.hypergrad import Hypergradient, Mode, hypergrad, unroll
from mixjax.hypergrad.steps import Loss
from mixjax.meshes import varying_like_result
from mixjax.mixing.horizons import contraction, horizon, pilot_steps
from mixjax.mixing.state import MixingState
from mixjax.rules.news import warn_if_unseen
from mixjax.types import WeightRule

__all__ = ["fit"]

_LOG = logging.getLogger(__name__)


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
    T: int | Literal["auto"] = "auto",
    mode: Mode | None = "reverse",
    rounds_per_update: int = 1,
    signals: Callable[[MixingState, jax.Array], dict[str, ArrayLike]] = lambda state, key: {},
    record: Callable[[MixingState, Hypergradient], Any] = lambda state, result: None,
    **options: Any,
) -> tuple[MixingState, Any]:
    r"""Trains with loss weights that a rule moves after every round of T steps.

    Args:
        loss: ``loss(params, batch) -> scalar``, the mean loss of one domain. It is vmapped over the domains.
        val_loss: ``val_loss(params, val_batch) -> scalar``, the loss that good weights make low.
        optimizer: any optax transformation of ordinary gradients.
        rule: the rule for the loss weights. It gets the signals ``counts`` (all 1), ``losses`` (means over the steps of
            the update's last round), ``loss_weights`` and, unless ``mode`` is None, ``hypergrads``.
        draw: ``draw(key) -> batch``, with leaves ``[D, ...]``. It is called inside the step.
        draw_val: ``draw_val(key) -> val_batch``, called once for each hypergradient.
        state: from :func:`mixjax.mixing.init_state`, or the state in which an earlier call ended.
        key: a ``jax.random.key``. Each step derives a key of its own from it. So a run that stops after an update and
            goes on with the same key equals the run without the stop.
        num_steps: ``N``, the number of optimizer steps to take now: 0, or at least ``T * rounds_per_update``. Steps
            left over after the last update are taken with the last weights.
        T: the number of steps in a round, an integer of at least 1 that is not traced. ``"auto"`` takes ``state.T`` if
            the state has one. Otherwise it measures the :func:`contraction` on the first ``min(64, N / 16)`` steps, if
            these are at least two, which are taken with the first weights. Then it asks :func:`horizon` with this rate,
            and with the steps left divided by ``rounds_per_update``. ``"auto"`` needs concrete values. Inside jit or
            vmap give T yourself, for example ``int(state.T)`` of an earlier call.
        mode: the way to compute the hypergradient, as for :func:`mixjax.hypergrad.hypergrad`. None computes none.
        rounds_per_update: the number of rounds from one update of the weights to the next, an integer of at least 1.
            Only the last of them is differentiated, so ``rounds_per_update=r`` divides both the cost of hypergradients
            and the number of updates by r.
        signals: ``signals(state, key) -> dict``, signals of your own for the rule. They are measured before each
            update, on the state after the update's steps, and replace the rule's signals above that have the same
            names. ``signals`` does not see the batches of the steps. If two signals are to be compared on the same
            examples, it has to draw those examples itself.
        record: ``record(state, result) -> pytree``, kept for each update. ``state`` is the one after the update, and
            ``result`` the :class:`mixjax.hypergrad.Hypergradient` that the rule saw.
        **options: keyword arguments of the function that computes the mode, for example ``checkpoint_every`` of
            :func:`mixjax.hypergrad.reverse`.

    Returns:
        ``(state, records)``: the last state, and records with a leading axis of one entry for each update. If you call
        ``fit`` more than once, call it inside ``jax.jit``, because each call outside compiles anew.

    Warns:
        RuntimeWarning: outside ``jit``, if hypergradients were not finite, or if the rule could use no signal. Inside
            ``jit``, look at ``state.nonfinite_updates`` and :func:`mixjax.rules.unseen_updates`, which ``record`` can
            keep.

    Raises:
        ValueError: T, ``rounds_per_update`` or ``num_steps`` is out of range, the mode is unknown, or T is ``"auto"``
            or traced inside jit.
        TypeError: a signal that the rule needs is missing, or the mode does not have an option.

    Example:
        Two domains have their optima at (1, 1) and (0, 0). A weight of p on the first leads to (p, p), and p = 0.25 is
        best. With T = 1 the first coordinate, which is stiff, looks more important than it is:

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
        Papers 001 and 002. Two choices are ours: a round starts where the last one ended, and its hypergradient leaves
        out how that start depends on the weights.
    """
    check_integer("num_steps", num_steps, 0)
    check_integer("rounds_per_update", rounds_per_update, 1)
    keys = _Keys(*jax.random.split(key, 4))
    # This comes before the checks of T, because they need its value.
    if T == "auto":
        measure_rate = contraction(loss, optimizer, draw=draw)
        state, num_steps, T = _choose_horizon(measure_rate, state, keys, num_steps, rounds_per_update)
    if not is_concrete(T):
        raise ValueError("T is the length of a loop that is differentiated backwards: it cannot be traced.")
    check_integer("T", T, 1)
    if num_steps and num_steps < T * rounds_per_update:
        raise ValueError(
            f"num_steps must be at least T * rounds_per_update = {T * rounds_per_update}, the steps of one update, "
            f"got {num_steps}."
        )
    if mode is None and options:
        raise TypeError(f"mode None takes no options, got {', '.join(options)}.")
    loop = _Loop(
        plain=unroll(loss, optimizer, draw=draw),
        gradient=None if mode is None else hypergrad(loss, val_loss, optimizer, mode=mode, draw=draw, **options),
        draw_val=draw_val,
        rule=rule,
        signals=signals,
        record=record,
        keys=keys,
        T=T,
        rounds_per_update=rounds_per_update,
    )
    # A Python number would be weakly typed, and a scan's carry must keep its types.
    state = state.replace(T=jnp.asarray(T, jnp.int32))
    updates, steps_left_over = divmod(num_steps, T * rounds_per_update)
    before = state.nonfinite_updates
    start = varying_like_result(state, loop.update, state, None)
    state, records = jax.lax.scan(loop.update, start, length=updates)
    _warn_of_nan(state.nonfinite_updates - before, state.rule_state, updates)
    if steps_left_over:
        state, _ = loop.train(state, steps_left_over)
    return state, records


class _Keys(NamedTuple):
    """Holds a run's keys, one for each thing that is drawn at random.

    Attributes:
        step: for the batches of the optimizer steps.
        val: for the validation batches.
        signal: for the user's own signals.
        pilot: for the random tangent with which the contraction is measured.
    """

    step: jax.Array
    val: jax.Array
    signal: jax.Array
    pilot: jax.Array

    def steps(self, state: MixingState, count: int) -> jax.Array:
        """Returns the keys of the next ``count`` steps, derived from the number of steps taken before each."""
        # Counted from the run's first step and not from this call's, so that a resumed run draws the same batches.
        return jax.vmap(lambda i: jax.random.fold_in(self.step, state.step + i))(jnp.arange(count, dtype=jnp.int32))


@dataclasses.dataclass(frozen=True)
class _Loop:
    """Takes a mixing state through rounds and updates, with the arguments of :func:`fit` held fixed.

    Attributes:
        plain: takes steps and differentiates nothing, from :func:`mixjax.hypergrad.unroll`.
        gradient: takes steps and computes their hypergradient. None where the mode is None.
    """

    plain: Callable[..., tuple[Any, Any, jax.Array]]
    gradient: Callable[..., Hypergradient] | None
    draw_val: Callable[[jax.Array], Any]
    rule: WeightRule
    signals: Callable[[MixingState, jax.Array], dict[str, ArrayLike]]
    record: Callable[[MixingState, Hypergradient], Any]
    keys: _Keys
    T: int
    rounds_per_update: int

    def update(self, state: MixingState, x: None) -> tuple[MixingState, Any]:
        """Takes the rounds before an update of the weights, then the update: the body of a scan."""
        weights = state.rule_state.weights
        if self.rounds_per_update > 1:
            state, _ = self.train(state, (self.rounds_per_update - 1) * self.T)
        state, result = self.last_round(state)
        signals = self.gather_signals(state, weights, result)
        # The steps were taken with the weights before the update, so the mean takes those.
        mean = state.mean_weights + (weights - state.mean_weights) / (state.round + 1).astype(weights.dtype)
        rule_state = self.rule.update(state.rule_state, **signals)
        state = state.replace(rule_state=rule_state, mean_weights=mean, round=state.round + 1)
        if self.gradient is not None:
            nonfinite = jnp.any(~jnp.isfinite(result.hypergrads)).astype(jnp.int32)
            state = state.replace(nonfinite_updates=state.nonfinite_updates + nonfinite)
        return state, self.record(state, result)

    def train(self, state: MixingState, count: int) -> tuple[MixingState, jax.Array]:
        """Takes ``count`` plain steps. Returns the new state and each domain's mean loss."""
        params, opt_state, losses = self.plain(
            state.rule_state.weights, state.params, state.opt_state, self.keys.steps(state, count)
        )
        return state.replace(params=params, opt_state=opt_state, step=state.step + count), losses

    def last_round(self, state: MixingState) -> tuple[MixingState, Hypergradient]:
        """Takes the round before an update, and differentiates it unless the mode is None."""
        if self.gradient is None:
            state, losses = self.train(state, self.T)
            # `record` gets the same class in every mode. Here nothing is differentiated or validated.
            missing: Any = None
            return state, Hypergradient(
                hypergrads=missing, params=state.params, opt_state=state.opt_state, losses=losses, val_loss=missing
            )
        val_batch = self.draw_val(jax.random.fold_in(self.keys.val, state.step))
        result = self.gradient(
            state.rule_state.weights, state.params, state.opt_state, self.keys.steps(state, self.T), val_batch
        )
        return state.replace(params=result.params, opt_state=result.opt_state, step=state.step + self.T), result

    def gather_signals(self, state: MixingState, weights: jax.Array, result: Hypergradient) -> dict[str, ArrayLike]:
        """Gathers the signals that the rule gets in one update."""
        # Every step sees every domain, so every row counts as seen.
        signals = {"counts": jnp.ones_like(weights), "losses": result.losses, "loss_weights": weights}
        if self.gradient is not None:
            signals["hypergrads"] = result.hypergrads
        # The user's own signals come last, so that they replace the loop's.
        return {**signals, **self.signals(state, jax.random.fold_in(self.keys.signal, state.step))}


def _warn_of_nan(nonfinite: jax.Array, rule_state: Any, updates: int) -> None:
    """Warns once if hypergradients were not finite, or if the rule saw no signal that it could use."""
    if not is_concrete(nonfinite):
        return
    if int(nonfinite):
        warnings.warn(
            f"mixing.fit: {int(nonfinite)} of {updates} hypergradients were not finite in some domain, whose weights "
            "stayed as they were. The losses or their derivatives are NaN or infinite after some of the steps.",
            RuntimeWarning,
            stacklevel=3,
        )
    else:
        warn_if_unseen("mixing.fit", rule_state, updates)


def _choose_horizon(
    measure_rate: Callable[..., tuple[jax.Array, Any, Any]],
    state: MixingState,
    keys: _Keys,
    num_steps: int,
    rounds_per_update: int,
) -> tuple[MixingState, int, int]:
    """Chooses T: the T of the state if it has one, else the horizon for the contraction on the first steps.

    Returns:
        The state after the measured steps, the number of steps left, and T.
    """
    if not all(is_concrete(leaf) for leaf in jax.tree.leaves((state, num_steps))):
        raise ValueError("T='auto' needs values, outside jit and vmap: take T from mixing.horizon and give it.")
    # Without steps there is nothing to measure on, and any T will do.
    if state.T > 0 or num_steps == 0:
        return state, num_steps, max(int(state.T), 1)
    count = pilot_steps(num_steps)
    rate = None
    if count > 1:
        # A program of its own, because T, the length of the main loop, has to be a Python number.
        measured, params, opt_state = jax.jit(measure_rate)(
            state.rule_state.weights, state.params, state.opt_state, keys.steps(state, count), keys.pilot
        )
        rate = float(measured)
        # The measured steps are training steps too, so they are kept and paid from the budget.
        state = state.replace(params=params, opt_state=opt_state, step=state.step + count)
        num_steps -= count
    T = horizon(max(num_steps // rounds_per_update, 1), rate)
    _LOG.info(
        "T = %d for %d steps, %d rounds per update, contraction per step %s", T, num_steps, rounds_per_update, rate
    )
    return state, num_steps, T
