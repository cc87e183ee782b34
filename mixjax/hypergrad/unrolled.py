"""Derivatives through the steps: backwards, and forwards."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mixjax.checks import check_integer
from mixjax.hypergrad.steps import (
    Hypergradient,
    Loss,
    advance_of,
    as_floats,
    float_leaves,
    gradient_of,
    known,
    length_of,
    move_of,
    same,
)


def reverse(
    loss: Loss,
    val_loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    draw: Callable[[Any], Any] = same,
    segment: int | None = None,
) -> Callable[..., Hypergradient]:
    r"""Backwards through the steps; its cost does not depend on D. The default.

    For SGD with learning rate η:

    .. math:: \lambda_T = \nabla F(\theta_T), \quad
              g_d \mathrel{-}= \eta \langle \nabla f_d(\theta_t), \lambda_{t+1} \rangle, \quad
              \lambda_t = (I - \eta \nabla^2 \textstyle\sum_d c_d f_d(\theta_t)) \lambda_{t+1}

    and for any other optimizer the same with its own pullback in place of η. Hessian products and all D inner products
    of a step come from one forward derivative of its gradient.

    Args:
        loss: see :func:`hypergrad`; so are ``val_loss``, ``optimizer``, ``draw`` and what is returned.
        val_loss: likewise.
        optimizer: likewise.
        draw: likewise.
        segment: steps from one kept state (params and optimizer state) to the next, an integer of at least 1. Between,
            states are computed again. 1 keeps all T; ``None`` does so up to T = 64, and takes the square root of T
            beyond it, for 2 sqrt(T) states at once and one more pass of training.

    Raises:
        ValueError: a ``segment`` that is not an integer of at least 1.
    """
    if segment is not None:
        check_integer("segment", segment, 1)
    gradient, advance = gradient_of(loss), advance_of(optimizer)

    def adjoint(weights, state, x, cotangent):
        """The cotangent of a step's state and its part of g, from the cotangent of the step's result."""
        (params, opt_state), batch = state, draw(x)
        slots, move = move_of(optimizer, opt_state)
        grads, _ = gradient(weights, params, batch)
        _, pull, _ = jax.vjp(move, params, slots, grads, has_aux=True)
        direct, slots_cotangent, grads_cotangent = pull(cotangent)
        # The Hessian is symmetric: its product, and <grad f_d, u> for every d, are forward derivatives along u.
        _, (curved, slopes) = jax.jvp(lambda params: gradient(weights, params, batch), (params,), (grads_cotangent,))
        return (jax.tree.map(jnp.add, direct, curved), slots_cotangent), slopes

    def run(weights, params, opt_state, batches, val_batch):
        weights, num_steps = as_floats(weights), length_of(batches)
        length = segment or (1 if num_steps <= 64 else math.isqrt(num_steps))
        rest = num_steps % length
        head = jax.tree.map(lambda x: x[: num_steps - rest].reshape(num_steps // length, length, *x.shape[1:]), batches)
        tail = jax.tree.map(lambda x: x[num_steps - rest :], batches)

        def step(state, x):
            grads, losses = gradient(weights, state[0], draw(x))
            return advance(state, grads), losses

        def forth(state, xs):
            end, losses = jax.lax.scan(step, state, xs)
            return end, (state, losses.sum(axis=0))

        def back(carry, start_and_xs):
            start, xs = start_and_xs

            def one(carry, state_and_x):
                cotangent, total = carry
                cotangent, slopes = adjoint(weights, *state_and_x, cotangent)
                return (cotangent, total + slopes), None

            if length == 1:
                states = jax.tree.map(lambda x: x[None], start)
            else:
                _, states = jax.lax.scan(lambda state, x: (step(state, x)[0], state), start, xs)
            return jax.lax.scan(one, carry, (states, xs), reverse=True)

        middle, (starts, sums) = jax.lax.scan(forth, (params, opt_state), head)
        end, losses = middle, sums.sum(axis=0)
        if rest:
            end, (_, sums) = forth(middle, tail)
            losses += sums
        value, slope = jax.value_and_grad(val_loss)(end[0], val_batch)
        carry = (slope, jax.tree.map(jnp.zeros_like, float_leaves(opt_state)[0])), jnp.zeros_like(weights)
        if rest:
            carry, _ = back(carry, (middle, tail))
        (_, total), _ = jax.lax.scan(back, carry, (starts, head), reverse=True)
        return Hypergradient(known(total, value), *end, losses / num_steps, value)

    return run


def forward(
    loss: Loss, val_loss: Loss, optimizer: optax.GradientTransformation, *, draw: Callable[[Any], Any] = same
) -> Callable[..., Hypergradient]:
    r"""D tangents carried along with the steps: memory does not grow with T, and T may be traced.

    For SGD with learning rate η:

    .. math:: J_{t+1} = (I - \eta \nabla^2 \textstyle\sum_d c_d f_d(\theta_t)) J_t
              - \eta [\nabla f_1, \ldots, \nabla f_D](\theta_t), \quad J_0 = 0, \quad g = J_T^\top \nabla F(\theta_T)

    and for any other optimizer the same with its own derivative in place of η. Both terms of a step are one forward
    derivative of its gradient in ``(c, θ)``, along the unit vectors and ``J``.

    Args:
        loss: see :func:`hypergrad`; so are ``val_loss``, ``optimizer`` and ``draw``.
        val_loss: likewise.
        optimizer: likewise.
        draw: likewise.

    Returns:
        The function of :func:`hypergrad`, with one more argument, ``num_steps=None``: how many of the T batches to use,
        an integer scalar in [1, T] that may be traced (clamped into it).

    Raises:
        ValueError: as :func:`hypergrad`.
    """
    gradient = gradient_of(loss)

    def run(weights, params, opt_state, batches, val_batch, num_steps=None):
        weights, longest = as_floats(weights), length_of(batches)
        num_steps = longest if num_steps is None else jnp.clip(num_steps, 1, longest)
        units = jnp.diag(jnp.ones_like(weights))

        def step(t, carry):
            (params, opt_state), (tangents, slot_tangents), total = carry
            batch = draw(jax.tree.map(lambda x: x[t], batches))
            slots, move = move_of(optimizer, opt_state)
            (grads, losses), along = jax.linearize(lambda c, params: gradient(c, params, batch), weights, params)
            grad_tangents = jax.vmap(lambda unit, j: along(unit, j)[0])(units, tangents)
            (params, _), push, opt_state = jax.linearize(move, params, slots, grads, has_aux=True)
            return (params, opt_state), jax.vmap(push)(tangents, slot_tangents, grad_tangents), total + losses

        def columns(tree):
            return jax.tree.map(lambda x: jnp.broadcast_to(jnp.zeros_like(x), (weights.size, *jnp.shape(x))), tree)

        start = (params, opt_state), (columns(params), columns(float_leaves(opt_state)[0])), jnp.zeros_like(weights)
        (params, opt_state), (tangents, _), total = jax.lax.fori_loop(0, num_steps, step, start)
        value, slope = jax.value_and_grad(val_loss)(params, val_batch)
        hypergrads = jax.vmap(lambda tangent: optax.tree.vdot(tangent, slope))(tangents)
        hypergrads = known(hypergrads.astype(weights.dtype), value)
        return Hypergradient(hypergrads, params, opt_state, total / num_steps, value)

    return run


def counterfactual(result: Hypergradient, weights: ArrayLike, other: ArrayLike) -> jax.Array:
    r"""The validation loss there would be, to first order, had the T steps been taken with other weights.

    .. math:: F(\theta_T(c')) \approx F(\theta_T(c)) + \langle g, c' - c \rangle

    The error is of second order in ``c' - c``. Only modes that differentiate the steps, ``reverse`` and ``forward``,
    say this.

    Args:
        result: of the steps that were taken.
        weights: ``c`` ``[D]``, what they were taken with.
        other: ``c'``, ``[..., D]``.

    Returns:
        ``[...]``, in units of the validation loss.

    Raises:
        ValueError: weights that do not fit the hypergradient.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax.hypergrad import Hypergradient, counterfactual
        >>> result = Hypergradient(jnp.array([0.5, -0.5]), None, None, None, jnp.array(2.0))
        >>> counterfactual(result, [0.5, 0.5], [[0.5, 0.5], [0.0, 1.0]]).tolist()
        [2.0, 1.5]
    """
    weights, other = jnp.asarray(weights), jnp.asarray(other)
    size = result.hypergrads.shape
    if weights.shape != size or other.shape[-1:] != size:
        raise ValueError(f"weights must be {size} and other [..., {size[0]}], got {weights.shape} and {other.shape}.")
    return result.val_loss + (other - weights) @ result.hypergrads
