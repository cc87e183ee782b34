"""Training with a rule for the loss weights and a rule for the sampling weights.

The papers move weights on a held-out probe every T₀ steps and use them afterwards. :func:`fit` is that loop, as two
nested scans: rounds of ``probe_every`` cheap steps, each round ended by one probe, so that nothing costly hides behind
a branch. Every part is an ordinary pure function that a loop of your own can call as well.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mixjax.objectives import weighted_loss
from mixjax.types import WeightRule

__all__ = ["TrainState", "fit", "init_state", "make_probe", "make_step"]


class TrainState(NamedTuple):
    """What training carries from step to step.

    Attributes:
        params: pytree of parameters.
        opt_state: the optimizer's state.
        loss_state: state of the rule for the loss weights ``c``.
        sampling_state: state of the rule for the sampling weights ``q``.
        step: int32 scalar, steps taken.
    """

    params: Any
    opt_state: Any
    loss_state: Any
    sampling_state: Any
    step: jax.Array


def init_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    prior: jax.typing.ArrayLike,
    loss_rule: WeightRule,
    sampling_rule: WeightRule,
) -> TrainState:
    """The state before the first step.

    Args:
        params: pytree of parameters.
        optimizer: an optax transformation.
        prior: non-negative ``[D]``.
        loss_rule: rule for the loss weights.
        sampling_rule: rule for the sampling weights.

    Returns:
        A :class:`TrainState`; see :func:`fit` for an example.

    Raises:
        ValueError: a prior that is no non-negative vector.
    """
    step = jnp.zeros((), jnp.int32)
    return TrainState(params, optimizer.init(params), loss_rule.init(prior), sampling_rule.init(prior), step)


def make_step(
    losses: Callable[[Any, Any], jax.Array], optimizer: optax.GradientTransformation, *, estimator: str = "stratified"
) -> Callable[[TrainState, Any, jax.Array], tuple[TrainState, jax.Array]]:
    """One optimizer step on a batch, with the weights the state holds.

    Args:
        losses: ``losses(params, batch) -> [B]``, per example.
        optimizer: an optax transformation of ordinary (not stacked) gradients.
        estimator: as for :func:`mixjax.weighted_loss`; Horvitz-Thompson takes ``q`` from the state.

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
        def objective(params):
            return weighted_loss(
                None,  # no update: the state's weights are used as they are
                state.loss_state,
                losses(params, batch),
                domain_ids,
                update=False,
                estimator=estimator,
                sampling_weights=state.sampling_state.weights if estimator == "horvitz_thompson" else None,
            )[0]

        value, grads = jax.value_and_grad(objective)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state._replace(params=params, opt_state=opt_state, step=state.step + 1), value

    return step


def make_probe(
    measure: Callable[[Any, jax.Array], dict[str, jax.Array]], loss_rule: WeightRule, sampling_rule: WeightRule
) -> Callable[[TrainState, jax.Array], TrainState]:
    """Measures signals and moves both weights: first ``c``, then ``q``, which sees the new ``c``.

    Args:
        measure: ``measure(params, key) -> signals``, keyword arguments of the rules, ``counts`` among them. Where the
            points come from is its choice: see :mod:`mixjax.probes`.
        loss_rule: rule for the loss weights.
        sampling_rule: rule for the sampling weights; also gets ``loss_weights``.

    Returns:
        ``probe(state, key) -> state``; see :func:`fit` for an example. A signal that a rule needs and ``measure`` does
        not give is the rule's TypeError.

    References:
        Paper 000, algorithm 1, lines 8-11 (at the new parameters), and algorithm 2, lines 7-10. Algorithm 2 as printed
        estimates ``v`` before the step it follows; here both estimates are made at the new parameters.
    """

    def probe(state, key):
        signals = measure(state.params, key)
        loss_state = loss_rule.update(state.loss_state, **signals)
        signals = {**signals, "loss_weights": loss_state.weights}
        return state._replace(
            loss_state=loss_state, sampling_state=sampling_rule.update(state.sampling_state, **signals)
        )

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
    """Rounds of ``probe_every`` steps and one probe, as nested scans; steps left over come last, without a probe.

    Args:
        step: ``step(state, batch, domain_ids) -> (state, objective)``.
        probe: ``probe(state, key) -> state``.
        plan: ``plan(sampling_weights) -> plan``, what a round's draws need; computed once a round. For example
            ``lambda q: mixjax.samplers.allocate(q, batch_size)``.
        draw: ``draw(key, plan) -> (batch, domain_ids)``, every step.
        state: the first state.
        key: a ``jax.random.key``; the step and the probe after ``t`` steps have keys of their own, so that a run cut
            after a round and continued with the same key is the run without the cut.
        num_steps: number of steps ``T``, a Python integer of at least 0.
        probe_every: steps between probes ``T₀``, a Python integer of at least 1.
        record: ``record(state) -> pytree``, kept at the end of each round.

    Returns:
        ``(state, records)``: the last state, and records with a leading axis of ``num_steps // probe_every`` rounds.

    Raises:
        ValueError: ``num_steps`` below 0 or ``probe_every`` below 1.

    Example:
        The mean of two domains whose noise has variance 0.01 and 1, weighted by one-shot FGLS:

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

    def steps(state, length):
        planned = plan(state.sampling_state.weights)

        def body(state, _):
            batch, domain_ids = draw(jax.random.fold_in(step_key, state.step), planned)
            return step(state, batch, domain_ids)[0], None

        return jax.lax.scan(body, state, length=length)[0]

    def round_(state, _):
        state = steps(state, probe_every)
        state = probe(state, jax.random.fold_in(probe_key, state.step))
        return state, record(state)

    rounds, rest = divmod(num_steps, probe_every)
    state, records = jax.lax.scan(round_, state, length=rounds)
    return steps(state, rest) if rest else state, records
