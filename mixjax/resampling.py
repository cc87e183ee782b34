r"""Resampling-reweighting (RR): draw a term by how far it would move the parameters, and divide that out again.

For a loss :math:`L = \sum_i \pi_i \ell_i` every function here keeps :math:`E[g] = \nabla L`, the objective of plain
SGD, and changes the variance only. The three schemes of paper 003 differ in the scores that draws are proportional to,
and are not one another's approximations::

    q = probabilities(lipschitz, prior)                  # static: section 2, where terms are two groups' losses
    q = probabilities(norms(grads), prior)               # per term: eq. 3.5, of all n gradients at these parameters
    g = estimate(key, grads, prior, q)                   # both

    g = group_estimate(key, grads, group_weights)        # group-sampled: section 4.1, one element a group is looked at

Per term minimises the variance where the parameters are, near a flat minimum as well; it does not balance minima. For
the same on the samples of a large data set, with norms as they were last seen, see
:func:`mixjax.samplers.proportional`; for domains, :func:`mixjax.rules.gradient_norm`.

References:
    Paper 003: An and Ying, "Combining resampling and reweighting for faithful stochastic optimization".
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

__all__ = ["draw", "estimate", "group_estimate", "norms", "probabilities", "variance"]


def norms(grads: ArrayLike) -> jax.Array:
    """Euclidean norms of the rows of ``[n, d]``, scaled: neither tiny nor huge entries are lost to their squares.

    Args:
        grads: ``[..., d]``.

    Returns:
        float32 ``[...]``; 0 for a row of zeros.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import resampling
        >>> resampling.norms(jnp.array([[3e-25, 4e-25], [0.0, 0.0]])).tolist()
        [5e-25, 0.0]
    """
    grads = jnp.asarray(grads, jnp.float32)
    largest = jnp.abs(grads).max(-1)
    scale = jnp.where(largest > 0, largest, 1.0)
    return largest * jnp.sqrt(jnp.square(grads / scale[..., None]).sum(-1))


def probabilities(scores: ArrayLike, prior: ArrayLike, defensive: ArrayLike = 0.0) -> jax.Array:
    r"""Sampling weights in proportion to the prior times a score.

    .. math:: q_i = (1 - \delta) \frac{\pi_i s_i}{\sum_j \pi_j s_j} + \delta \pi_i

    Args:
        scores: ``s``, non-negative ``[n]``: gradient norms, or Lipschitz constants of the terms.
        prior: ``π``, non-negative ``[n]``, not all zero; the terms' shares in the loss.
        defensive: ``δ`` in [0, 1]: no importance weight exceeds ``1 / δ``, so that a score that is too small cannot
            hurt. Clipping ``q`` without this would make the estimate biased.

    Returns:
        float32 ``[n]`` on the simplex; the prior where all scores are zero.

    Raises:
        ValueError: shapes that differ.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import resampling
        >>> f = resampling.probabilities(jnp.array([1.0, 5.0]), jnp.array([0.4, 0.6]))   # section 2, K = 5
        >>> f.tolist(), (jnp.array([0.4, 0.6]) / f).tolist()
        ([0.1176, 0.8824], [3.4, 0.68])

    References:
        Paper 003, section 2.1 (f and w) and eq. 3.5. Deviation: ``δ``; the paper's is 0.
    """
    scores, prior = jnp.asarray(scores, jnp.float32), jnp.asarray(prior, jnp.float32)
    if scores.shape != prior.shape or scores.ndim != 1:
        raise ValueError(f"scores and prior must both be [n], got {scores.shape} and {prior.shape}.")
    prior = prior / prior.sum()
    largest = scores.max()
    masses = prior * scores / jnp.where(largest > 0, largest, 1.0)
    total = masses.sum()
    q = jnp.where(total > 0, masses / jnp.where(total > 0, total, 1.0), prior)
    return (1.0 - defensive) * q + defensive * prior


def draw(key: jax.Array, q: ArrayLike) -> jax.Array:
    """One index in proportion to ``q`` ``[n]``, by inverse transform; never one of probability zero."""
    q = jnp.asarray(q, jnp.float32)
    ends = jnp.where(q > 0, jnp.cumsum(q), -1.0)
    return jnp.argmax(ends > jax.random.uniform(key) * ends.max())


def estimate(key: jax.Array, grads: ArrayLike, prior: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""An unbiased estimate of the loss's gradient from one term: ``(π_i / q_i) ∇ℓ_i`` with ``i ~ q``.

    ``q = prior`` is plain SGD.

    Args:
        key: a ``jax.random.key``.
        grads: the terms' gradients ``[n, d]``.
        prior: ``π`` ``[n]``, on the simplex.
        q: ``[n]``, on the simplex, positive wherever ``π_i ∇ℓ_i`` is not zero.

    Returns:
        ``[d]``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from mixjax import resampling
        >>> grads, prior = jnp.array([[1.0], [3.0]]), jnp.array([0.5, 0.5])
        >>> q = resampling.probabilities(resampling.norms(grads), prior)
        >>> resampling.estimate(jax.random.key(0), grads, prior, q).tolist()      # of one sign: no variance
        [2.0]

    References:
        Paper 003, eq. 2.2 and 3.5.
    """
    index = draw(key, q)
    return jnp.asarray(prior)[index] / jnp.asarray(q)[index] * jnp.asarray(grads)[index]


def group_estimate(key: jax.Array, grads: ArrayLike, prior: ArrayLike, defensive: ArrayLike = 0.0) -> jax.Array:
    r"""An estimate from one element of every group, drawn before: the group by ``a_j ‖∇ℓ_{i_j}‖``.

    Unbiased given the elements drawn, hence unbiased if each was drawn uniformly from its group: with ``m`` groups a
    step looks at ``m`` gradients, not at ``n``.

    Args:
        key: a ``jax.random.key``.
        grads: ``[m, d]``, the gradient of the element drawn from each group.
        prior: ``a`` ``[m]``, the groups' shares, on the simplex.
        defensive: see :func:`probabilities`.

    Returns:
        ``[d]``.

    References:
        Paper 003, section 4.1: "randomly selects the sub-population j with the probability proportional to a_j ‖∇ℓ_j‖".
        Which element's gradient that is stays open there; the norm of the group's mean gradient, or the mean norm,
        with an element drawn afterwards, do not reproduce its figure 2.
    """
    return estimate(key, grads, prior, probabilities(norms(grads), prior, defensive))


def variance(grads: ArrayLike, prior: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Trace of the covariance of :func:`estimate`.

    .. math:: \operatorname{Tr} \Sigma = \sum_i \frac{\pi_i^2}{q_i} \|\nabla \ell_i\|^2 - \|\nabla L\|^2

    Of all ``q`` it is least for :func:`probabilities` of the norms: at most the ``Tr Σ`` of ``q = π`` (eq. 3.45).

    Args:
        grads: ``[n, d]``.
        prior: ``[n]``, on the simplex.
        q: ``[n]``, on the simplex.

    Returns:
        A scalar, in squared units of the gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import resampling
        >>> grads, prior = jnp.array([[1.0], [3.0]]), jnp.array([0.5, 0.5])
        >>> resampling.variance(grads, prior, prior).tolist()
        1.0

    References:
        Paper 003, below eq. 3.4 and 3.6, and eq. 3.45.
    """
    grads, prior, q = (jnp.asarray(x, jnp.float32) for x in (grads, prior, q))
    mean = prior @ grads
    weights = jnp.where(q > 0, prior / jnp.where(q > 0, q, 1.0), 0.0)
    spread = jnp.square(weights[:, None] * grads - mean).sum(-1)
    return jnp.dot(q, spread)
