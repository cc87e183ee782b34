"""Looks at a sampler's history: how old each value is, how even the draws are, and which examples are hardest."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from mixjax.checks import as_ids, as_size
from mixjax.meshes import spec_of, with_auto_axes
from mixjax.samplers.scored.checks import check_removal
from mixjax.samplers.scored.types import ExampleSampler, ImportanceKind

__all__ = ["AgedState", "effective_sample_size", "hardest", "with_ages"]


class AgedState(NamedTuple):
    """Holds the state of :func:`with_ages`.

    Attributes:
        inner: the wrapped sampler's state.
        step: int32 scalar, number of updates so far.
        last_update: int32 ``[n]``, the step of each example's last update; -1 before the first.
        visits: int32 ``[n]``, number of updates that held the example.
    """

    inner: Any
    step: jax.Array
    last_update: jax.Array
    visits: jax.Array

    @property
    def values(self) -> jax.Array:
        """Returns the wrapped state's values, float32 ``[n]``."""
        return self.inner.values

    @property
    def ages(self) -> jax.Array:
        """Counts the updates since each example was last seen, int32 ``[n]``; all updates for one never seen."""
        return self.step - 1 - self.last_update


def with_ages(sampler: ExampleSampler) -> ExampleSampler:
    """Wraps a sampler so that it counts how long ago each example was in a batch.

    The counts take two integers for each example, beside the wrapped state. A loss that is not finite counts as seen,
    although it is not stored.

    Args:
        sampler: the sampler to wrap, not sharded.

    Returns:
        An :class:`mixjax.samplers.ExampleSampler` with state :class:`AgedState`.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> sampler = mixjax.samplers.with_ages(mixjax.samplers.hardness(3, beta=1.0))
        >>> state = sampler.init(1.0)
        >>> state = sampler.update(state, jnp.array([2, 2]), jnp.array([0.5, 0.5]))
        >>> state = sampler.update(state, jnp.array([0, 2]), jnp.array([0.5, 0.5]))
        >>> state.ages.tolist(), state.visits.tolist()
        ([0, 2, 0], [1, 0, 2])
    """

    def init(values, key=None):
        inner = sampler.init(values, key)
        return AgedState(
            inner=inner,
            step=jnp.zeros((), jnp.int32),
            last_update=jnp.full(inner.values.shape, -1, jnp.int32),
            visits=jnp.zeros(inner.values.shape, jnp.int32),
        )

    def sample(state, key, batch_size):
        return sampler.sample(state.inner, key, batch_size)

    def update(state, indices, values):
        indices = as_ids("indices", indices)
        counts = state.step, state.last_update, state.visits
        step, last_update, visits = with_auto_axes(_count, jax.tree.map(spec_of, counts))(*counts, indices)
        inner = sampler.update(state.inner, indices, values)
        return AgedState(inner=inner, step=step, last_update=last_update, visits=visits)

    def importance_weights(state, indices, values, kind: ImportanceKind = "clipped"):
        return sampler.importance_weights(state.inner, indices, values, kind)

    def log_probs(state, indices=None):
        return sampler.log_probs(state.inner, indices)

    def rebuild(state):
        return state._replace(inner=sampler.rebuild(state.inner))

    def extend(state, values, key=None):
        inner = sampler.extend(state.inner, values, key)
        # New examples have never been seen.
        padding = (0, inner.values.size - state.visits.size)
        last_update = jnp.pad(state.last_update, padding, constant_values=-1)
        return AgedState(inner, state.step, last_update, jnp.pad(state.visits, padding))

    def remove(state, indices):
        inner = sampler.remove(state.inner, indices)
        kept = check_removal(inner.values.size, state.visits.size, indices)
        return AgedState(inner, state.step, state.last_update[kept], state.visits[kept])

    def insert(state, indices, values, prior: ArrayLike = 1.0):
        inner = sampler.insert(state.inner, indices, values, prior)
        rows = as_ids("indices", indices)
        # A negative index would count from the end.
        rows = jnp.where(rows >= 0, rows, state.visits.size)
        last_update = state.last_update.at[rows].set(-1, mode="drop")
        return AgedState(inner, state.step, last_update, state.visits.at[rows].set(0, mode="drop"))

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


def _count(step, last_update, visits, indices):
    """Returns the counts of an :class:`AgedState` after a batch."""
    n = visits.size
    # Indices from elsewhere become n, which is dropped below; a negative one would count from the end.
    rows = jnp.where((indices >= 0) & (indices < n), indices, n)
    # Set, not added to: an index that occurs twice in the batch counts as one visit.
    more = visits.at[rows].get(mode="clip") + 1
    return step + 1, last_update.at[rows].set(step, mode="drop"), visits.at[rows].set(more, mode="drop")


def effective_sample_size(log_probs: jax.Array) -> jax.Array:
    r"""Counts how many examples, if all were equally likely, would be drawn as evenly: ``1 / sum_i p_i^2``.

    Args:
        log_probs: ``[n]``, from ``sampler.log_probs(state)``.

    Returns:
        float32 scalar in [1, n], ``n`` for uniform draws. It takes O(n), so call it now and then, not in every step.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> float(mixjax.samplers.effective_sample_size(jnp.log(jnp.array([0.5, 0.25, 0.25]))).round(3))
        2.667
    """
    return jnp.exp(-jax.nn.logsumexp(2.0 * log_probs))


def hardest(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Finds the ``k`` examples of largest value without sorting all of them.

    The examples lie in the ``k`` blocks of largest maximum, so only these blocks are sorted.

    Args:
        values: ``[n]``, such as ``state.values``.
        k: a Python integer in [1, n].

    Returns:
        ``(indices, values)``, int32 and float ``[k]``, descending.

    Raises:
        ValueError: ``k`` outside [1, n].

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> mixjax.samplers.hardest(jnp.array([0.5, 3.0, 1.0, 2.0]), 2)[0].tolist()
        [1, 3]
    """
    values, k = jnp.asarray(values), as_size("k", k)
    if not 1 <= k <= values.size:
        raise ValueError(f"k must be in [1, {values.size}], got {k}.")
    return with_auto_axes(functools.partial(_hardest, k=k), PartitionSpec())(values)


def _hardest(values, k):
    n, width = values.size, 64
    blocks = jnp.pad(values, (0, -n % width), constant_values=-jnp.inf).reshape(-1, width)
    # If k blocks are all there are, choosing blocks would leave nothing out.
    if len(blocks) <= k:
        top, indices = jax.lax.top_k(values, k)
        return indices, top
    # The chosen blocks are put in ascending order, so that ties between blocks go to the lower index, as in a block.
    chosen = jnp.sort(jax.lax.top_k(blocks.max(1), k)[1])
    top, position = jax.lax.top_k(blocks[chosen].reshape(-1), k)
    return chosen[position // width] * width + position % width, top
