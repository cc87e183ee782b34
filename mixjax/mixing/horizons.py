"""Chooses how long a round of data mixing should be, from the budget and from how fast training forgets its start."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mixjax.checks import check_integer
from mixjax.hypergrad.devices import on_each_device
from mixjax.hypergrad.steps import (
    Loss,
    as_floats,
    float_leaves,
    gradient_of,
    identity,
    length_of,
    linear_step,
)
from mixjax.meshes import varying_like

__all__ = ["contraction", "horizon", "pilot_steps"]

PILOT = 64
"""The largest number of steps on which ``T="auto"`` measures the contraction."""
ROUNDS = 16
"""The number of rounds that :func:`horizon` always leaves room for in the budget."""


def horizon(num_steps: int, rate: float | None = None) -> int:
    r"""Returns how many steps a round should take in a budget of N steps.

    .. math:: T = \min\Bigl(\frac{\log N}{-2 \log r},\; \tfrac{1}{2} \sqrt{N \log N}\Bigr)
              \quad\text{within } [1, N / 16]

    Let a step shrink distances between runs by the factor ``r``. For gradient descent with learning rate η, on a loss
    of smallest curvature μ, it is ``1 - η μ``. The weights have two errors:

    - about ``sqrt(T / N)``, because there are only N / T updates;
    - about ``r^T``, because T steps do not show a weight's whole effect.

    With T at the first term of the minimum, both errors vanish together as N grows. This holds for noisy gradients too,
    if the learning rate does not change with T. The second term applies where training contracts too slowly or not at
    all. It is the law for noisy gradients with a learning rate that falls with T. The factor 1/2 is a rule of thumb. On
    the data sets that we tried, a wide range of T around the second term did equally well.

    Args:
        num_steps: ``N``, the number of optimizer steps in all, an integer of at least 1.
        rate: ``r`` from :func:`contraction`, not negative. None, NaN, and anything from 1 on stand for training that
            does not contract.

    Returns:
        ``T``, a Python integer of at least 1.

    Raises:
        ValueError: ``num_steps`` is below 1, or the rate is negative.

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
    # NaN, which is not below 1 either, means that nothing was measured.
    if rate is not None and rate < 1:
        # At a rate of 0 training forgets its start in one step, and the logarithm does not exist.
        steps = min(steps, math.log(num_steps) / -2 / math.log(rate)) if rate > 0 else 1
    return max(1, min(round(steps), num_steps // ROUNDS))


def pilot_steps(num_steps: int) -> int:
    """Returns the number of steps on which ``T="auto"`` measures the contraction, ``min(64, N / 16)``.

    Args:
        num_steps: ``N``, at least 0.

    Returns:
        The number of steps. Fewer than 2 are too few to measure on.
    """
    return min(PILOT, num_steps // ROUNDS)


def contraction(
    loss: Loss, optimizer: optax.GradientTransformation, *, draw: Callable[[Any], Any] = identity
) -> Callable[..., tuple[jax.Array, Any, Any]]:
    r"""Makes a function that trains and measures by how much a step shrinks the distance between two runs.

    Both runs see the same batches and start close to each other. The measure is

    .. math:: r = \Bigl(\frac{\lVert \delta_T \rVert}{\lVert \delta_{T/2} \rVert}\Bigr)^{2/T}

    Here ``δ_0`` is a random tangent of the parameters (a small difference between the runs), and ``δ_t`` is that
    difference after ``t`` steps. In the first half of the steps the difference turns into the direction that shrinks
    most slowly. The second half measures how fast this direction shrinks.

    - For full gradients of a quadratic with smallest curvature μ, ``r`` is ``1 - η μ`` with SGD of learning rate η, and
      the spectral radius with momentum. Batches drawn at random do not blur ``r``, because both runs see the same.
    - At ``r`` of 1 and above, the runs do not approach each other: the loss is not convex and not regularised, or the
      steps are too few.
    - The optimizer's state has a tangent too, which starts at 0 and is carried along. The norm leaves this tangent out,
      because a learning rate kept in the state never shrinks.
    - A step costs about as much as two plain steps.

    Args:
        loss: ``loss(params, batch) -> scalar`` for one domain.
        optimizer: any optax transformation of ordinary gradients.
        draw: turns one entry of ``batches`` into a batch, as in :func:`mixjax.hypergrad.hypergrad`.

    Returns:
        ``run(weights, params, opt_state, batches, key) -> (rate, params, opt_state)``. ``batches`` are as in
        :func:`mixjax.hypergrad.hypergrad`. ``params`` and ``opt_state`` are returned as they are after the steps.

    Raises:
        ValueError: ``batches`` hold fewer than two steps.

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
    gradient = gradient_of(loss)

    def run(weights, params, opt_state, batches, key):
        weights, num_steps = as_floats(weights), length_of(batches)
        if num_steps < 2:
            raise ValueError(f"contraction needs at least two steps, got {num_steps}.")
        weights, params, opt_state = on_each_device(loss, (weights, params, opt_state), draw, batches)
        slots, _ = float_leaves(opt_state)

        # A tangent stands for a vanishingly small difference between two runs, so only one run is computed.
        def advance(carry, x):
            state, (tangent, slots_tangent) = carry
            batch = draw(x)
            grads, grads_tangent = jax.jvp(lambda x: gradient(weights, x, batch)[0], (state[0],), (tangent,))
            state, push, _ = linear_step(optimizer, state, grads)
            tangents = push(tangent, slots_tangent, grads_tangent)
            size = optax.tree.norm(tangents[0])
            return (state, _rescaled(tangents, size)), jnp.log(size)

        tangents = varying_like((optax.tree.random_like(key, params), optax.tree.zeros_like(slots)), weights)
        (state, _), logs = jax.lax.scan(advance, ((params, opt_state), tangents), batches)
        # From the second step on the tangent has norm 1 before a step, so its size after the step is the step's factor.
        # The rate is the geometric mean of the factors, hence the mean of logarithms.
        return jnp.exp(logs[num_steps // 2 :].mean()), *state

    return run


def _rescaled(tangent, size):
    """Divides a tangent by its size, so that it neither vanishes nor overflows over many steps."""
    unit = jnp.where(size > 0, size, 1.0)
    return jax.tree.map(lambda x: (x / unit).astype(x.dtype), tangent)
