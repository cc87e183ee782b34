r"""Data mixing: move the loss weights every T training steps, by the hypergradient of a validation loss.

One *round* is T optimizer steps on :math:`\sum_d c_d f_d` from where the last round ended, then one update of the
weights. T = 1, what most methods do, sees a domain's effect one step ahead, which favours what acts fast over what acts
in the end; it can end in weights worse than those it started from. A long T sees further, and leaves fewer updates in a
budget of N steps: :func:`horizon` chooses.

:func:`fit` takes any rule: one that reads ``hypergrads`` (``mirror_descent``, ``projected_gradient``, ``doge``), or one
that does without (``fixed``, ``group_dro``, ``doremi``, ``exp3``), so that methods are compared by swapping it.

References:
    Papers 001 and 002: Das, Patel, Razaviyayn and Mirrokni, "Less is more: convergence benefits of fewer data weight
    updates over longer horizon" (arXiv:2602.19510), of which we have the abstract: the loop is our reconstruction.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mixjax.hypergrad import (
    Hypergradient,
    Loss,
    advance_of,
    float_leaves,
    gradient_of,
    hypergrad,
    length_of,
    unroll,
)
from mixjax.rules.base import check_integer, is_concrete
from mixjax.types import WeightRule

__all__ = ["MixingState", "contraction", "fit", "horizon", "init_state"]

PILOT = 64
"""Steps at most that ``T="auto"`` measures the contraction on."""
ROUNDS = 16
"""Rounds at least that :func:`horizon` leaves in the budget."""


class MixingState(NamedTuple):
    """What data mixing carries from round to round.

    Attributes:
        params: pytree of parameters.
        opt_state: the optimizer's state.
        rule_state: the rule's state; ``rule_state.weights`` are the last weights.
        mean_weights: float32 ``[D]``, mean over the rounds of the weights they were trained with: what theory speaks
            of, and what to train another model with.
        round: int32 scalar, rounds so far.
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
    return MixingState(params, optimizer.init(params), rule_state, rule_state.weights, zero, zero, zero)


def horizon(num_steps: int, rate: float | None = None) -> int:
    r"""How many steps a round should take, for a budget of N.

    .. math:: T = \min\Bigl(\frac{\log N}{-2 \log r},\; \tfrac{1}{2} \sqrt{N \log N}\Bigr)
              \quad\text{within } [1, N / 16]

    The weights err by about ``sqrt(T / N)`` for the number of updates and by ``r^T`` for what T steps do not see yet,
    where distances shrink by ``r = 1 - η μ`` a step. Both vanish together at the first term, for gradients with noise
    too as long as the learning rate is what it is. Where nothing contracts, or too slowly, the second term is the law
    for noisy gradients whose learning rate falls with T; its constant is a rule of thumb, and a wide range around it
    did as well on the data sets we tried.

    Args:
        num_steps: ``N``, optimizer steps in all, at least 1.
        rate: ``r`` from :func:`contraction`; None, NaN or at least 1 where there is none.

    Returns:
        ``T``.

    Raises:
        ValueError: ``num_steps`` below 1, or a negative rate.

    Example:
        >>> from mixjax import mixing
        >>> mixing.horizon(4096), mixing.horizon(4096, rate=0.8)
        (92, 19)

    References:
        Papers 001 and 002, abstract: ``T = Θ(log N)`` with full gradients, ``Θ(sqrt(N log N))`` with stochastic ones.
        The constants are ours.
    """
    check_integer("num_steps", num_steps, 1)
    if rate is not None and rate < 0:
        raise ValueError(f"rate must not be negative, got {rate}.")
    steps = 0.5 * math.sqrt(num_steps * math.log(num_steps))
    if rate is not None and rate < 1:
        steps = min(steps, math.log(num_steps) / -2 / math.log(rate)) if rate > 0 else 1
    return max(1, min(round(steps), num_steps // ROUNDS))


def contraction(
    loss: Loss, optimizer: optax.GradientTransformation, *, draw: Callable[[Any], Any] = lambda x: x
) -> Callable[..., tuple[jax.Array, Any, Any]]:
    r"""Measures, while training, by how much a step shrinks the distance between two runs on the same batches.

    .. math:: r = \Bigl(\frac{\lVert \delta_T \rVert}{\lVert \delta_{T/2} \rVert}\Bigr)^{2/T}, \qquad
              \delta_{t+1} = \frac{\partial (\theta, s)_{t+1}}{\partial (\theta, s)_t} \, \delta_t

    from a random tangent ``δ_0`` of parameters ``θ`` and optimizer state ``s``: the first half of the steps turns it
    into the slowest direction, the second half measures. For full gradients of a quadratic and SGD it tends to
    ``1 - η μ``, from below. Batches drawn at random do not blur it, since both runs see the same. It costs about two
    steps a step. At or above 1, runs do not approach each other: not convex, no regularisation, or too few steps.

    Args:
        loss: ``loss(params, batch) -> scalar`` of one domain.
        optimizer: any optax transformation.
        draw: see :func:`mixjax.hypergrad.hypergrad`.

    Returns:
        ``run(weights, params, opt_state, batches, key) -> (rate, params, opt_state)``, with ``batches`` as for
        :func:`mixjax.hypergrad.hypergrad` and the state after its steps.

    Raises:
        ValueError: fewer than two steps.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from mixjax import mixing
        >>> def loss(x, center):
        ...     return 0.5 * jnp.sum(jnp.array([1.0, 0.2]) * (x - center) ** 2)
        >>> tx, x = optax.sgd(0.5), jnp.zeros(2)
        >>> batches = jnp.tile(jnp.array([[0.0], [1.0]]), (64, 1, 1))                         # [T, D, 1]
        >>> run = mixing.contraction(loss, tx)
        >>> round(float(run(jnp.array([0.5, 0.5]), x, tx.init(x), batches, jax.random.key(0))[0]), 2)   # 1 - 0.5 * 0.2
        0.9
    """
    gradient, advance = gradient_of(loss), advance_of(optimizer)

    def run(weights, params, opt_state, batches, key):
        num_steps = length_of(batches)
        if num_steps < 2:
            raise ValueError(f"contraction needs at least two steps, got {num_steps}.")
        slots, _ = float_leaves(opt_state)

        def step(carry, x):
            (params, opt_state), tangent = carry
            batch = draw(x)
            slots, rebuild = float_leaves(opt_state)

            def move(params, slots):
                params, opt_state = advance((params, rebuild(slots)), gradient(jnp.asarray(weights), params, batch)[0])
                return (params, float_leaves(opt_state)[0]), opt_state

            (params, _), tangent, opt_state = jax.jvp(move, (params, slots), tangent, has_aux=True)
            size = optax.tree.norm(tangent)
            unit = jnp.where(size > 0, size, 1.0)
            return ((params, opt_state), jax.tree.map(lambda x: (x / unit).astype(x.dtype), tangent)), jnp.log(size)

        tangent = optax.tree.random_like(key, (params, slots))
        (state, _), logs = jax.lax.scan(step, ((params, opt_state), tangent), batches)
        return jnp.exp(logs[num_steps // 2 :].mean()), *state

    return run


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
        T: steps a round, an integer of at least 1. ``"auto"``: the first ``min(64, N / 16)`` steps, with the first
            weights, measure the :func:`contraction`, and the :func:`horizon` for it and N is taken; a state that has a
            ``T`` keeps it. That needs values: not inside jit or vmap, where T is to be given.
        mode: of :func:`mixjax.hypergrad.hypergrad`; None computes no hypergradient.
        every: rounds from one update of the weights to the next, an integer of at least 1. Only the last of them, its T
            steps, is differentiated: at ``every = r`` the hypergradient's cost is divided by r, and so is the number of
            updates.
        signals: ``signals(state, key) -> dict``, more signals for the rule or others in place of the above, measured at
            the end of a round: ``reference_losses``, ``grad_norms``, ``counts`` where some domains were not looked at.
        record: ``record(state, result) -> pytree``, kept for each update; ``state`` is the one after it, ``result``
            what the rule saw.
        **options: the mode's.

    Returns:
        ``(state, records)``: the last state, with the last weights and the mean of all rounds' weights, and records
        with a leading axis of ``num_steps // (T * every)``.

    Raises:
        ValueError: T, ``every`` or ``num_steps`` out of range, ``"auto"`` inside jit.
        TypeError: a signal that the rule needs and that is not there.

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
    step_key, val_key, signal_key = jax.random.split(key, 3)
    plain = unroll(loss, optimizer, draw=draw)

    def keys(state, count):
        return jax.vmap(lambda i: jax.random.fold_in(step_key, state.step + i))(jnp.arange(count))

    def train(state, count):
        trained = plain(state.rule_state.weights, state.params, state.opt_state, keys(state, count))
        return state._replace(params=trained[0], opt_state=trained[1], step=state.step + count), trained[2]

    if T == "auto":
        state, num_steps, T = _pilot(loss, optimizer, draw, state, keys, signal_key, num_steps)
    check_integer("T", T, 1)
    if num_steps and num_steps < T * every:
        raise ValueError(f"num_steps must be at least T * every = {T * every}, one update, got {num_steps}.")
    state = state._replace(T=jnp.asarray(T, jnp.int32))
    if mode is not None:
        gradient = hypergrad(loss, val_loss, optimizer, mode=mode, draw=draw, **options)
    elif options:
        raise TypeError(f"mode None takes no options, got {', '.join(options)}.")

    def round_(state, _):
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
    state, records = jax.lax.scan(round_, state, length=rounds)
    return train(state, rest)[0] if rest else state, records


def _pilot(loss, optimizer, draw, state, keys, key, num_steps):
    """The state, the steps left, and T: from the state, or by measuring the contraction on the first steps."""
    if not is_concrete((state, num_steps)):
        raise ValueError("T='auto' needs values, outside jit and vmap: take T from mixing.horizon and give it.")
    if state.T > 0:
        return state, num_steps, int(state.T)
    count, rate = min(PILOT, num_steps // ROUNDS), None
    if count > 1:
        run = jax.jit(contraction(loss, optimizer, draw=draw))
        weights, pilot_keys = state.rule_state.weights, keys(state, count)
        rate, params, opt_state = run(weights, state.params, state.opt_state, pilot_keys, key)
        state = state._replace(params=params, opt_state=opt_state, step=state.step + count)
        num_steps, rate = num_steps - count, float(rate)
    return state, num_steps, horizon(num_steps, rate)
