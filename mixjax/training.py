"""Trains with a rule for the loss weights and a rule for the sampling weights.

Every T₀ steps the papers measure signals and move both weights by them. This is a *probe*. The steps up to the next
probe use the new weights. :func:`fit` is that loop, as two nested scans. The outer scan goes over rounds:
``probe_every`` cheap steps, then one probe. A single scan over steps would need a branch around the costly probe, and
``vmap`` computes both sides of a branch at every step.

:func:`make_step` and :func:`make_probe` make pure functions that a loop of your own can call as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mixjax.meshes import varying_like_result
from mixjax.objectives import weighted_loss
from mixjax.rules.base import own_buffers
from mixjax.rules.news import warn_if_unseen
from mixjax.types import Estimator, WeightRule

__all__ = ["TrainState", "fit", "init_state", "make_probe", "make_step"]


class TrainState(flax.struct.PyTreeNode):
    """Holds everything that training carries from step to step.

    It is a flax dataclass: ``state.replace(params=...)`` returns a changed copy, and ``flax.serialization`` saves it.

    Attributes:
        params: pytree of parameters.
        opt_state: the optimizer's state.
        loss_state: state of the rule for the loss weights ``c``.
        sampling_state: state of the rule for the sampling weights ``q``.
        step: int32 scalar, the number of steps taken.
    """

    params: Any
    opt_state: Any
    loss_state: Any
    sampling_state: Any
    step: jax.Array


def init_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    prior: ArrayLike,
    loss_rule: WeightRule,
    sampling_rule: WeightRule,
) -> TrainState:
    """Returns the state before the first step.

    Args:
        params: pytree of parameters.
        optimizer: an optax transformation.
        prior: ``[D]``, non-negative.
        loss_rule: the rule for the loss weights.
        sampling_rule: the rule for the sampling weights.

    Returns:
        A :class:`TrainState` of copies, so that it can be donated and ``params`` stay. :func:`fit` has an example.

    Raises:
        ValueError: the prior is not a non-negative vector.
    """
    state = TrainState(
        params=params,
        opt_state=optimizer.init(params),
        loss_state=loss_rule.init(prior),
        sampling_state=sampling_rule.init(prior),
        step=jnp.zeros((), jnp.int32),
    )
    # A donated buffer is deleted. So none may stand in two fields, as a rule's first weights and its prior may, and
    # none may be the caller's.
    return own_buffers(state)


def make_step(
    losses: Callable[[Any, Any], jax.Array],
    optimizer: optax.GradientTransformation,
    *,
    estimator: Estimator = "stratified",
) -> Callable[[TrainState, Any, jax.Array], tuple[TrainState, jax.Array]]:
    """Makes a function that takes one optimizer step on a batch, with the weights that the state holds.

    Args:
        losses: ``losses(params, batch) -> [B]``, one loss for each example, or ``[B, T]``, one for each token, as for
            :func:`mixjax.weighted_loss`.
        optimizer: an optax transformation of ordinary (not stacked) gradients.
        estimator: as for :func:`mixjax.weighted_loss`. Horvitz-Thompson takes ``q`` from the state.

    Returns:
        ``step(state, batch, domain_ids) -> (state, objective)``.

    Example:
        >>> import jax.numpy as jnp, mixjax, optax
        >>> from mixjax import training
        >>> def losses(slope, batch):
        ...     return (slope * batch["x"] - batch["y"]) ** 2
        >>> tx, rule = optax.sgd(0.1), mixjax.rules.fixed()
        >>> state = training.init_state(jnp.zeros(()), tx, [0.5, 0.5], rule, rule)
        >>> step = training.make_step(losses, tx)
        >>> batch = {"x": jnp.array([1.0, 1.0, 2.0]), "y": jnp.array([1.0, 1.0, 0.0])}
        >>> state, objective = step(state, batch, jnp.array([0, 0, 1]))
        >>> float(objective), float(state.params)        # 1/2 * 1 + 1/2 * 0;  0 - 0.1 * (1/2 * -2)
        (0.5, 0.1)
    """

    def step(state, batch, domain_ids):
        # Under shard_map a device with a batch of its own trains for itself, and gradients are not summed over devices.
        state = varying_like_result(state, losses, state.params, batch)

        def objective(params):
            # There is no rule, because the weights move at probes only.
            value, _ = weighted_loss(
                None,
                state.loss_state,
                losses(params, batch),
                domain_ids,
                estimator=estimator,
                # Only Horvitz-Thompson reads q, so a loop without sampling weights needs no such state.
                sampling_weights=state.sampling_state.weights if estimator == "horvitz_thompson" else None,
            )
            return value

        value, grads = jax.value_and_grad(objective)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state.replace(params=params, opt_state=opt_state, step=state.step + 1), value

    return step


def make_probe(
    measure: Callable[[Any, jax.Array], dict[str, jax.Array]], loss_rule: WeightRule, sampling_rule: WeightRule
) -> Callable[[TrainState, jax.Array], TrainState]:
    """Makes a function that measures signals and moves both weights.

    The loss weights ``c`` move first, so that the rule for the sampling weights ``q`` sees the new ``c``.

    Args:
        measure: ``measure(params, key) -> signals``, a dictionary with the rules' keyword arguments, ``counts`` among
            them. It chooses the points on which it measures. :mod:`mixjax.probes` has ways to choose them.
        loss_rule: the rule for the loss weights.
        sampling_rule: the rule for the sampling weights. It gets ``loss_weights`` in addition.

    Returns:
        ``probe(state, key) -> state``. :func:`fit` has an example. If ``measure`` leaves out a signal that a rule
        needs, the rule raises a TypeError that names it.

    References:
        Paper 000, algorithm 1, lines 8-11, and algorithm 2, lines 7-10. Deviation: both algorithms' estimates are made
        at the parameters after the step. Algorithm 2 as printed estimates ``v`` before the step.
    """

    def probe(state, key):
        # Both rules get all signals, because a rule ignores those that it does not read.
        signals = measure(state.params, key)
        loss_state = loss_rule.update(state.loss_state, **signals)
        signals = {**signals, "loss_weights": loss_state.weights}
        sampling_state = sampling_rule.update(state.sampling_state, **signals)
        return state.replace(loss_state=loss_state, sampling_state=sampling_state)

    return probe


def fit(
    step: Callable[[TrainState, Any, jax.Array], tuple[TrainState, jax.Array]],
    probe: Callable[[TrainState, jax.Array], TrainState],
    plan: Callable[[jax.Array], Any],
    draw: Callable[[jax.Array, Any], tuple[Any, jax.Array]],
    state: TrainState,
    key: jax.Array,
    *,
    num_steps: int,
    probe_every: int,
    record: Callable[[TrainState], Any] = lambda state: None,
) -> tuple[TrainState, Any]:
    """Trains in rounds of ``probe_every`` steps and one probe. Steps left over come last, without a probe.

    Args:
        step: ``step(state, batch, domain_ids) -> (state, objective)``, from :func:`make_step` for example.
        probe: ``probe(state, key) -> state``, from :func:`make_probe` for example.
        plan: ``plan(sampling_weights) -> plan``, says what a round's batches will hold. It is called once a round. An
            example is ``lambda q: mixjax.samplers.allocate(q, batch_size)``.
        draw: ``draw(key, plan) -> (batch, domain_ids)``, draws the batch of a step.
        state: the first state, from :func:`init_state`, or the state in which an earlier call ended.
        key: a ``jax.random.key``. The step and the probe after ``t`` steps derive keys of their own from it and ``t``.
            So a run that stops after a round and goes on with the same key equals the run without the stop.
        num_steps: the number of steps ``T``, a Python integer of at least 0.
        probe_every: the number of steps between probes ``T₀``, a Python integer of at least 1.
        record: ``record(state) -> pytree``, kept at the end of each round.

    Returns:
        ``(state, records)``: the last state, and records with a leading axis of ``num_steps // probe_every`` rounds.

    Warns:
        RuntimeWarning: outside ``jit``, if a rule could not use any row of any probe; see
            :func:`mixjax.rules.unseen_updates`, which a ``record`` can keep.

    Raises:
        ValueError: ``num_steps`` is below 0, or ``probe_every`` is below 1.

    Example:
        Estimate the mean of two domains, whose noise has variance 0.01 and 1, with the weights of one-shot FGLS:

        >>> import jax, jax.numpy as jnp, mixjax, optax
        >>> from mixjax import samplers, signals, training
        >>> def draw(key, ids):
        ...     return 3.0 + jnp.array([0.1, 1.0])[ids] * jax.random.normal(key, ids.shape), ids
        >>> def losses(mean, batch):
        ...     return jnp.square(batch - mean)
        >>> def measure(mean, key):
        ...     batch, ids = draw(key, jnp.repeat(jnp.arange(2), 64))
        ...     return signals.moments(losses(mean, batch), ids, 2).signals()
        >>> def plan(sampling_weights):
        ...     return samplers.counts_to_ids(samplers.allocate(sampling_weights, 8), 8)
        >>> tx, c, q = optax.sgd(0.1), mixjax.rules.one_shot_fgls(), mixjax.rules.fixed()
        >>> state, records = training.fit(
        ...     training.make_step(losses, tx),
        ...     training.make_probe(measure, c, q),
        ...     plan,
        ...     draw,
        ...     training.init_state(jnp.zeros(()), tx, [0.5, 0.5], c, q),
        ...     jax.random.key(0),
        ...     num_steps=100,
        ...     probe_every=20,
        ...     record=lambda state: state.loss_state.weights,
        ... )
        >>> records.shape, round(float(state.params), 1), state.loss_state.weights.round(1).tolist()
        ((5, 2), 3.0, [1.0, 0.0])

    References:
        Paper 000, algorithms 1 and 2: weights move after step ``t`` where ``t mod T₀ = T₀ - 1``.
    """
    if num_steps < 0 or probe_every < 1:
        raise ValueError(f"need num_steps >= 0 and probe_every >= 1, got {num_steps} and {probe_every}.")
    step_key, probe_key = jax.random.split(key)

    def take_steps(state, count):
        # One plan serves all steps of a round, because the weights move at probes only.
        planned = plan(state.sampling_state.weights)

        def body(state, _):
            # The key follows from the number of steps taken, so that a resumed run draws the same batches.
            batch, domain_ids = draw(jax.random.fold_in(step_key, state.step), planned)
            return step(state, batch, domain_ids)[0], None

        return jax.lax.scan(body, varying_like_result(state, body, state, None), length=count)[0]

    def take_round(state, _):
        state = take_steps(state, probe_every)
        state = probe(state, jax.random.fold_in(probe_key, state.step))
        return state, record(state)

    rounds, steps_left_over = divmod(num_steps, probe_every)
    start = varying_like_result(state, take_round, state, None)
    state, records = jax.lax.scan(take_round, start, length=rounds)
    warn_if_unseen("training.fit", (state.loss_state, state.sampling_state), rounds)
    # A Python condition, because a scan of no steps would still compile the step once more.
    if steps_left_over:
        state = take_steps(state, steps_left_over)
    return state, records
