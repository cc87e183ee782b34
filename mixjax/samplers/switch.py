"""Importance sampling only while it pays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.rules.base import check_positive, check_range
from mixjax.samplers.stale import ExampleSampler


class SwitchState(NamedTuple):
    """State of :func:`when_it_pays`.

    Attributes:
        inner: the wrapped sampler's state.
        drawn: float32 scalar, running mean of the estimate's second moment as drawn, or, while off, at its best.
        uniform: float32 scalar, running mean of its second moment under uniform draws.
    """

    inner: Any
    drawn: jax.Array
    uniform: jax.Array

    @property
    def values(self) -> jax.Array:
        """float32 ``[n]``, the wrapped state's values."""
        return self.inner.values

    @property
    def ratio(self) -> jax.Array:
        """Second moment of the gradient's estimate over that of uniform draws; 1 before the first update."""
        return jnp.where(self.uniform > 0, self.drawn / jnp.where(self.uniform > 0, self.uniform, 1.0), 1.0)


def when_it_pays(sampler: ExampleSampler, threshold: ArrayLike = 0.9, decay: ArrayLike = 0.95) -> ExampleSampler:
    r"""Draws by the wrapped sampler while that lowers the variance enough, else uniformly with weight 1.

    With scores ``s`` that are gradient norms and importance weights ``w``, a batch tells the second moment of the
    gradient's estimate under uniform draws and as it was drawn, the history being stale,

    .. math:: U = \frac1B \sum_b w_b s_b^2, \qquad D = \frac1B \sum_b w_b^2 s_b^2,

    and while draws are uniform what the best weights would give, :math:`D = (\frac1B \sum_b s_b)^2`. The sampler is on
    while the ratio of their running means is below the threshold. Either way ``mean(weights * losses)`` is unbiased.

    Args:
        sampler: of gradient norms with a uniform prior, such as ``proportional(n, floor=0.1)``; not sharded.
        threshold: scalar in (0, 1], the ratio below which importance sampling is worth the cost of the norms. At
            ratio ``r`` a batch of ``B`` has the noise of a uniform one of about ``B / r``.
        decay: scalar in [0, 1), of the running means, per update.

    Returns:
        An :class:`mixjax.samplers.ExampleSampler` with state :class:`SwitchState`; ``update`` takes the batch's fresh
        gradient norms. Draws are with replacement while it is off.

    Raises:
        ValueError: a threshold or decay out of range.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> norms = jnp.where(jnp.arange(1000) % 100 == 0, 50.0, 1.0)          # one in a hundred is large
        >>> sampler = mixjax.samplers.when_it_pays(mixjax.samplers.proportional(1000, floor=0.1))
        >>> state, key = sampler.init(1.0), jax.random.key(0)
        >>> for step in range(30):
        ...     indices, weights = sampler.sample(state, jax.random.fold_in(key, step), 64)
        ...     state = sampler.update(state, indices, norms[indices])
        >>> bool(state.ratio < 0.9)
        True

    References:
        Paper 003, remark 3.1, which points to algorithm 1 of Katharopoulos and Fleuret, "Not all samples are created
        equal", ICML 2018. Deviations: the ratio is of second moments of the gradient, stale norms included, where
        theirs bounds the gain by upper bounds of fresh norms of a larger batch.
    """
    check_positive("threshold", threshold)
    check_range("decay", decay, 0.0, 1.0)
    threshold, decay = jnp.asarray(threshold, jnp.float32), jnp.asarray(decay, jnp.float32)

    def is_on(state):
        return state.ratio < threshold

    def init(values, key=None):
        return SwitchState(sampler.init(values, key), jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))

    def sample(state, key, batch_size):
        n = state.inner.values.size

        def uniform(inner):
            return jax.random.randint(key, (batch_size,), 0, n, jnp.int32), jnp.ones(batch_size, jnp.float32)

        return jax.lax.cond(is_on(state), lambda inner: sampler.sample(inner, key, batch_size), uniform, state.inner)

    def log_probs(state, indices=None):
        own = sampler.log_probs(state.inner, indices)
        return jnp.where(is_on(state), own, -jnp.log(jnp.float32(state.inner.values.size)))

    def update(state, indices, values):
        scores = jax.lax.stop_gradient(jnp.asarray(values).astype(jnp.float32))
        known = jnp.isfinite(scores)
        scores, count = jnp.where(known, scores, 0.0), jnp.maximum(known.sum(), 1)
        weights = jnp.exp(-jnp.log(jnp.float32(state.inner.values.size)) - log_probs(state, indices))
        uniform = (weights * jnp.square(scores)).sum() / count
        realised, best = jnp.square(weights * scores).sum() / count, jnp.square(scores.sum() / count)
        drawn = jnp.where(is_on(state), realised, best)
        fresh = jnp.isfinite(uniform) & jnp.isfinite(drawn) & known.any()
        rate = jnp.where(fresh, 1.0 - decay, 0.0)
        drawn, uniform = jnp.where(fresh, drawn, 0.0), jnp.where(fresh, uniform, 0.0)
        return SwitchState(
            sampler.update(state.inner, indices, values),
            state.drawn + rate * (drawn - state.drawn),
            state.uniform + rate * (uniform - state.uniform),
        )

    return ExampleSampler(
        init,
        sample,
        update,
        lambda state, *args, **kwargs: sampler.importance_weights(state.inner, *args, **kwargs),
        log_probs,
        lambda state: state._replace(inner=sampler.rebuild(state.inner)),
    )
