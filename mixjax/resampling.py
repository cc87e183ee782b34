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

from mixjax.checks import as_simplex, check_range
from mixjax.grad_norms import norm

__all__ = ["Gains", "draw", "draw_by_rejection", "estimate", "gains", "group_estimate", "probabilities", "variance"]


def probabilities(scores: ArrayLike, prior: ArrayLike, defensive: ArrayLike = 0.0) -> jax.Array:
    r"""Sampling weights in proportion to the prior times a score.

    .. math:: q_i = (1 - \delta) \frac{\pi_i s_i}{\sum_j \pi_j s_j} + \delta \pi_i

    Args:
        scores: ``s``, non-negative ``[n]``: gradient norms, or Lipschitz constants of the terms. One that is not
            finite, or negative, counts as 0: its term is left out.
        prior: ``π``, non-negative ``[n]``, not all zero; the terms' shares in the loss, normalised here as everywhere
            in this module.
        defensive: ``δ`` in [0, 1]: no importance weight exceeds ``1 / δ``, so that a score that is too small cannot
            hurt. Clipping ``q`` without this would make the estimate biased.

    Returns:
        float32 ``[n]`` on the simplex; the prior where all scores are zero.

    Raises:
        ValueError: shapes that differ, a prior as :func:`estimate` refuses, ``δ`` outside [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import resampling
        >>> f = resampling.probabilities(jnp.array([1.0, 5.0]), jnp.array([0.4, 0.6]))   # section 2, K = 5
        >>> f.tolist(), (jnp.array([0.4, 0.6]) / f).tolist()
        ([0.1176, 0.8824], [3.4, 0.68])

    References:
        Paper 003, section 2.1 (f and w) and eq. 3.5. Deviation: ``δ``; the paper's is 0.
    """
    check_range("defensive", defensive, 0.0, 1.0)
    scores, prior = jnp.asarray(scores, jnp.float32), as_simplex("prior", prior)
    if scores.shape != prior.shape:
        raise ValueError(f"scores and prior must both be [n], got {scores.shape} and {prior.shape}.")
    scores = jnp.where(jnp.isfinite(scores) & (scores > 0) & (prior > 0), scores, 0.0)
    largest = scores.max()
    masses = prior * (scores / jnp.where(largest > 0, largest, 1.0))
    total = masses.sum()
    q = jnp.where(total > 0, masses / jnp.where(total > 0, total, 1.0), prior)
    return (1.0 - defensive) * q + defensive * prior


def draw(key: jax.Array, q: ArrayLike) -> jax.Array:
    """One index in proportion to ``q`` ``[n]``, by inverse transform; never one of probability zero, unless all are.

    One float32 uniform number is used, of 2^23 values: for ``n`` in the thousands. Beyond, and to draw again and again
    while few scores change, :func:`mixjax.samplers.proportional` is exact.
    """
    q = jnp.asarray(q, jnp.float32)
    ends = jnp.where(q > 0, jnp.cumsum(q), -1.0)
    return jnp.argmax(ends > jax.random.uniform(key) * ends.max())


def draw_by_rejection(
    key: jax.Array, score: Callable[[jax.Array], jax.Array], n: int, largest: ArrayLike, max_tries: int = 10_000
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One of ``n`` terms in proportion to its score, looking at a few scores only: propose uniformly, accept or not.

    It needs no sums and no tree, but a bound; the number of tries is ``largest / mean score`` on average, whatever
    ``n``.

    Args:
        key: a ``jax.random.key``.
        score: index to its score, in [0, ``largest``].
        n: number of terms, at least 1.
        largest: a bound of all scores; a score above it counts as it.
        max_tries: proposals after which the last one is taken, which is a uniform draw; so scores that are all zero end
            the loop. To be well above ``largest / mean score``.

    Returns:
        The index, int32, the number of tries, int32, and whether the last one was accepted, bool.

    Raises:
        ValueError: no terms, or no tries.

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
        return key, index, tries + 1, jax.random.uniform(accept_key) * largest < jnp.reshape(score(index), ())

    if n < 1 or max_tries < 1:
        raise ValueError(f"need n >= 1 and max_tries >= 1, got {n} and {max_tries}.")
    start = key, jnp.int32(0), jnp.int32(0), jnp.bool_(False)
    _, *found = jax.lax.while_loop(lambda carry: ~carry[3] & (carry[2] < max_tries), propose, start)
    return tuple(found)


def estimate(key: jax.Array, grads: ArrayLike, prior: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""An unbiased estimate of the loss's gradient from one term: ``(π_i / q_i) ∇ℓ_i`` with ``i ~ q``.

    ``q = prior`` is plain SGD.

    Args:
        key: a ``jax.random.key``.
        grads: the terms' gradients ``[n, d]``.
        prior: ``π`` ``[n]``, normalised here.
        q: ``[n]``, on the simplex, positive wherever ``π_i ∇ℓ_i`` is not zero.

    Returns:
        ``[d]``.

    Raises:
        ValueError: shapes that differ, or a concrete prior that is not finite, non-negative and not all zero.

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
    grads, prior, q = _terms(grads, prior, q)
    index = draw(key, q)
    return prior[index] / q[index] * grads[index]


def group_estimate(key: jax.Array, grads: ArrayLike, prior: ArrayLike, defensive: ArrayLike = 0.0) -> jax.Array:
    r"""An estimate from one element of every group, drawn before: the group by ``a_j ‖∇ℓ_{i_j}‖``.

    Unbiased given the elements drawn, hence unbiased if each was drawn uniformly from its group: with ``m`` groups a
    step looks at ``m`` gradients, not at ``n``.

    Args:
        key: a ``jax.random.key``.
        grads: ``[m, d]``, the gradient of the element drawn from each group.
        prior: ``a`` ``[m]``, the groups' shares or sizes, normalised here.
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
        prior: ``[n]``, normalised here.
        q: ``[n]``, on the simplex.

    Returns:
        A scalar, in squared units of the gradient; infinite where a term with a gradient is never drawn.

    Raises:
        ValueError: as :func:`estimate`.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms, resampling
        >>> grads, prior = jnp.array([[1.0], [3.0]]), jnp.array([0.5, 0.5])
        >>> resampling.variance(grads, prior, prior).tolist()
        1.0

    References:
        Paper 003, below eq. 3.4 and 3.6, and eq. 3.45.
    """
    grads, prior, q = _terms(grads, prior, q)
    mean = prior @ grads
    weights = jnp.where(q > 0, prior / jnp.where(q > 0, q, 1.0), 0.0)
    spread = jnp.square(weights[:, None] * grads - mean).sum(-1)
    missing = (q == 0) & (prior > 0) & (grads != 0).any(-1)
    return jnp.where(missing.any(), jnp.inf, jnp.dot(q, spread))


def _terms(grads, prior, q):
    """The three in float32, the prior normalised."""
    grads, prior, q = jnp.asarray(grads, jnp.float32), as_simplex("prior", prior), jnp.asarray(q, jnp.float32)
    if grads.ndim != 2 or not len(grads) == len(prior) == q.size or q.ndim != 1:
        raise ValueError(f"need grads [n, d], prior [n] and q [n], got {grads.shape}, {prior.shape} and {q.shape}.")
    return grads, prior, q


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
    num_domains: int | None = None,
    num_blocks: int = 20,
) -> Gains:
    r"""How much of the gradient's variance RR, or variance-aware sampling, would save now: before switching it on.

    .. math:: \operatorname{Tr} \Sigma_1 = E \|g\|^2 - \|E g\|^2, \qquad
              \operatorname{Tr} \Sigma_2 = (E \|g\|)^2 - \|E g\|^2, \qquad
              \sum_d \pi_d v_d^2, \qquad \Bigl(\sum_d \pi_d v_d\Bigr)^2

    for SGD, RR, stratified and variance-aware batches, ``v_d`` being the gradient's spread within a domain. Squares
    of means are estimated without bias; the jackknife over blocks of examples, dealt out at random, takes away the rest
    of the bias and gives the standard errors.

    Args:
        loss: ``loss(params, example) -> scalar``, for one example.
        params: pytree of parameters.
        examples: pytree of arrays with a leading axis of ``n`` examples, drawn uniformly; a few hundred will do. One
            whose gradient is not finite is left out.
        domain_ids: int ``[n]``; ids outside ``[0, num_domains)`` mark padding. None is one domain, for which stratified
            and variance-aware are SGD.
        num_domains: ``D``, with ``domain_ids``.
        num_blocks: blocks of the jackknife, at least 2; memory is that many times ``D`` copies of the parameters.

    Returns:
        :class:`Gains`. The ratios hold for the current parameters and change while training; where all gradients are
        about as large they are near 1. The numbers by domains need about twenty examples of each, and are NaN where
        one of those present has fewer than two, or two in one block. All is in float32: gradients between 1e-18 and
        1e18, and no mean so large that its square hides the variance (1e5 times).

    Raises:
        ValueError: fewer than two examples a block, fewer than two blocks, arrays of several lengths, ``domain_ids``
            without ``num_domains``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from mixjax import resampling
        >>> x = jnp.where(jnp.arange(400) % 10 == 0, 10.0, 1.0) * jnp.where(jnp.arange(400) % 20 < 10, 1, -1)
        >>> found = resampling.gains(lambda slope, x: slope * x, jnp.array(1.0), x)       # one in ten is large
        >>> print(f"{found.per_term_ratio[0]:.1f}")                                       # 1.9 squared over 10.9
        0.3

    References:
        Paper 003, below eq. 3.4 and 3.6, and eq. 3.45; paper 000, eq. 13 to 16.
    """
    examples = jax.tree.map(jnp.asarray, examples)
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(examples)}
    n = min(sizes)
    if len(sizes) != 1 or num_blocks < 2 or n < 2 * num_blocks:
        raise ValueError(
            f"need arrays of one length, at least 2 blocks and at least {2 * num_blocks} examples, got {sorted(sizes)} "
            f"examples and {num_blocks} blocks."
        )
    if (domain_ids is None) != (num_domains is None):
        raise ValueError("domain_ids and num_domains go together: give both or neither.")
    ids = jnp.zeros(n, jnp.int32) if domain_ids is None else jnp.asarray(domain_ids, jnp.int32)
    if ids.shape != (n,):
        raise ValueError(f"domain_ids must be [{n}], got {ids.shape}.")
    num_domains = num_domains or 1
    order = jax.random.permutation(jax.random.key(0), n)
    blocks = jnp.full(-(-n // num_blocks) * num_blocks, n).at[:n].set(order).reshape(-1, num_blocks).T

    def block(rows):
        rows, real = jnp.minimum(rows, n - 1), rows < n
        grads = jax.vmap(jax.grad(loss), (None, 0))(params, jax.tree.map(lambda x: x[rows], examples))
        lengths = norm(grads)
        inside = real & jnp.isfinite(lengths)
        member = ((ids[rows][:, None] == jnp.arange(num_domains)) & inside[:, None]).astype(jnp.float32)
        counted = member.any(1)

        def total(g):
            g = jnp.where(counted.reshape(-1, *[1] * (g.ndim - 1)), g, 0.0)
            return jnp.tensordot(member, g.astype(jnp.float32), (0, 0))

        lengths = jnp.where(counted, lengths, 0.0)
        return jax.tree.map(total, grads), member.sum(0), jnp.square(lengths) @ member, lengths.sum()

    parts = jax.lax.map(block, blocks)
    total = jax.tree.map(lambda x: x.sum(0), parts)
    left_out = jax.vmap(lambda part: _gains(jax.tree.map(lambda a, b: a - b, total, part)))(parts)
    unbiased = num_blocks * _gains(total) - (num_blocks - 1) * left_out.mean(0)
    errors = jnp.sqrt((num_blocks - 1) * left_out.var(0))
    return Gains(*zip(unbiased, errors, strict=True))


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
    spread = jnp.where(counts == 1, jnp.nan, spread)  # unknown, and 0 where there is none
    stratified, aware = jnp.dot(counts, spread) / n, jnp.square(jnp.dot(counts, jnp.sqrt(spread)) / n)
    return jnp.stack([sgd, per_term, per_term / sgd, stratified, aware, aware / stratified])
