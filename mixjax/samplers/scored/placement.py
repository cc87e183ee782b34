"""Hands out a sampler's functions, so that they run on any mesh: XLA places what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from mixjax.meshes import spec_of, with_auto_axes
from mixjax.samplers.scored.sampler import ScoredSampler
from mixjax.samplers.scored.types import ExampleSampler, ImportanceKind, SamplerState

__all__ = ["functions"]

_WHOLE = PartitionSpec()


def functions(sampler: ScoredSampler) -> ExampleSampler:
    """Returns the pure functions that users get of a sampler.

    On a mesh with Explicit axes, a new state is sharded as the old one is, importance weights are as the batch's
    values are, and drawn batches are whole on every device.
    """

    def call(specs: Any, method: Callable[..., Any], *args: Any) -> Any:
        # The hyperparameters are arguments too: what a function closes over keeps its Explicit axes.
        def placed(numbers, *args):
            return method(sampler.with_numbers(numbers), *args)

        return with_auto_axes(placed, specs)(sampler.numbers, *args)

    def init(values: ArrayLike, key: jax.Array | None = None) -> SamplerState:
        specs = SamplerState(spec_of(values) if np.ndim(values) else _WHOLE, _WHOLE, _WHOLE, _WHOLE)  # pyright: ignore[reportArgumentType]
        return call(specs, ScoredSampler.init, values, key)

    def sample(state: SamplerState, key: jax.Array, batch_size: int) -> tuple[jax.Array, jax.Array]:
        return call(_WHOLE, lambda sampler, *args: sampler.sample(*args, batch_size), state, key)

    def update(state: SamplerState, indices: ArrayLike, values: ArrayLike) -> SamplerState:
        return call(jax.tree.map(spec_of, state), ScoredSampler.update, state, indices, values)

    def importance_weights(
        state: SamplerState, indices: ArrayLike, values: ArrayLike, kind: ImportanceKind = "clipped"
    ) -> jax.Array:
        def weights(sampler, *args):
            return sampler.importance_weights(*args, kind)

        return call(spec_of(values), weights, state, indices, values)

    def log_probs(state: SamplerState, indices: ArrayLike | None = None) -> jax.Array:
        return call(spec_of(state.values if indices is None else indices), ScoredSampler.log_probs, state, indices)

    def rebuild(state: SamplerState) -> SamplerState:
        return call(jax.tree.map(spec_of, state), ScoredSampler.rebuild, state)

    def extend(state: SamplerState, values: ArrayLike, key: jax.Array | None = None) -> SamplerState:
        return call(_WHOLE, ScoredSampler.extend, state, values, key)

    def remove(state: SamplerState, indices: ArrayLike) -> SamplerState:
        return call(_WHOLE, lambda sampler, state: sampler.remove(state, indices), state)

    def insert(state: SamplerState, indices: ArrayLike, values: ArrayLike, prior: ArrayLike = 1.0) -> SamplerState:
        return call(jax.tree.map(spec_of, state), ScoredSampler.insert, state, indices, values, prior)

    return ExampleSampler(
        init=init,
        sample=sample,
        update=update,
        importance_weights=importance_weights,
        log_probs=log_probs,
        rebuild=rebuild,
        extend=extend,
        remove=remove,
        insert=insert,
    )
