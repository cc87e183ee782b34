"""Derivatives at the last parameters: of an inner optimum, and to first order."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mixjax.checks import check_integer, check_positive, check_range
from mixjax.hypergrad.steps import Hypergradient, Loss, as_floats, gradient_of, known, same, unroll


def implicit(
    loss: Loss,
    val_loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    draw: Callable[[Any], Any] = same,
    ridge: ArrayLike = 0.0,
    tolerance: ArrayLike = 1e-5,
    max_iterations: int = 100,
    neumann_step: ArrayLike | None = None,
) -> Callable[..., Hypergradient]:
    r"""The hypergradient of the inner optimum, by the implicit function theorem. For convex losses only.

    .. math:: g_d = -\langle \nabla f_d(\theta_T),\;
              (\nabla^2 \textstyle\sum_d c_d f_d(\theta_T) + \rho I)^{-1} \nabla F(\theta_T) \rangle

    after T plain steps, on the batch of the last of them. It is right where :math:`\theta_T` is the optimum and that
    batch stands for the whole data. Far from the optimum, on small batches, and for losses that are not convex, where
    the Hessian has negative eigenvalues, it can have any sign.

    Args:
        loss: see :func:`hypergrad`; so are ``val_loss``, ``optimizer``, ``draw`` and what is returned. All losses have
            to be convex in ``params``; this is not checked.
        val_loss: likewise.
        optimizer: likewise; it makes the steps, and does not enter ``g``.
        draw: likewise.
        ridge: ``ρ``, non-negative, in the units of the Hessian.
        tolerance: non-negative: stop when the residual's norm is below ``tolerance`` times that of ``∇F``.
        max_iterations: Hessian products at most, an integer of at least 1.
        neumann_step: None solves by conjugate gradients (JAX's, which want ``check_vma=False`` under ``shard_map``). A
            positive number ``α`` below 2 / (L + ridge), L the largest curvature, takes the Neumann series
            ``α Σ_j (I - α (H + ρ I))^j ∇F``, which with ``max_iterations`` terms and ``α`` SGD's learning rate is what
            ``max_iterations`` of its steps from the optimum would see.

    Raises:
        ValueError: an option out of range.
    """
    check_range("ridge", ridge, 0.0)
    check_range("tolerance", tolerance, 0.0)
    check_integer("max_iterations", max_iterations, 1)
    if neumann_step is not None:
        check_positive("neumann_step", neumann_step)

    gradient = gradient_of(loss)

    def direction(weights, params, batch, slope):
        def curvature(v):
            _, product = jax.jvp(lambda params: gradient(weights, params, batch)[0], (params,), (v,))
            return jax.tree.map(lambda h, x: h + jnp.asarray(ridge, x.dtype) * x, product, v)

        if neumann_step is None:
            solution, _ = jax.scipy.sparse.linalg.cg(curvature, slope, tol=tolerance, maxiter=max_iterations)
            return solution
        limit = tolerance * optax.tree.norm(slope)

        def add(carry):
            solution, residual, count = carry
            solution = jax.tree.map(lambda x, r: x + jnp.asarray(neumann_step, x.dtype) * r, solution, residual)
            return solution, optax.tree.sub(slope, curvature(solution)), count + 1

        def more(carry):
            return (carry[2] < max_iterations) & (optax.tree.norm(carry[1]) > limit)

        return jax.lax.while_loop(more, add, (optax.tree.zeros_like(slope), slope, 0))[0]

    return _after_training(loss, val_loss, optimizer, draw, direction)


def alignment(
    loss: Loss, val_loss: Loss, optimizer: optax.GradientTransformation, *, draw: Callable[[Any], Any] = same
) -> Callable[..., Hypergradient]:
    r"""First order: how well each domain's gradient points down the validation loss.

    .. math:: g_d = -\langle \nabla F(\theta_T), \nabla f_d(\theta_T) \rangle

    after T plain steps, on the batch of the last of them. It is what DoGE and other methods with T = 1 use, in units of
    loss per unit of learning rate: without the step's η, and with both gradients at the same parameters, where one step
    of SGD would have ∇F after it. Its fixed points are those of T = 1, whatever T is.

    Args:
        loss: see :func:`hypergrad`; so are ``val_loss``, ``optimizer``, ``draw`` and what is returned.
        val_loss: likewise.
        optimizer: likewise; it makes the steps, and does not enter ``g``.
        draw: likewise.

    Raises:
        ValueError: as :func:`hypergrad`.

    References:
        Fan, Pagliardini and Jaggi, "DoGE: domain reweighting with generalization estimation" (ICML 2024).
    """
    return _after_training(loss, val_loss, optimizer, draw, lambda weights, params, batch, slope: slope)


def _after_training(loss, val_loss, optimizer, draw, direction):
    """``g_d = -<grad f_d, v>`` after T plain steps, with ``v = direction(weights, params, batch, grad F)``."""
    train = unroll(loss, optimizer, draw=draw)

    def run(weights, params, opt_state, batches, val_batch):
        weights = as_floats(weights)
        params, opt_state, losses = train(weights, params, opt_state, batches)
        batch = draw(jax.tree.map(lambda x: x[-1], batches))
        value, slope = jax.value_and_grad(val_loss)(params, val_batch)
        v = direction(weights, params, batch, slope)
        slopes = jax.vmap(lambda own: optax.tree.vdot(jax.grad(loss)(params, own), v))(batch)
        return Hypergradient(known(-slopes.astype(weights.dtype), value), params, opt_state, losses, value)

    return run
