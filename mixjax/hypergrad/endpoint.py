"""Computes hypergradients from derivatives at the last parameters only, without differentiating the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mixjax.checks import check_integer, check_positive, check_range
from mixjax.hypergrad.devices import on_each_device
from mixjax.hypergrad.steps import (
    Hypergradient,
    Loss,
    as_floats,
    gradient_of,
    identity,
    inner,
    nan_unless_finite,
    unroll,
)
from mixjax.meshes import varying_like

__all__ = ["alignment", "implicit"]


def implicit(
    loss: Loss,
    val_loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    draw: Callable[[Any], Any] = identity,
    ridge: ArrayLike = 0.0,
    tolerance: ArrayLike = 1e-5,
    max_iterations: int = 100,
    neumann_step: ArrayLike | None = None,
) -> Callable[..., Hypergradient]:
    r"""Makes a function for the hypergradient of a fully trained model, by the implicit function theorem.

    Use it for convex losses only. After T plain steps it computes, on the batch of the last step,

    .. math:: g_d = -\langle \nabla f_d(\theta_T),\;
              (\nabla^2 \textstyle\sum_d c_d f_d(\theta_T) + \rho I)^{-1} \nabla F(\theta_T) \rangle

    This is the hypergradient where :math:`\theta_T` is the optimum and that batch stands for the whole data. Its sign
    can be wrong far from the optimum, on small batches, and for losses that are not convex, because the Hessian then
    has negative eigenvalues.

    Args:
        loss: the training loss ``f_d``, as in :func:`mixjax.hypergrad.hypergrad`. Each domain's loss has to be convex
            in ``params``. This is not checked.
        val_loss: the validation loss ``F``, as there.
        optimizer: takes the T steps. It has no part in ``g``.
        draw: turns one entry of ``batches`` into a batch, as there.
        ridge: ``ρ``, a non-negative number in the units of the Hessian.
        tolerance: a non-negative number. The solver stops when the residual's norm is below ``tolerance`` times the
            norm of ``∇F``.
        max_iterations: the largest number of Hessian products, an integer of at least 1.
        neumann_step: chooses the solver. None solves by conjugate gradients. A positive number ``α``
            below 2 / (L + ρ), where L is the largest curvature, sums the Neumann series
            ``α Σ_j (I - α (H + ρ I))^j ∇F``, where H is the Hessian. If ``α`` is SGD's learning rate, ``k`` terms of it
            give the hypergradient of ``k`` steps of SGD from the optimum.

    Returns:
        The function that :func:`mixjax.hypergrad.hypergrad` describes.

    Raises:
        ValueError: an option is out of range.
    """
    check_range("ridge", ridge, 0.0)
    check_range("tolerance", tolerance, 0.0)
    check_integer("max_iterations", max_iterations, 1)
    if neumann_step is not None:
        check_positive("neumann_step", neumann_step)

    gradient = gradient_of(loss)

    def direction(weights, params, batch, slope):
        # A gradient that is linearised once is evaluated once, however many products the solver takes.
        _, push_gradient = jax.linearize(lambda params: gradient(weights, params, batch)[0], params)

        def curvature(v):
            """Multiplies ``v`` by the Hessian plus the ridge."""
            return jax.tree.map(lambda h, x: jnp.conj(h) + jnp.asarray(ridge, x.dtype) * x, push_gradient(v), v)

        limit = tolerance * optax.tree.norm(slope)
        if neumann_step is None:
            return _conjugate_gradients(curvature, slope, limit, max_iterations)
        return _neumann_series(curvature, slope, neumann_step, limit, max_iterations)

    return _after_training(loss, val_loss, optimizer, draw, direction)


def alignment(
    loss: Loss, val_loss: Loss, optimizer: optax.GradientTransformation, *, draw: Callable[[Any], Any] = identity
) -> Callable[..., Hypergradient]:
    r"""Makes a function that measures how well each domain's gradient points down the validation loss.

    After T plain steps it computes, on the batch of the last step,

    .. math:: g_d = -\langle \nabla F(\theta_T), \nabla f_d(\theta_T) \rangle

    DoGE and other methods with T = 1 use this first-order score. It differs from the hypergradient of one SGD step in
    two ways. It leaves out the step's learning rate, so its unit is loss per unit of learning rate. It takes both
    gradients at the same parameters, where the hypergradient takes ∇F after the step. Weights that follow this score
    settle where they would for T = 1, whatever T is.

    Args:
        loss: the training loss ``f_d``, as in :func:`mixjax.hypergrad.hypergrad`.
        val_loss: the validation loss ``F``, as there.
        optimizer: takes the T steps. It has no part in ``g``.
        draw: turns one entry of ``batches`` into a batch, as there.

    Returns:
        The function that :func:`mixjax.hypergrad.hypergrad` describes.

    Raises:
        ValueError: the inputs' shapes do not fit, as in :func:`mixjax.hypergrad.hypergrad`.

    References:
        Fan, Pagliardini and Jaggi, "DoGE: domain reweighting with generalization estimation" (ICML 2024).
    """
    return _after_training(loss, val_loss, optimizer, draw, lambda weights, params, batch, slope: slope)


def _after_training(loss, val_loss, optimizer, draw, direction):
    """Makes a function that trains for T steps and then computes ``g_d = -<grad f_d, v>``.

    ``direction(weights, params, batch, slope)`` returns ``v``. Its ``slope`` is ``grad F``.
    """
    train = unroll(loss, optimizer, draw=draw)

    def run(weights, params, opt_state, batches, val_batch):
        weights = as_floats(weights)
        inputs, val = (weights, params, opt_state), (val_loss, val_batch)
        weights, params, opt_state = on_each_device(loss, inputs, draw, batches, val)
        params, opt_state, losses = train(weights, params, opt_state, batches)
        # The last batch is drawn again, because the training steps keep none.
        batch = draw(jax.tree.map(lambda x: x[-1], batches))
        value, slope = jax.value_and_grad(val_loss)(params, val_batch)
        # JAX's gradient of a complex parameter is the conjugate of the direction of steepest ascent.
        v = direction(weights, params, batch, jax.tree.map(jnp.conj, slope))
        # One forward derivative along v would do, but `alignment` has to work for losses that have none (custom_vjp).
        slopes = jax.vmap(lambda part: inner(jax.tree.map(jnp.conj, jax.grad(loss)(params, part)), v))(batch)
        # `inner` has the parameters' type, which may be narrower than that of the weights.
        hypergrads = nan_unless_finite(-jnp.asarray(slopes, weights.dtype), value)
        return Hypergradient(hypergrads, params, opt_state, losses, value)

    return run


def _conjugate_gradients(curvature, slope, limit, max_iterations):
    """Solves ``curvature(x) = slope``, for a positive definite ``curvature``, by conjugate gradients from 0.

    It stops as :func:`_neumann_series` does. JAX's own solver does not run under ``shard_map`` with ``check_vma=True``.
    """

    def add_scaled(x, scale, direction):
        # A float32 factor would widen bfloat16 parameters, and the loop's carry must keep its types.
        return jax.tree.map(lambda x, d: x + scale.astype(x.dtype) * d, x, direction)

    def improve(carry):
        solution, residual, direction, size, count = carry
        image = curvature(direction)
        rate = size / inner(direction, image)
        solution, residual = add_scaled(solution, rate, direction), add_scaled(residual, -rate, image)
        new_size = inner(residual, residual)
        return solution, residual, add_scaled(residual, new_size / size, direction), new_size, count + 1

    def unsolved(carry):
        *_, size, count = carry
        return (count < max_iterations) & (size > limit**2)

    zeros = varying_like(optax.tree.zeros_like(slope), slope)
    start = zeros, slope, slope, inner(slope, slope), 0
    return jax.lax.while_loop(unsolved, improve, start)[0]


def _neumann_series(curvature, slope, step, limit, max_iterations):
    """Solves ``curvature(x) = slope`` by gradient steps ``x += step * residual`` from 0.

    It stops when the residual's norm is at most ``limit``, or after ``max_iterations`` steps.
    """

    def add_term(carry):
        solution, residual, count = carry
        # A float32 step would widen bfloat16 parameters, and the loop's carry must keep its types.
        solution = jax.tree.map(lambda x, r: x + jnp.asarray(step, x.dtype) * r, solution, residual)
        return solution, optax.tree.sub(slope, curvature(solution)), count + 1

    def unsolved(carry):
        _, residual, count = carry
        return (count < max_iterations) & (optax.tree.norm(residual) > limit)

    zeros = varying_like(optax.tree.zeros_like(slope), slope)
    solution, _, _ = jax.lax.while_loop(unsolved, add_term, (zeros, slope, 0))
    return solution
