"""Compares the norms of a flax module with those that vmap(grad) gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

from mixjax.grad_norms.nnx.model import Model, over_examples
from mixjax.grad_norms.nnx.norms import measured, size_of
from mixjax.grad_norms.norms import norm
from mixjax.grad_norms.recording import RecordingTape
from mixjax.meshes import with_auto_axes

__all__ = ["check"]


def check(
    loss: Callable[[Any, Any], jax.Array], model: Any, batch: Any, *, wrt: Any = nnx.Param, rtol: float = 1e-2
) -> None:
    """Compares losses, gradients and norms with ``vmap(grad)``, and the losses with those of the batch as a whole.

    Call it once before training, with a batch of a few examples.

    Args:
        loss: as for :func:`value_grads_and_norms`.
        model: the module. The losses of the whole batch are not compared if the module draws random numbers.
        batch: a batch of a few examples, whose gradients are all formed.
        wrt: a filter of flax.
        rtol: the largest relative difference allowed, for the losses as for the norms.

    Raises:
        ValueError: a difference, by name: examples whose losses depend on the other examples, or norms or gradients
            that are not those of ``vmap(grad)``.
    """
    size = size_of(batch)
    traced = Model(loss, model, wrt)

    def computed(function):
        """Calls a function of the module's state and the batch, jitted, on any mesh."""
        return jax.jit(with_auto_axes(function, PartitionSpec()))(traced.state, batch)

    losses, grads, norms, counts = computed(lambda state, batch: measured(traced, state, batch, None, size))

    def direct(state, batch):
        def one(number, example):
            every = frozenset(range(len(traced.names)))

            def own(parameters):
                given = state._replace(leaves=parameters)
                return traced.example(RecordingTape(), every, parameters, given, number, example)

            return jax.grad(own, has_aux=True)(state.leaves)

        each, _ = over_examples(one, batch)
        return [g.mean(axis=0) for g in each], norm(each)

    direct_grads, direct_norms = computed(direct)
    _compare("norms are not those of vmap(grad)", norms, direct_norms, rtol)
    for name, got, want in zip(traced.names, grads, direct_grads, strict=True):
        _compare(f"the gradient of {name} is not that of vmap(grad)", got, want, rtol)
    before = jax.tree.leaves(nnx.state(model, nnx.RngCount))
    if all((a == b).all() for a, b in zip(before, jax.tree.leaves(counts), strict=True)):
        whole = jnp.asarray(computed(lambda state, batch: loss(traced.merged(state), batch)))
        if whole.shape != (size,):
            raise ValueError(f"loss must return one loss per example, [{size}], got shape {whole.shape}.")
        _compare("losses of examples depend on the other examples of their batch", losses, whole, rtol)


def _compare(statement: str, got: jax.Array, want: jax.Array, rtol: float) -> None:
    scale = jnp.max(jnp.abs(want))
    difference = jnp.max(jnp.abs(got.astype(jnp.float32) - want.astype(jnp.float32)))
    if not difference <= rtol * scale + 1e-6:
        raise ValueError(f"{statement}: they differ by up to {difference:.3g}, where the largest is {scale:.3g}.")
