"""Takes optimizer steps on weighted losses, and prepares those steps for differentiation.

A *state* in this package is a pair ``(params, opt_state)``. The *slots* are the floating-point leaves of ``opt_state``
(momenta, second moments, a learning rate kept there). Derivatives pass through them, and not through counters and keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mixjax.hypergrad.devices import on_each_device, zeros_for_losses
from mixjax.hypergrad.linear import linearize

__all__ = [
    "Hypergradient",
    "Loss",
    "Mode",
    "as_floats",
    "float_leaves",
    "gradient_of",
    "identity",
    "inner",
    "length_of",
    "linear_step",
    "nan_unless_finite",
    "take_step",
    "unroll",
]

Loss = Callable[[Any, Any], jax.Array]
"""The type of a loss: ``loss(params, batch) -> scalar``."""
Mode = Literal["reverse", "forward", "implicit", "alignment"]
"""The names of the ways to compute a hypergradient."""


class Hypergradient(NamedTuple):
    """Holds a hypergradient and the state that T training steps ended in.

    Attributes:
        hypergrads: ``[D]``, dF/dc, in units of the validation loss. All entries are NaN where the validation loss is
            not finite. Rules take a domain whose entry is not finite as unseen.
        params: the parameters after the T steps.
        opt_state: the optimizer's state after the T steps.
        losses: ``[D]``, each domain's training loss, averaged over the T steps. Each step's loss is taken before its
            update.
        val_loss: scalar, the validation loss ``F`` at ``params``.
    """

    hypergrads: jax.Array
    params: Any
    opt_state: Any
    losses: jax.Array
    val_loss: jax.Array


def identity(batch: Any) -> Any:
    """Returns the batch unchanged: the default ``draw``, for entries of ``batches`` that are batches already."""
    return batch


def unroll(
    loss: Loss, optimizer: optax.GradientTransformation, *, draw: Callable[[Any], Any] = identity
) -> Callable[..., tuple[Any, Any, jax.Array]]:
    """Makes a function that takes T plain training steps and computes no hypergradient.

    Args:
        loss: ``loss(params, batch) -> scalar``, as in :func:`mixjax.hypergrad.hypergrad`.
        optimizer: an optax transformation of ordinary gradients.
        draw: turns one entry of ``batches`` into a batch, as in :func:`mixjax.hypergrad.hypergrad`.

    Returns:
        ``run(weights, params, opt_state, batches) -> (params, opt_state, losses)``. The results mean what the fields of
        :class:`Hypergradient` with the same names mean.

    Raises:
        ValueError: there is no step, the leaves of ``batches`` disagree about T, or the weights are not ``[D]``.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from mixjax.hypergrad import unroll
        >>> tx, x = optax.sgd(0.5), jnp.array(0.0)
        >>> run = unroll(lambda x, target: 0.5 * (x - target) ** 2, tx)
        >>> x, _, losses = run([0.5, 0.5], x, tx.init(x), jnp.array([[0.0, 4.0]]))         # one step, two domains
        >>> float(x), losses.tolist()
        (1.0, [0.0, 8.0])
    """
    gradient = gradient_of(loss)

    def run(weights, params, opt_state, batches):
        weights, num_steps = as_floats(weights), length_of(batches)
        weights, params, opt_state = on_each_device(loss, (weights, params, opt_state), draw, batches)

        def step(carry, x):
            state, total = carry
            grads, losses = gradient(weights, state[0], draw(x))
            # The losses are added up in the carry and not stacked, so that memory does not grow with T.
            return (take_step(optimizer, state, grads), total + losses), None

        start = (params, opt_state), zeros_for_losses(weights)
        (state, total), _ = jax.lax.scan(step, start, batches)
        return *state, total / num_steps

    return run


def nan_unless_finite(hypergrads: jax.Array, val_loss: jax.Array) -> jax.Array:
    """Returns the hypergradient, or NaN where the validation loss is not finite.

    The derivative of a diverged loss can be finite. It means nothing, but a rule would follow it.
    """
    return jnp.where(jnp.isfinite(val_loss), hypergrads, jnp.nan)


def as_floats(weights: ArrayLike) -> jax.Array:
    """Casts weights to a floating-point type, because their derivative has the weights' type."""
    weights = jnp.asarray(weights)
    return weights.astype(jnp.result_type(weights, float))


def gradient_of(loss: Loss) -> Callable[[jax.Array, Any, Any], tuple[Any, jax.Array]]:
    """Makes ``gradient(weights, params, batch) -> (sum_d c_d grad f_d, [f_d])``."""

    def gradient(weights, params, batch):
        def objective(params):
            losses = jax.vmap(loss, (None, 0))(params, batch)
            if losses.shape != weights.shape:
                raise ValueError(
                    "loss must return one scalar for each domain, and weights must have one number for each domain; "
                    f"got losses of shape {losses.shape} and weights of shape {weights.shape}."
                )
            # Losses in bfloat16 would round the sum; weights may also be float64 where losses are float32.
            losses = losses.astype(weights.dtype)
            return weights @ losses, losses

        # The sum is taken before the derivative, so that one backward pass serves all domains.
        return jax.grad(objective, has_aux=True)(params)

    return gradient


def take_step(optimizer: optax.GradientTransformation, state: tuple[Any, Any], grads: Any) -> tuple[Any, Any]:
    """Takes one optimizer step: ``((params, opt_state), grads) -> (params, opt_state)``."""
    params, opt_state = state
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def float_leaves(opt_state: Any) -> tuple[list[jax.Array], Callable[[list[jax.Array]], Any]]:
    """Separates the slots from an optimizer's state.

    Returns:
        The floating-point leaves, and a function that puts other values in their place and returns the whole state.
    """
    leaves, structure = jax.tree.flatten(opt_state)
    # A leaf may be a Python number, which has no dtype.
    floats = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact)]

    def rebuild(values):
        whole = list(leaves)
        for i, value in zip(floats, values, strict=True):
            whole[i] = value
        return jax.tree.unflatten(structure, whole)

    return [leaves[i] for i in floats], rebuild


def linear_step(
    optimizer: optax.GradientTransformation, state: tuple[Any, Any], grads: Any
) -> tuple[tuple[Any, Any], Callable[..., Any], tuple[Any, list[jax.Array], Any]]:
    """Takes an optimizer step, and differentiates it with respect to everything that it takes.

    Args:
        optimizer: an optax transformation of ordinary gradients.
        state: params and optimizer state.
        grads: the gradient.

    Returns:
        ``(state, push, inputs)``: the state after the step, its derivative, and the point ``(params, slots, grads)``
        at which it was taken. ``push(params, slots, grads)`` maps tangents of that point to a tangent
        ``(params, slots)`` of the new state. Counters and keys have no derivative.
    """
    params, opt_state = state
    slots, rebuild = float_leaves(opt_state)

    def step(params, slots, grads):
        new = take_step(optimizer, (params, rebuild(slots)), grads)
        return (new[0], float_leaves(new[1])[0]), new

    inputs = params, slots, grads
    _, push, new = linearize(step, *inputs)
    return new, push, inputs


def inner(a: Any, b: Any) -> jax.Array:
    """Returns the real inner product of two pytrees; a complex entry counts as two real coordinates."""
    # `vdot` of real arrays is real, and that of complex ones has the inner product as its real part.
    return jnp.real(jnp.asarray(optax.tree.vdot(a, b)))


def length_of(batches: Any) -> int:
    """Returns T, the length of the leading axis that all leaves of ``batches`` share."""
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batches)}
    # A leaf without axes gives (), and a leaf without steps gives (0,).
    if len(lengths) != 1 or () in lengths or (0,) in lengths:
        raise ValueError(
            "the leaves of batches must share one leading axis of at least one step, got leading axes "
            f"{sorted(lengths)}."
        )
    return lengths.pop()[0]
