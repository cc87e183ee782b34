"""Switches importance sampling off while it does not lower the variance enough to pay for itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from mixjax.checks import check_positive, check_range, is_concrete
from mixjax.meshes import varying_like, with_auto_axes
from mixjax.samplers.scored.types import ExampleSampler, ImportanceKind, SamplerState

__all__ = ["SwitchState", "when_it_pays"]


class SwitchState(NamedTuple):
    """Holds the state of :func:`when_it_pays`.

    The running means start at zero, so each is too small by the same factor, ``mass``, until enough batches were seen.

    Attributes:
        inner: the wrapped sampler's state.
        on: bool scalar, whether draws are the wrapped sampler's.
        mass: float32 scalar, the sum of the weights that the batches so far have in a running mean.
        norm: float32 scalar, running mean of the gradient norm under uniform draws.
        uniform: float32 scalar, running mean of the squared gradient norm under uniform draws.
        drawn: float32 scalar, running mean of the squared weighted gradient norm: as drawn while the sampler is on, as
            the best weights would have it while it is off.
    """

    inner: Any
    on: jax.Array
    mass: jax.Array
    norm: jax.Array
    uniform: jax.Array
    drawn: jax.Array

    @property
    def values(self) -> jax.Array:
        """Returns the wrapped state's values, float32 ``[n]``."""
        return self.inner.values

    @property
    def ratio(self) -> jax.Array:
        """Compares the second moments of the gradient's estimate, as drawn over uniform; 1 before the first update."""
        # The denominator is guarded too: 0 / 0 that a where hides still trips jax_debug_nans.
        return jnp.where(self.uniform > 0, self.drawn / jnp.where(self.uniform > 0, self.uniform, 1.0), 1.0)


def when_it_pays(sampler: ExampleSampler, threshold: ArrayLike = 0.9, decay: ArrayLike = 0.95) -> ExampleSampler:
    r"""Draws by the wrapped sampler while that lowers the gradient's second moment enough, else uniformly.

    A batch of scores ``s``, which are gradient norms, with importance weights ``w`` tells two second moments of the
    gradient's estimate: ``U`` under uniform draws, and ``D`` as the batch was drawn, by a history that is stale.

    .. math:: U = \frac1B \sum_b w_b s_b^2, \qquad D = \frac1B \sum_b w_b^2 s_b^2

    While draws are uniform, with weights of 1, ``D`` is taken to be the square of the mean norm instead, which is what
    the best weights would give. The sampler is on while the ratio of the running means of ``D`` and ``U`` is below the
    threshold. Either way ``mean(weights * losses)`` is unbiased.

    Args:
        sampler: draws by gradient norms, with replacement and a uniform prior, such as ``proportional(n, floor=0.1)``;
            not sharded.
        threshold: scalar above 0, the ratio below which importance sampling is worth the cost of the norms. At ratio
            ``r`` a batch of ``B`` has the noise of a uniform batch of ``B / r`` where the mean gradient is small beside
            single ones, and of a larger batch elsewhere.
        decay: scalar in [0, 1), the weight of the old value in the running means, per update.

    Returns:
        An :class:`mixjax.samplers.ExampleSampler` with state :class:`SwitchState`; ``update`` takes the batch's fresh
        gradient norms. ``importance_weights`` are 1 while the sampler is off.

    Raises:
        ValueError: a threshold or decay out of range, or, in ``init``, a sampler whose prior is not uniform.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> norms = jnp.where(jnp.arange(100) % 50 == 0, 50.0, 1.0)            # one in fifty is large
        >>> sampler = mixjax.samplers.when_it_pays(mixjax.samplers.proportional(100, floor=0.1))
        >>> @jax.jit
        ... def step(state, key):
        ...     indices, weights = sampler.sample(state, key, 64)
        ...     return sampler.update(state, indices, norms[indices])
        >>> state = sampler.init(1.0)
        >>> for key in jax.random.split(jax.random.key(0), 30):
        ...     state = step(state, key)
        >>> bool(state.on)
        True

    References:
        Paper 003, remark 3.1, which points to algorithm 1 of Katharopoulos and Fleuret, "Not all samples are created
        equal", ICML 2018. Deviations: the ratio is of second moments of the gradient, stale norms included, where
        theirs bounds the gain by upper bounds of fresh norms of a larger batch.
    """
    check_positive("threshold", threshold)
    check_range("decay", decay, 0.0, 1.0)
    if is_concrete(decay) and np.any(np.asarray(decay) >= 1):
        raise ValueError(f"decay must be in [0, 1), got {decay}.")
    switch = _Switch(sampler, threshold, decay)
    return ExampleSampler(
        init=switch.init,
        sample=switch.sample,
        update=switch.update,
        importance_weights=switch.importance_weights,
        log_probs=switch.log_probs,
        rebuild=switch.rebuild,
        extend=switch.extend,
        remove=switch.remove,
        insert=switch.insert,
    )


class _Switch:
    """Holds a sampler and when to use it; the methods are the functions of the wrapped sampler."""

    def __init__(self, sampler: ExampleSampler, threshold: ArrayLike, decay: ArrayLike):
        self.sampler = sampler
        self.threshold, self.decay = jnp.asarray(threshold, jnp.float32), jnp.asarray(decay, jnp.float32)

    def init(self, values, key=None):
        inner = self.sampler.init(values, key)
        # The state of a wrapper hides its sampler's prior, so a wrapped sampler is not checked.
        if isinstance(inner, SamplerState) and inner.log_prior.ndim:
            raise ValueError("when_it_pays draws uniformly while it is off: the sampler's prior must be uniform too.")
        # A zero for each field: a state that holds one buffer twice cannot be donated.
        mass, norm, uniform, drawn = (jnp.zeros((), jnp.float32) for _ in range(4))
        return SwitchState(inner=inner, on=jnp.zeros((), bool), mass=mass, norm=norm, uniform=uniform, drawn=drawn)

    def sample(self, state, key, batch_size):
        n = state.values.size

        # Under shard_map both branches have to vary over the same devices.
        def as_wrapped(inner):
            return varying_like(self.sampler.sample(inner, key, batch_size), inner, key)

        def uniformly(inner):
            indices = jax.random.randint(key, (batch_size,), 0, n, jnp.int32)
            return varying_like((indices, jnp.ones(batch_size, jnp.float32)), inner, key)

        # A cond, not a where: while the switch is off, no draw descends the tree.
        return jax.lax.cond(state.on, as_wrapped, uniformly, state.inner)

    def log_probs(self, state, indices=None):
        uniform = -jnp.log(jnp.float32(state.values.size))
        return jnp.where(state.on, self.sampler.log_probs(state.inner, indices), uniform)

    def importance_weights(self, state, indices, values, kind: ImportanceKind = "clipped"):
        return jnp.where(state.on, self.sampler.importance_weights(state.inner, indices, values, kind), 1.0)

    def update(self, state, indices, values):
        scores = jax.lax.stop_gradient(jnp.asarray(values).astype(jnp.float32))
        # These probabilities are uniform while the switch is off, so the weights are 1 then.
        weights = jnp.exp(-jnp.log(jnp.float32(state.values.size)) - self.log_probs(state, indices))
        # On a mesh with Explicit axes, scores may be sharded where weights are not.
        moments, known = with_auto_axes(_moments, PartitionSpec())(scores, weights)

        def follow(mean, value):
            return jnp.where(known, self.decay * mean + (1.0 - self.decay) * value, mean)

        mass = follow(state.mass, 1.0)
        norm = follow(state.norm, moments.norm)
        uniform = follow(state.uniform, moments.uniform)
        # All running means are too small by the factor mass. A ratio of two cancels it, but a square of one does not.
        best = jnp.square(norm / jnp.where(mass > 0, mass, 1.0))
        drawn = follow(state.drawn, jnp.where(state.on, moments.drawn, best))
        inner = self.sampler.update(state.inner, indices, values)
        new = SwitchState(inner=inner, on=state.on, mass=mass, norm=norm, uniform=uniform, drawn=drawn)
        return new._replace(on=new.ratio < self.threshold)

    def rebuild(self, state):
        return state._replace(inner=self.sampler.rebuild(state.inner))

    def extend(self, state, values, key=None):
        # The running means are of batches, whatever the number of examples.
        return state._replace(inner=self.sampler.extend(state.inner, values, key))

    def remove(self, state, indices):
        return state._replace(inner=self.sampler.remove(state.inner, indices))

    def insert(self, state, indices, values, prior: ArrayLike = 1.0):
        # Only a sampler of changing examples inserts, and init refuses its prior; so this raises that sampler's error.
        return state._replace(inner=self.sampler.insert(state.inner, indices, values, prior))


class _Moments(NamedTuple):
    """Holds a batch's means, under the names of the running means in :class:`SwitchState`."""

    norm: jax.Array
    uniform: jax.Array
    drawn: jax.Array


def _moments(scores, weights):
    """Returns a batch's means over its finite scores, and whether all means are finite and there is such a score."""
    finite = jnp.isfinite(scores)
    scores, count = jnp.where(finite, scores, 0.0), jnp.maximum(finite.sum(dtype=jnp.float32), 1.0)
    means = [x.sum() / count for x in (weights * scores, weights * scores**2, (weights * scores) ** 2)]
    # Finite scores may still overflow when squared, or meet an infinite weight.
    return _Moments(*means), jnp.isfinite(jnp.stack(means)).all() & finite.any()
