r"""Draws terms of a loss by the three schemes of paper 003, resampling-reweighting (RR).

RR draws a term in proportion to how far it would move the parameters, and divides by that probability. For a loss
:math:`L = \sum_i \pi_i \ell_i` every estimate here keeps :math:`E[g] = \nabla L`, the objective of plain SGD, and
changes only the variance. The schemes differ in the scores that draws are proportional to. None of them is an
approximation of another::

    q = probabilities(lipschitz, prior)                 # static: section 2, where terms are two groups' losses
    q = probabilities(norm(grads), prior)               # per term: eq. 3.5, of all n gradients at these parameters
    g = estimate(key, grads, prior, q)                  # both

    g = group_estimate(key, grads, group_weights)       # group-sampled: section 4.1, looks at one element of each group

For a linear model ``‖∇ℓ_i‖ <= sup|ℓ'| ‖x_i‖``. The supremum cancels, so ``probabilities(norm(x), prior)`` is the static
scheme. The per-term scheme minimises the variance at the current parameters, near a flat minimum as well as a sharp
one. It does not balance minima.

References:
    Paper 003: An and Ying, "Combining resampling and reweighting for faithful stochastic optimization".
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_range
from mixjax.grad_norms import norm

__all__ = ["draw", "draw_by_rejection", "estimate", "group_estimate", "probabilities", "variance"]


def probabilities(scores: ArrayLike, prior: ArrayLike, floor: ArrayLike = 0.0) -> jax.Array:
    r"""Returns sampling weights in proportion to the prior times a score.

    .. math:: q_i = (1 - \delta) \frac{\pi_i s_i}{\sum_j \pi_j s_j} + \delta \pi_i

    Args:
        scores: ``s`` ``[n]``, non-negative: the terms' gradient norms or Lipschitz constants. A score that is negative
            or not finite counts as 0, which leaves its term out.
        prior: ``π`` ``[n]``, non-negative and not all zero: the terms' shares in the loss. It is normalised here, as
            everywhere in this module.
        floor: ``δ`` in [0, 1], the share of the prior in ``q``. No importance weight exceeds ``1 / δ``, so a score that
            is too small cannot hurt. Clipping ``q`` would bound the weights too, but make the estimate biased.

    Returns:
        float32 ``[n]`` on the simplex. It is the prior where all scores are zero.

    Raises:
        ValueError: the shapes differ, the prior is as :func:`estimate` refuses it, or ``δ`` is outside [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> from experiments.resampling_reweighting import schemes
        >>> f = schemes.probabilities(jnp.array([1.0, 5.0]), jnp.array([0.4, 0.6]))      # section 2, K = 5
        >>> f.tolist(), (jnp.array([0.4, 0.6]) / f).tolist()
        ([0.1176, 0.8824], [3.4, 0.68])

    References:
        Paper 003, section 2.1 (f and w) and eq. 3.5. Deviation: ``δ``, which is 0 in the paper.
    """
    check_range("floor", floor, 0.0, 1.0)
    scores, prior = jnp.asarray(scores, jnp.float32), as_simplex("prior", prior)
    if scores.shape != prior.shape:
        raise ValueError(f"scores and prior must both be [n], got {scores.shape} and {prior.shape}.")
    scores = jnp.where(jnp.isfinite(scores) & (scores > 0) & (prior > 0), scores, 0.0)
    # Divided by the largest score, the products neither overflow nor vanish in float32.
    largest = scores.max()
    masses = prior * (scores / jnp.where(largest > 0, largest, 1.0))
    total = masses.sum()
    q = jnp.where(total > 0, masses / jnp.where(total > 0, total, 1.0), prior)
    return jnp.asarray((1.0 - floor) * q + floor * prior)


def draw(key: jax.Array, q: ArrayLike) -> jax.Array:
    """Draws one index in proportion to ``q`` ``[n]``, by inverse transform.

    An index of probability zero is never drawn, unless all are zero. The draw uses one float32 uniform number, which
    has 2^23 values. This is enough for ``n`` in the thousands. Beyond, :func:`mixjax.samplers.proportional` is exact.
    It is also faster for many draws between which few scores change.
    """
    q = jnp.asarray(q, jnp.float32)
    ends = jnp.where(q > 0, jnp.cumsum(q), -1.0)
    return jnp.argmax(ends > jax.random.uniform(key) * ends.max())


def draw_by_rejection(
    key: jax.Array, score: Callable[[jax.Array], jax.Array], n: int, largest: ArrayLike, max_tries: int = 10_000
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws one of ``n`` terms in proportion to its score, and looks at a few scores only.

    It proposes a term uniformly and accepts it in proportion to its score, until a proposal is accepted. It needs no
    sums and no tree, but a bound of all scores. The number of tries is ``largest / mean score`` on average, whatever
    ``n`` is.

    Args:
        key: a ``jax.random.key``.
        score: ``score(index) -> number`` in [0, ``largest``].
        n: the number of terms, at least 1.
        largest: a bound of all scores. A score above it counts as the bound.
        max_tries: the number of proposals after which the last one is taken as it is, which is a uniform draw. It ends
            the loop where all scores are zero. It should be well above ``largest / mean score``.

    Returns:
        The index (int32), the number of tries (int32), and whether the last one was accepted (bool).

    Raises:
        ValueError: there are no terms, or no tries.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from experiments.resampling_reweighting import schemes
        >>> scores = jnp.array([0.0, 1.0, 0.0])
        >>> schemes.draw_by_rejection(jax.random.key(0), lambda i: scores[i], 3, 1.0)[0].tolist()
        1

    References:
        Paper 003, remark 3.1, which points to Needell, Srebro and Ward, "Stochastic gradient descent, weighted sampling
        and the randomized Kaczmarz algorithm", NIPS 2014.
    """
    if n < 1 or max_tries < 1:
        raise ValueError(f"need n >= 1 and max_tries >= 1, got {n} and {max_tries}.")

    def propose(carry):
        key, _, tries, _ = carry
        key, index_key, accept_key = jax.random.split(key, 3)
        index = jax.random.randint(index_key, (), 0, n, jnp.int32)
        return key, index, tries + 1, jax.random.uniform(accept_key) * largest < jnp.reshape(score(index), ())

    def undecided(carry):
        _, _, tries, accepted = carry
        return ~accepted & (tries < max_tries)

    start = key, jnp.int32(0), jnp.int32(0), jnp.bool_(False)
    _, index, tries, accepted = jax.lax.while_loop(undecided, propose, start)
    return index, tries, accepted


def estimate(key: jax.Array, grads: ArrayLike, prior: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Estimates the loss's gradient from one term without bias: ``(π_i / q_i) ∇ℓ_i`` with ``i ~ q``.

    ``q = prior`` is plain SGD.

    Args:
        key: a ``jax.random.key``.
        grads: ``[n, d]``, the terms' gradients.
        prior: ``π`` ``[n]``, normalised here.
        q: ``[n]``, on the simplex, positive wherever ``π_i ∇ℓ_i`` is not zero.

    Returns:
        ``[d]``.

    Raises:
        ValueError: the shapes differ, or a concrete prior is not finite, negative somewhere or all zero.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from experiments.resampling_reweighting import schemes
        >>> from mixjax import grad_norms
        >>> grads, prior = jnp.array([[1.0], [3.0]]), jnp.array([0.5, 0.5])
        >>> q = schemes.probabilities(grad_norms.norm(grads), prior)
        >>> schemes.estimate(jax.random.key(0), grads, prior, q).tolist()      # gradients of one sign: no variance
        [2.0]

    References:
        Paper 003, eq. 2.2 and 3.5.
    """
    grads, prior, q = _terms(grads, prior, q)
    index = draw(key, q)
    return prior[index] / q[index] * grads[index]


def group_estimate(key: jax.Array, grads: ArrayLike, prior: ArrayLike, floor: ArrayLike = 0.0) -> jax.Array:
    r"""Estimates the loss's gradient from one element of every group, drawn before: the group by ``a_j ‖∇ℓ_{i_j}‖``.

    It is unbiased given the elements, and hence unbiased if each was drawn uniformly from its group. With ``m`` groups
    a step looks at ``m`` gradients and not at ``n``.

    Args:
        key: a ``jax.random.key``.
        grads: ``[m, d]``, the gradient of the element drawn from each group.
        prior: ``a`` ``[m]``, the groups' shares or sizes, normalised here.
        floor: see :func:`probabilities`.

    Returns:
        ``[d]``.

    References:
        Paper 003, section 4.1: "randomly selects the sub-population j with the probability proportional to a_j ‖∇ℓ_j‖".
        The paper does not say whose gradient ``∇ℓ_j`` is. Two other readings do not reproduce its figure 2: the norm of
        the group's mean gradient, and the mean norm, each with an element drawn afterwards.
    """
    return estimate(key, grads, prior, probabilities(norm(grads), prior, floor))


def variance(grads: ArrayLike, prior: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Computes the trace of the covariance of :func:`estimate`.

    .. math:: \operatorname{Tr} \Sigma = \sum_i \frac{\pi_i^2}{q_i} \|\nabla \ell_i\|^2 - \|\nabla L\|^2

    Of all ``q`` it is least for :func:`probabilities` of the norms: at most the ``Tr Σ`` of ``q = π`` (eq. 3.45).

    Args:
        grads: ``[n, d]``, the terms' gradients.
        prior: ``π`` ``[n]``, normalised here.
        q: ``[n]``, on the simplex.

    Returns:
        A scalar, in squared units of the gradient. It is infinite where a term with a gradient is never drawn.

    Raises:
        ValueError: as :func:`estimate`.

    Example:
        >>> import jax.numpy as jnp
        >>> from experiments.resampling_reweighting import schemes
        >>> grads, prior = jnp.array([[1.0], [3.0]]), jnp.array([0.5, 0.5])
        >>> schemes.variance(grads, prior, prior).tolist()
        1.0

    References:
        Paper 003, below eq. 3.4 and 3.6, and eq. 3.45.
    """
    grads, prior, q = _terms(grads, prior, q)
    mean = prior @ grads
    # The quotient is replaced where q is 0, so that 0 / 0 does not trip JAX's NaN checks.
    weights = jnp.where(q > 0, prior / jnp.where(q > 0, q, 1.0), 0.0)
    spread = jnp.square(weights[:, None] * grads - mean).sum(-1)
    missing = (q == 0) & (prior > 0) & (grads != 0).any(-1)
    return jnp.where(missing.any(), jnp.inf, jnp.dot(q, spread))


def _terms(grads, prior, q):
    """Casts the three to float32, normalises the prior, and checks the shapes."""
    grads, prior, q = jnp.asarray(grads, jnp.float32), as_simplex("prior", prior), jnp.asarray(q, jnp.float32)
    if grads.ndim != 2 or not len(grads) == len(prior) == q.size or q.ndim != 1:
        raise ValueError(f"need grads [n, d], prior [n] and q [n], got {grads.shape}, {prior.shape} and {q.shape}.")
    return grads, prior, q
