"""Decides what training under ``shard_map`` means: one run of all devices, or a run of its own on each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mixjax.meshes import is_unchecked, varying_axes, varying_like, varying_like_result

__all__ = ["on_each_device", "zeros_for_losses"]


def on_each_device(
    loss: Callable[[Any, Any], jax.Array],
    inputs: tuple[jax.Array, Any, Any],
    draw: Callable[[Any], Any],
    batches: Any,
    val: tuple[Callable[[Any, Any], jax.Array], Any] | None = None,
) -> tuple[jax.Array, Any, Any]:
    """Gives each device a training run of its own, where devices see batches of their own under ``shard_map``.

    JAX sums gradients of parameters that are equal on all devices over the devices. That is right where ``loss``
    averages over the devices, and wrong where each device trains for itself.

    Args:
        loss: the training loss.
        inputs: weights, params and optimizer state.
        draw: turns one entry of ``batches`` into a batch.
        batches: as in :func:`mixjax.hypergrad.hypergrad`.
        val: the validation loss and its batch.

    Returns:
        The inputs, cast to vary over every mesh axis over which one of them or one of the losses varies. Outside
        ``shard_map``, and with ``check_vma=False``, they are returned as they are.

    Raises:
        ValueError: ``loss`` averages over a mesh axis over which something else varies, so that neither reading fits;
            or a loss averages over devices under ``shard_map`` with ``check_vma=False``, which makes gradients wrong.
    """
    unchecked = [axis for axis in jax.sharding.get_abstract_mesh().manual_axes if is_unchecked(axis)]
    if unchecked:
        _refuse_unchecked_averages(loss, inputs[1], draw(jax.tree.map(lambda x: x[0], batches)), unchecked, val)

    def losses(params):
        batch = draw(jax.tree.map(lambda x: x[0], batches))
        return jax.vmap(loss, (None, 0))(params, batch)

    def all_losses(params):
        return losses(params), None if val is None else val[0](params, val[1])

    inputs = varying_like(inputs, inputs)
    inputs = varying_like_result(inputs, all_losses, inputs[1])
    axes = varying_axes(inputs[0])
    # Tells a loss that averages from one that keeps each device's own, because all it reads varies now.
    averaged = axes - varying_axes(varying_like_result(jnp.zeros(()), losses, inputs[1]))
    if averaged:
        raise ValueError(
            f"loss averages over the mesh axes {sorted(averaged)}, over which the weights, the state or val_loss "
            "differ: average val_loss too and give all devices one state, or let loss return each device's own mean."
        )
    return inputs


def _refuse_unchecked_averages(loss, params, batch, unchecked, val):
    """Raises a ValueError if a loss speaks to other devices where JAX does not add up its gradient over them."""

    def all_losses(params):
        return jax.vmap(loss, (None, 0))(params, batch), None if val is None else val[0](params, val[1])

    # Collectives leave their axis among the effects of a program.
    effects = jax.make_jaxpr(all_losses)(params).effects
    used = {str(effect.name) for effect in effects if hasattr(effect, "name")}
    averaged = sorted(used.intersection(unchecked))
    if averaged:
        raise ValueError(
            f"a loss averages over the mesh axes {averaged} under shard_map(check_vma=False), where JAX does not add "
            "up gradients over devices: leave check_vma=True."
        )


def zeros_for_losses(weights: jax.Array) -> jax.Array:
    """Returns zeros to which losses can be added in a loop: of the weights' type, which says where losses vary too."""
    return varying_like(jnp.zeros_like(weights), weights)
