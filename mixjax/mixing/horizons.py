"""How long a round of data mixing should be: by the budget, and by how fast training forgets where it started."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mixjax.checks import check_integer
from mixjax.hypergrad.steps import Loss, as_floats, float_leaves, gradient_of, length_of, move_of, same

__all__ = ["contraction", "horizon", "pilot_steps"]

PILOT = 64
"""Steps at most that ``T="auto"`` measures the contraction on."""
ROUNDS = 16
"""Rounds at least that :func:`horizon` leaves in the budget."""


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


def pilot_steps(num_steps: int) -> int:
    """How many of N steps ``T="auto"`` measures the contraction on: ``min(64, N / 16)``.

    Args:
        num_steps: ``N``, at least 0.

    Returns:
        Their number; below 2 there is nothing to measure.
    """
    return min(PILOT, num_steps // ROUNDS)


def contraction(
    loss: Loss, optimizer: optax.GradientTransformation, *, draw: Callable[[Any], Any] = same
) -> Callable[..., tuple[jax.Array, Any, Any]]:
    r"""Measures, while training, by how much a step shrinks the distance between two runs on the same batches.

    .. math:: r = \Bigl(\frac{\lVert \delta_T \rVert}{\lVert \delta_{T/2} \rVert}\Bigr)^{2/T}

    where ``δ_t`` is what a random tangent ``δ_0`` of the parameters has become after ``t`` steps, the optimizer's state
    taken along (it starts with no tangent, and its own is not measured: a learning rate kept there never shrinks). The
    first half of the steps turns ``δ`` into the slowest direction, the second half measures. For full gradients of a
    quadratic it is ``1 - η μ`` for SGD, and the spectral radius with momentum. Batches drawn at random do not blur it,
    since both runs see the same. It costs about two steps a step. At or above 1, runs do not approach each other: not
    convex, no regularisation, or too few steps.

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
    gradient = gradient_of(loss)

    def run(weights, params, opt_state, batches, key):
        num_steps = length_of(batches)
        if num_steps < 2:
            raise ValueError(f"contraction needs at least two steps, got {num_steps}.")
        slots, _ = float_leaves(opt_state)

        def step(carry, x):
            (params, opt_state), tangent = carry
            batch = draw(x)
            slots, move = move_of(optimizer, opt_state)

            def step_of(params, slots):
                return move(params, slots, gradient(as_floats(weights), params, batch)[0])

            (params, _), tangent, opt_state = jax.jvp(step_of, (params, slots), tangent, has_aux=True)
            size = optax.tree.norm(tangent[0])
            unit = jnp.where(size > 0, size, 1.0)
            return ((params, opt_state), jax.tree.map(lambda x: (x / unit).astype(x.dtype), tangent)), jnp.log(size)

        tangent = optax.tree.random_like(key, params), optax.tree.zeros_like(slots)
        (state, _), logs = jax.lax.scan(step, ((params, opt_state), tangent), batches)
        return jnp.exp(logs[num_steps // 2 :].mean()), *state

    return run
