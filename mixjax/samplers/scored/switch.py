"""Importance sampling only while it pays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mixjax.checks import check_positive, check_range, is_concrete
from mixjax.samplers.scored.stale import ExampleSampler, SamplerState


class SwitchState(NamedTuple):
    """State of :func:`when_it_pays`.

    Attributes:
        inner: the wrapped sampler's state.
        on: bool scalar, whether draws are the wrapped sampler's.
        mass: float32 scalar, what the running means' weights sum to.
        norm: float32 scalar, running mean of the gradient norm under uniform draws.
        uniform: float32 scalar, of its square.
        drawn: float32 scalar, of its weighted square as drawn, or, while off, as the best weights would draw.
    """

    inner: Any
    on: jax.Array
    mass: jax.Array
    norm: jax.Array
    uniform: jax.Array
    drawn: jax.Array

    @property
    def values(self) -> jax.Array:
        """float32 ``[n]``, the wrapped state's values."""
        return self.inner.values

    @property
    def ratio(self) -> jax.Array:
        """Second moment of the gradient's estimate over that of uniform draws; 1 before the first update."""
        return jnp.where(self.uniform > 0, self.drawn / jnp.where(self.uniform > 0, self.uniform, 1.0), 1.0)


def when_it_pays(sampler: ExampleSampler, threshold: ArrayLike = 0.9, decay: ArrayLike = 0.95) -> ExampleSampler:
    r"""Draws by the wrapped sampler while that lowers the gradient's second moment enough, else uniformly, of weight 1.

    With scores ``s`` that are gradient norms and importance weights ``w``, a batch tells the second moment of the
    gradient's estimate under uniform draws, and as it was drawn, the history being stale,

    .. math:: U = \frac1B \sum_b w_b s_b^2, \qquad D = \frac1B \sum_b w_b^2 s_b^2;

    while draws are uniform, ``D`` is what the best weights would give, the square of the mean norm. The sampler is on
    while the ratio of their running means is below the threshold. Either way ``mean(weights * losses)`` is unbiased.

    Args:
        sampler: of gradient norms, with replacement and a uniform prior, such as ``proportional(n, floor=0.1)``; not
            sharded.
        threshold: scalar above 0, the ratio below which importance sampling is worth the cost of the norms. At ratio
            ``r``, and where the mean gradient is small beside single ones, a batch of ``B`` has the noise of a uniform
            one of ``B / r``; else that of a larger one.
        decay: scalar in [0, 1), of the running means, per update.

    Returns:
        An :class:`mixjax.samplers.ExampleSampler` with state :class:`SwitchState`; ``update`` takes the batch's fresh
        gradient norms. ``importance_weights`` are 1 while it is off.

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
    threshold, decay = jnp.asarray(threshold, jnp.float32), jnp.asarray(decay, jnp.float32)

    def init(values, key=None):
        inner, zero = sampler.init(values, key), jnp.zeros((), jnp.float32)
        if isinstance(inner, SamplerState) and inner.log_prior.ndim:
            raise ValueError("when_it_pays draws uniformly while it is off: the sampler's prior must be uniform too.")
        return SwitchState(inner, jnp.zeros((), bool), zero, zero, zero, zero)

    def sample(state, key, batch_size):
        n = state.values.size

        def uniform(inner):
            return jax.random.randint(key, (batch_size,), 0, n, jnp.int32), jnp.ones(batch_size, jnp.float32)

        return jax.lax.cond(state.on, lambda inner: sampler.sample(inner, key, batch_size), uniform, state.inner)

    def log_probs(state, indices=None):
        return jnp.where(state.on, sampler.log_probs(state.inner, indices), -jnp.log(jnp.float32(state.values.size)))

    def importance_weights(state, *args, **kwargs):
        return jnp.where(state.on, sampler.importance_weights(state.inner, *args, **kwargs), 1.0)

    def update(state, indices, values):
        scores = jax.lax.stop_gradient(jnp.asarray(values).astype(jnp.float32))
        known = jnp.isfinite(scores)
        scores, count = jnp.where(known, scores, 0.0), jnp.maximum(known.sum(), 1)
        weights = jnp.exp(-jnp.log(jnp.float32(state.values.size)) - log_probs(state, indices))
        now = [(w.sum() / count) for w in (weights * scores, weights * scores**2, (weights * scores) ** 2)]
        fresh = jnp.isfinite(jnp.stack(now)).all() & known.any()

        def follow(mean, value):
            return jnp.where(fresh, decay * mean + (1.0 - decay) * value, mean)

        mass, norm, uniform = follow(state.mass, 1.0), follow(state.norm, now[0]), follow(state.uniform, now[1])
        best = jnp.square(norm / jnp.where(mass > 0, mass, 1.0))
        drawn = follow(state.drawn, jnp.where(state.on, now[2], best))
        new = SwitchState(sampler.update(state.inner, indices, values), state.on, mass, norm, uniform, drawn)
        return new._replace(on=new.ratio < threshold)

    return ExampleSampler(
        init,
        sample,
        update,
        importance_weights,
        log_probs,
        lambda state: state._replace(inner=sampler.rebuild(state.inner)),
    )
