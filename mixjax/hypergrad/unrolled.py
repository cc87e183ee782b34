"""Computes hypergradients by differentiating through the training steps, backwards or forwards."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mixjax.checks import check_integer
from mixjax.hypergrad.devices import on_each_device, zeros_for_losses
from mixjax.hypergrad.steps import (
    Hypergradient,
    Loss,
    as_floats,
    float_leaves,
    gradient_of,
    identity,
    inner,
    length_of,
    linear_step,
    nan_unless_finite,
    take_step,
)
from mixjax.meshes import varying_like

__all__ = ["counterfactual", "forward", "reverse"]

KEEP_ALL = 64
"""The largest number of steps for which :func:`reverse` saves the state before every step unless told otherwise."""


def reverse(
    loss: Loss,
    val_loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    draw: Callable[[Any], Any] = identity,
    checkpoint_every: int | None = None,
) -> Callable[..., Hypergradient]:
    r"""Makes a function for the hypergradient that goes backwards through the steps.

    Its cost does not depend on D. This is the default mode. For SGD with learning rate η it computes

    .. math:: \lambda_T = \nabla F(\theta_T), \quad
              g_d \mathrel{-}= \eta \langle \nabla f_d(\theta_t), \lambda_{t+1} \rangle, \quad
              \lambda_t = (I - \eta \nabla^2 \textstyle\sum_d c_d f_d(\theta_t)) \lambda_{t+1}

    For any other optimizer the pullback of its own step takes the place of η. One forward derivative of the weighted
    gradient gives both the Hessian product and all D inner products.

    Args:
        loss: the training loss ``f_d``, as in :func:`mixjax.hypergrad.hypergrad`.
        val_loss: the validation loss ``F``, as there.
        optimizer: takes the T steps and is differentiated, as there.
        draw: turns one entry of ``batches`` into a batch, as there.
        checkpoint_every: the number of steps from one saved state (parameters and optimizer state) to the next, an
            integer of at least 1. The states between two saved ones are computed again on the way back. With 1 all T
            states are saved and no step is taken twice. None means 1 up to T = 64, and the square root of T beyond.
            The root holds 2 sqrt(T) states in memory at once, and takes every step twice.

    Returns:
        The function that :func:`mixjax.hypergrad.hypergrad` describes.

    Raises:
        ValueError: ``checkpoint_every`` is not an integer of at least 1.
    """
    if checkpoint_every is not None:
        check_integer("checkpoint_every", checkpoint_every, 1)

    def run(weights, params, opt_state, batches, val_batch):
        weights, num_steps = as_floats(weights), length_of(batches)
        inputs, val = (weights, params, opt_state), (val_loss, val_batch)
        weights, params, opt_state = on_each_device(loss, inputs, draw, batches, val)
        length = checkpoint_every or _steps_between_checkpoints(num_steps)
        segments = _Segments(loss, optimizer, draw, weights)
        # A scan's rounds must be equally long, so the steps left over are a shorter segment of their own.
        whole, rest = _in_segments(batches, num_steps, length)

        middle, (starts, losses) = jax.lax.scan(segments.forth, (params, opt_state), whole)
        end, losses = middle, losses.sum(axis=0)
        if rest is not None:
            end, (_, last_losses) = segments.forth(middle, rest)
            losses += last_losses

        value, slope = jax.value_and_grad(val_loss)(end[0], val_batch)
        # The validation loss depends on the last parameters, and not on the last slots.
        no_slots = varying_like(jax.tree.map(jnp.zeros_like, float_leaves(opt_state)[0]), weights)
        carry = (slope, no_slots), zeros_for_losses(weights)
        # The steps left over come last, so the way back begins with them.
        if rest is not None:
            carry, _ = segments.back(carry, (middle, rest))
        (_, hypergrads), _ = jax.lax.scan(segments.back, carry, (starts, whole), reverse=True)
        return Hypergradient(nan_unless_finite(hypergrads, value), *end, losses / num_steps, value)

    return run


@dataclasses.dataclass(frozen=True)
class _Segments:
    """Takes segments of training steps, and carries cotangents back through them.

    A segment is the steps from one saved state to the next. ``xs`` holds the entries of ``batches`` for its steps.
    """

    loss: Loss
    optimizer: optax.GradientTransformation
    draw: Callable[[Any], Any]
    weights: jax.Array

    def gradient(self, params, batch):
        """Returns the weighted gradient and each domain's loss."""
        return gradient_of(self.loss)(self.weights, params, batch)

    def step(self, state, x):
        """Takes one training step. Returns the new state and each domain's loss before the step."""
        grads, losses = self.gradient(state[0], self.draw(x))
        return take_step(self.optimizer, state, grads), losses

    def forth(self, state, xs):
        """Takes a segment's steps. Returns the state after them, and (the state to save, each domain's summed loss)."""
        end, losses = jax.lax.scan(self.step, state, xs)
        return end, (state, losses.sum(axis=0))

    def states(self, start, xs):
        """Computes the state before each step of a segment again, from the saved state."""
        if length_of(xs) == 1:
            # The only such state is the saved one, so no step is taken twice where every state is saved.
            return jax.tree.map(lambda x: x[None], start)
        _, states = jax.lax.scan(lambda state, x: (self.step(state, x)[0], state), start, xs)
        return states

    def back(self, carry, start_and_xs):
        """Carries the cotangent from a segment's end to its start, and adds up the hypergradient."""
        start, xs = start_and_xs

        def one_step_back(carry, state_and_x):
            (cotangent, hypergrads), (state, x) = carry, state_and_x
            cotangent, slopes = self.pull_back(state, x, cotangent)
            return (cotangent, hypergrads + slopes), None

        return jax.lax.scan(one_step_back, carry, (self.states(start, xs), xs), reverse=True)

    def pull_back(self, state, x, cotangent):
        """Carries the cotangent of the state after one step to the state before the step.

        Returns:
            The cotangent of the state before the step, and the step's part of the hypergradient.
        """
        params, batch = state[0], self.draw(x)
        # The gradient is an input of the step that is differentiated. So no reverse derivative of the gradient is
        # taken, which would cost more than the forward derivative below.
        grads, _ = self.gradient(params, batch)
        _, push, inputs = linear_step(self.optimizer, state, grads)
        direct, slots_cotangent, grads_cotangent = jax.linear_transpose(push, *inputs)(cotangent)
        # The Hessian is symmetric, so its product with u = grads_cotangent is a forward derivative along u. The same
        # derivative of the losses is <grad f_d, u>, for every d.
        _, (curved, slopes) = jax.jvp(lambda params: self.gradient(params, batch), (params,), (grads_cotangent,))
        return (jax.tree.map(jnp.add, direct, curved), slots_cotangent), slopes


def _steps_between_checkpoints(num_steps):
    return 1 if num_steps <= KEEP_ALL else math.isqrt(num_steps)


def _in_segments(batches, num_steps, length):
    """Splits ``batches`` into whole segments and the steps left over.

    Returns:
        A tree with leading axes ``[num_steps // length, length]``, and the rest, which is None where no step is left.
    """
    count, left_over = divmod(num_steps, length)
    whole = jax.tree.map(lambda x: x[: count * length].reshape(count, length, *x.shape[1:]), batches)
    rest = jax.tree.map(lambda x: x[count * length :], batches) if left_over else None
    return whole, rest


def forward(
    loss: Loss, val_loss: Loss, optimizer: optax.GradientTransformation, *, draw: Callable[[Any], Any] = identity
) -> Callable[..., Hypergradient]:
    r"""Makes a function for the hypergradient that carries D tangents along with the steps.

    Its memory does not grow with T, and T may be traced. For SGD with learning rate η it computes

    .. math:: J_{t+1} = (I - \eta \nabla^2 \textstyle\sum_d c_d f_d(\theta_t)) J_t
              - \eta [\nabla f_1, \ldots, \nabla f_D](\theta_t), \quad J_0 = 0, \quad g = J_T^\top \nabla F(\theta_T)

    For any other optimizer the derivative of its own step takes the place of η. One forward derivative of the weighted
    gradient with respect to ``(c, θ)``, along the unit vectors and ``J``, gives both terms of a step.

    Args:
        loss: the training loss ``f_d``, as in :func:`mixjax.hypergrad.hypergrad`.
        val_loss: the validation loss ``F``, as there.
        optimizer: takes the T steps and is differentiated, as there.
        draw: turns one entry of ``batches`` into a batch, as there.

    Returns:
        The function that :func:`mixjax.hypergrad.hypergrad` describes, with one more argument ``num_steps=None``. It
        says how many of the T batches to use: an integer scalar, clamped into [1, T], that may be traced. None uses
        all.

    Raises:
        ValueError: the inputs' shapes do not fit, as in :func:`mixjax.hypergrad.hypergrad`.
    """
    gradient = gradient_of(loss)

    def run(weights, params, opt_state, batches, val_batch, num_steps=None):
        weights, longest = as_floats(weights), length_of(batches)
        inputs, val = (weights, params, opt_state), (val_loss, val_batch)
        weights, params, opt_state = on_each_device(loss, inputs, draw, batches, val)
        # NumPy arrays do not take the traced step below as an index.
        batches = jax.tree.map(jnp.asarray, batches)
        num_steps = longest if num_steps is None else jnp.clip(num_steps, 1, longest)
        # One tangent of the weights for each domain: row d moves c_d alone.
        units = varying_like(jnp.diag(jnp.ones_like(weights)), weights)

        def advance(t, carry):
            state, (tangents, slot_tangents), total = carry
            batch = draw(jax.tree.map(lambda x: x[t], batches))
            # A function that is linearised once is evaluated once, however many tangents go through it.
            (grads, losses), push_gradient = jax.linearize(lambda c, x: gradient(c, x, batch), weights, state[0])
            # The tangents of the losses, the second result, are not needed.
            grad_tangents = jax.vmap(lambda unit, tangent: push_gradient(unit, tangent)[0])(units, tangents)
            state, push_step, _ = linear_step(optimizer, state, grads)
            return state, jax.vmap(push_step)(tangents, slot_tangents, grad_tangents), total + losses

        zeros = _zero_tangents(params, weights.size), _zero_tangents(float_leaves(opt_state)[0], weights.size)
        start = (params, opt_state), varying_like(zeros, weights), zeros_for_losses(weights)
        # A fori_loop, unlike a scan, takes a traced number of steps.
        (params, opt_state), (tangents, _), total = jax.lax.fori_loop(0, num_steps, advance, start)
        value, slope = jax.value_and_grad(val_loss)(params, val_batch)
        # JAX's gradient of a complex parameter is the conjugate of the direction of steepest ascent.
        hypergrads = jax.vmap(lambda tangent: inner(tangent, jax.tree.map(jnp.conj, slope)))(tangents)
        # `inner` has the parameters' type, which may be narrower than that of the weights.
        hypergrads = nan_unless_finite(jnp.asarray(hypergrads, weights.dtype), value)
        return Hypergradient(hypergrads, params, opt_state, total / num_steps, value)

    return run


def _zero_tangents(tree, num_domains):
    return jax.tree.map(lambda x: jnp.broadcast_to(jnp.zeros_like(x), (num_domains, *jnp.shape(x))), tree)


def counterfactual(result: Hypergradient, weights: ArrayLike, other: ArrayLike) -> jax.Array:
    r"""Estimates the validation loss that other weights would have led to, to first order.

    .. math:: F(\theta_T(c')) \approx F(\theta_T(c)) + \langle g, c' - c \rangle

    The error is of second order in ``c' - c``. Only ``reverse`` and ``forward`` differentiate the steps, so only their
    results can be used here.

    Args:
        result: the hypergradient of the T steps that were taken.
        weights: ``c`` ``[D]``, the weights of those steps.
        other: ``c'`` ``[..., D]``, the weights to compare with.

    Returns:
        ``[...]``, in units of the validation loss.

    Raises:
        ValueError: the weights' shapes do not fit the hypergradient's.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax.hypergrad import Hypergradient, counterfactual
        >>> result = Hypergradient(jnp.array([0.5, -0.5]), None, None, None, jnp.array(2.0))
        >>> counterfactual(result, [0.5, 0.5], [[0.5, 0.5], [0.0, 1.0]]).tolist()
        [2.0, 1.5]
    """
    weights, other = jnp.asarray(weights), jnp.asarray(other)
    shape = result.hypergrads.shape
    if weights.shape != shape or other.shape[-1:] != shape:
        raise ValueError(
            f"weights must be of shape {shape} and other of shape [..., {shape[0]}], got {weights.shape} and "
            f"{other.shape}."
        )
    return result.val_loss + (other - weights) @ result.hypergrads
