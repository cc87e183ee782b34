r"""Resampling-reweighting (RR): draw a term by how far it would move the parameters, and divide that out again.

For a loss :math:`L = \sum_i \pi_i \ell_i` every function here keeps :math:`E[g] = \nabla L`, the objective of plain
SGD, and changes the variance only. The three schemes of paper 003 differ in the scores that draws are proportional to,
and are not one another's approximations::

    q = probabilities(lipschitz, prior)                  # static: section 2, where terms are two groups' losses
    q = probabilities(norm(grads), prior)               # per term: eq. 3.5, of all n gradients at these parameters
    g = estimate(key, grads, prior, q)                   # both

    g = group_estimate(key, grads, group_weights)        # group-sampled: section 4.1, one element a group is looked at

For a linear model ``‖∇ℓ_i‖ <= sup|ℓ'| ‖x_i‖``, so that ``probabilities(norm(x), prior)`` is static by Lipschitz
constants: the supremum cancels. Per term minimises the variance where the parameters are, near a flat minimum as well;
it does not balance minima. For the same on the samples of a large data set, with norms as they were last seen, see
:func:`mixjax.samplers.proportional`, and :func:`mixjax.samplers.when_it_pays`; for domains,
:func:`mixjax.rules.gradient_norm`.

References:
    Paper 003: An and Ying, "Combining resampling and reweighting for faithful stochastic optimization".
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.grad_norms import norm

__all__ = ["Gains", "draw", "draw_by_rejection", "estimate", "gains", "group_estimate", "probabilities", "variance"]


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
    masses = prior * (scores / jnp.where(largest > 0, largest, 1.0))
    total = masses.sum()
    q = jnp.where(total > 0, masses / jnp.where(total > 0, total, 1.0), prior)
    return (1.0 - defensive) * q + defensive * prior


def draw(key: jax.Array, q: ArrayLike) -> jax.Array:
    """One index in proportion to ``q`` ``[n]``, by inverse transform; never one of probability zero."""
    q = jnp.asarray(q, jnp.float32)
    ends = jnp.where(q > 0, jnp.cumsum(q), -1.0)
    return jnp.argmax(ends > jax.random.uniform(key) * ends.max())


def draw_by_rejection(
    key: jax.Array, score: Callable[[jax.Array], jax.Array], n: int, largest: ArrayLike, max_tries: int = 10_000
) -> tuple[jax.Array, jax.Array]:
    """One of ``n`` terms in proportion to its score, looking at a few scores only: propose uniformly, accept or not.

    It needs no sums and no tree, but a bound; the number of tries is ``largest / mean score`` on average, whatever
    ``n``.

    Args:
        key: a ``jax.random.key``.
        score: index to its score, in [0, ``largest``].
        n: number of terms.
        largest: a bound of all scores.
        max_tries: proposals after which the last one is taken, so that scores that are all zero end the loop.

    Returns:
        The index, int32, and the number of tries, int32.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from mixjax import resampling
        >>> scores = jnp.array([0.0, 1.0, 0.0])
        >>> resampling.draw_by_rejection(jax.random.key(0), lambda i: scores[i], 3, 1.0)[0].tolist()
        1

    References:
        Paper 003, remark 3.1, which points to Needell, Srebro and Ward, "Stochastic gradient descent, weighted sampling
        and the randomized Kaczmarz algorithm", NIPS 2014.
    """

    def propose(carry):
        key, _, tries, _ = carry
        key, index_key, accept_key = jax.random.split(key, 3)
        index = jax.random.randint(index_key, (), 0, n, jnp.int32)
        return key, index, tries + 1, jax.random.uniform(accept_key) * largest < score(index)

    start = key, jnp.int32(0), jnp.int32(0), jnp.bool_(False)
    _, index, tries, _ = jax.lax.while_loop(lambda carry: ~carry[3] & (carry[2] < max_tries), propose, start)
    return index, tries


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
        >>> from mixjax import grad_norms, resampling
        >>> grads, prior = jnp.array([[1.0], [3.0]]), jnp.array([0.5, 0.5])
        >>> q = resampling.probabilities(grad_norms.norm(grads), prior)
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
    return estimate(key, grads, prior, probabilities(norm(grads), prior, defensive))


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
        >>> from mixjax import grad_norms, resampling
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


class Gains(NamedTuple):
    """What resampling would save, each a pair ``(estimate, standard error)`` of scalars.

    Attributes:
        sgd: ``Tr Σ`` of one example drawn uniformly, in squared units of the gradient.
        per_term: of one drawn by its gradient's norm.
        per_term_ratio: the second over the first: below 1, RR pays by the steps; it costs the norms.
        stratified: ``B Tr Σ`` of a batch of ``B`` split over the domains in proportion to their sizes.
        variance_aware: of one split by :func:`mixjax.rules.variance_aware`.
        variance_aware_ratio: the second over the first.
    """

    sgd: tuple[jax.Array, jax.Array]
    per_term: tuple[jax.Array, jax.Array]
    per_term_ratio: tuple[jax.Array, jax.Array]
    stratified: tuple[jax.Array, jax.Array]
    variance_aware: tuple[jax.Array, jax.Array]
    variance_aware_ratio: tuple[jax.Array, jax.Array]


def gains(
    loss: Callable[[Any, Any], jax.Array],
    params: Any,
    examples: Any,
    domain_ids: ArrayLike | None = None,
    num_domains: int = 1,
    num_blocks: int = 20,
) -> Gains:
    r"""How much of the gradient's variance RR, or variance-aware sampling, would save now: before switching it on.

    .. math:: \operatorname{Tr} \Sigma_1 = E \|g\|^2 - \|E g\|^2, \qquad
              \operatorname{Tr} \Sigma_2 = (E \|g\|)^2 - \|E g\|^2, \qquad
              \sum_d \pi_d v_d^2, \qquad \Bigl(\sum_d \pi_d v_d\Bigr)^2

    for SGD, RR, stratified and variance-aware batches, ``v_d`` being the gradient's spread within a domain. Squares
    of means are estimated without bias, standard errors by the jackknife over blocks of examples.

    Args:
        loss: ``loss(params, example) -> scalar``, for one example.
        params: pytree of parameters.
        examples: pytree of arrays with a leading axis of ``n`` examples, drawn uniformly and in no order; a
            few hundred will do.
        domain_ids: int ``[n]``; None is one domain, for which stratified and variance-aware are SGD.
        num_domains: ``D``.
        num_blocks: blocks of the jackknife; memory is that many times ``D`` copies of the parameters.

    Returns:
        :class:`Gains`. The ratios hold for the current parameters and change while training; where the gradient is
        mostly noise that is equal for all examples they are near 1.

    Raises:
        ValueError: fewer than two examples a block, or domain ids of another length.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from mixjax import resampling
        >>> x = jnp.where(jnp.arange(400) % 10 == 0, 10.0, 1.0) * jnp.where(jnp.arange(400) % 20 < 10, 1, -1)
        >>> found = resampling.gains(lambda slope, x: slope * x, jnp.array(1.0), x)       # one in ten is large
        >>> round(float(found.per_term_ratio[0]), 2)                                      # 1.9 squared over 10.9
        0.33

    References:
        Paper 003, below eq. 3.4 and 3.6, and eq. 3.45; paper 000, eq. 13 to 16.
    """
    examples = jax.tree.map(jnp.asarray, examples)
    n = jax.tree.leaves(examples)[0].shape[0]
    ids = jnp.zeros(n, jnp.int32) if domain_ids is None else jnp.asarray(domain_ids, jnp.int32)
    if n < 2 * num_blocks or ids.shape != (n,):
        raise ValueError(f"need at least {2 * num_blocks} examples and one domain id each, got {n} and {ids.shape}.")
    blocks = jnp.arange(-(-n // num_blocks) * num_blocks).reshape(-1, num_blocks).T  # padded at the end

    def block(rows):
        inside, rows = rows < n, jnp.minimum(rows, n - 1)
        grads = jax.vmap(jax.grad(loss), (None, 0))(params, jax.tree.map(lambda x: x[rows], examples))
        lengths = jnp.where(inside, norm(grads), 0.0)
        member = (ids[rows][:, None] == jnp.arange(num_domains)) & inside[:, None]
        sums = jax.tree.map(lambda g: jnp.tensordot(member.astype(jnp.float32), g.astype(jnp.float32), (0, 0)), grads)
        return sums, member.sum(0).astype(jnp.float32), jnp.square(lengths) @ member, lengths.sum()

    parts = jax.lax.map(block, blocks)
    total = jax.tree.map(lambda x: x.sum(0), parts)
    whole = _gains(total)
    left_out = jax.vmap(lambda part: _gains(jax.tree.map(lambda a, b: a - b, total, part)))(parts)
    errors = jnp.sqrt((num_blocks - 1) * left_out.var(0))
    return Gains(*zip(whole, errors, strict=True))


def _gains(sums):
    """The six numbers, from a domain's summed gradients, counts and summed squares, and the summed norms."""
    grads, counts, squares, lengths = sums
    n, square = counts.sum(), squares.sum()

    def of_mean(total, count, own):  # unbiased for the squared norm of the mean
        return (total - own) / jnp.maximum(count * (count - 1), 1.0)

    joint = sum(jnp.square(g.sum(0)).sum() for g in jax.tree.leaves(grads))
    each = sum(jnp.square(g).reshape(len(counts), -1).sum(-1) for g in jax.tree.leaves(grads))
    mean = of_mean(joint, n, square)
    sgd, per_term = square / n - mean, of_mean(jnp.square(lengths), n, square) - mean
    spread = jnp.maximum(squares / jnp.maximum(counts, 1.0) - of_mean(each, counts, squares), 0.0)
    stratified, aware = jnp.dot(counts, spread) / n, jnp.square(jnp.dot(counts, jnp.sqrt(spread)) / n)
    return jnp.stack([sgd, per_term, per_term / sgd, stratified, aware, aware / stratified])
