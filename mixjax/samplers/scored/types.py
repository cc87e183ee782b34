"""Defines the state that every example sampler keeps, and the functions that every example sampler has.

This module does not load JAX, because the NumPy sampler keeps the same state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from mixjax.samplers.scored.levels import Level

if TYPE_CHECKING:
    import jax
    from jax.typing import ArrayLike

__all__ = ["ExampleSampler", "ImportanceKind", "SamplerState"]

ImportanceKind = Literal["clipped", "tree", "self_normalised"]
"""The kinds of importance weights, see :func:`mixjax.samplers.hardness`."""


# The order of the fields is the order of the leaves in a checkpoint.
class SamplerState(NamedTuple):
    """Holds the state of an example sampler: about ``1.3 n`` floats, ``2.6 n`` with a prior and a floor.

    Attributes:
        values: float32 ``[n]``, each example's last seen signal: its stale loss, or its stale score.
        sums: the levels above the leaves, see :mod:`mixjax.samplers.scored.tree`.
        log_prior: float32 ``[n]``, or a scalar where the prior is uniform.
        prior_sums: the same levels for the prior, or empty where no draw needs them. A sampler of changing examples
            keeps the prior's weights as they were given; any other normalises them.
    """

    values: jax.Array
    sums: tuple[Level, ...]
    log_prior: jax.Array
    prior_sums: tuple[Level, ...]


# Any below: wrappers such as with_ages have states of their own.


class Init(Protocol):
    """Makes a state of initial values."""

    def __call__(self, values: ArrayLike, key: jax.Array | None = None) -> Any:
        """Takes a scalar or ``[n]``, and a key where ties shall be broken."""
        ...


class Extend(Protocol):
    """Makes a state of the state of a sampler of fewer examples."""

    def __call__(self, state: Any, values: ArrayLike, key: jax.Array | None = None) -> Any:
        """Takes the new examples' values, a scalar or one each, and a key where their ties shall be broken."""
        ...


class Insert(Protocol):
    """Fills slots of a sampler of changing examples, or overwrites them."""

    def __call__(self, state: Any, indices: ArrayLike, values: ArrayLike, prior: ArrayLike = 1.0) -> Any:
        """Takes the slots ``[B]``, and their examples' values and prior weights, each a scalar or ``[B]``."""
        ...


class LogProbs(Protocol):
    """Computes log-probabilities of one draw."""

    def __call__(self, state: Any, indices: ArrayLike | None = None) -> jax.Array:
        """Takes the examples ``[B]``; all ``n`` if left out."""
        ...


class ImportanceWeights(Protocol):
    """Computes importance weights of a batch whose values have just been measured."""

    def __call__(
        self, state: Any, indices: ArrayLike, values: ArrayLike, kind: ImportanceKind = "clipped"
    ) -> jax.Array:
        """Takes the state before the update, the batch, and which weights."""
        ...


class ExampleSampler(NamedTuple):
    """Holds the pure functions that draw examples and keep track of their signal; see :func:`hardness` for arguments.

    Attributes:
        init: ``init(values, key=None) -> state``.
        sample: ``sample(state, key, batch_size) -> (indices, weights)``.
        update: ``update(state, indices, values) -> state``.
        importance_weights: ``importance_weights(state, indices, values, kind="clipped") -> weights``.
        log_probs: ``log_probs(state, indices=None) -> log-probabilities`` of one draw, ``[n]`` or ``[B]``.
        rebuild: ``rebuild(state) -> state`` computes the sums anew, in O(n), for a sampler of other hyperparameters.
        extend: ``extend(state, values, key=None) -> state`` takes over the state of a sampler of fewer examples.
        remove: ``remove(state, indices) -> state`` takes over the state of a sampler of more examples.
        insert: ``insert(state, indices, values, prior=1.0) -> state`` fills or empties slots of a ``growing`` sampler.
    """

    init: Init
    sample: Callable[[Any, jax.Array, int], tuple[jax.Array, jax.Array]]
    update: Callable[[Any, ArrayLike, ArrayLike], Any]
    importance_weights: ImportanceWeights
    log_probs: LogProbs
    rebuild: Callable[[Any], Any]
    extend: Extend
    remove: Callable[[Any, ArrayLike], Any]
    insert: Insert
