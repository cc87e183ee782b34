r"""Estimates how much of the gradient's variance resampling would save, before you switch it on.

Resampling-reweighting (RR) draws a term of the loss :math:`L = \sum_i \pi_i \ell_i` with a probability in proportion to
the norm of the term's gradient, and divides the gradient by that probability. Variance-aware sampling draws more from
the domains whose gradients spread more. Both keep the expected gradient, :math:`E[g] = \nabla L`, and change only its
variance. :func:`gains` measures by how much.

To resample examples, :func:`mixjax.samplers.proportional` draws from a large data set by the last norm seen of each
example's gradient, and :func:`mixjax.samplers.when_it_pays` switches that on and off. To resample domains, use
:func:`mixjax.rules.gradient_norm` or :func:`mixjax.rules.variance_aware`.

References:
    Paper 003: An and Ying, "Combining resampling and reweighting for faithful stochastic optimization".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from mixjax.checks import as_ids, as_size
from mixjax.grad_norms import norm
from mixjax.meshes import varying_like, with_auto_axes
from mixjax.signals import as_real
from mixjax.types import UNKNOWN

__all__ = ["Gains", "gains"]


class Gains(NamedTuple):
    """Holds the gradient's variance with and without resampling, as pairs ``(estimate, standard error)`` of scalars.

    Attributes:
        sgd: ``Tr Σ``, the variance of the gradient of one example drawn uniformly, in squared units of the gradient.
        per_term: the same for one example drawn by its gradient's norm and divided by that probability (RR).
        per_term_ratio: ``per_term / sgd``. Below 1, RR needs fewer steps, but it also has to compute the norms.
        stratified: ``B Tr Σ`` for a batch of ``B`` examples, split over the domains in proportion to their sizes.
        variance_aware: the same for a batch split by :func:`mixjax.rules.variance_aware`.
        variance_aware_ratio: ``variance_aware / stratified``.
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
    r"""Estimates the gradient's variance at these parameters with and without RR and variance-aware sampling.

    .. math:: \operatorname{Tr} \Sigma_1 = E \|g\|^2 - \|E g\|^2, \qquad
              \operatorname{Tr} \Sigma_2 = (E \|g\|)^2 - \|E g\|^2, \qquad
              \sum_d \pi_d v_d^2, \qquad \Bigl(\sum_d \pi_d v_d\Bigr)^2

    These are the variances of SGD, of RR, and of stratified and variance-aware batches. ``g`` is an example's gradient,
    ``π_d`` a domain's share of the examples, and ``v_d`` the spread of the gradients within it. Squares of means are
    estimated without bias. The jackknife over randomly chosen blocks of examples takes away the bias of the ratios and
    roots, and gives the standard errors.

    Args:
        loss: ``loss(params, example) -> scalar``, for one example.
        params: pytree of parameters.
        examples: pytree of arrays with a leading axis of ``n`` examples, drawn uniformly. A few hundred will do. An
            example whose gradient is not finite is left out.
        domain_ids: integers of any type, ``[n]``. Ids outside ``[0, num_domains)`` mark padding. None puts all examples
            into one domain, for which stratified and variance-aware batches are SGD's.
        num_domains: ``D``, to be given together with ``domain_ids``.
        num_blocks: the number of blocks of the jackknife, at least 2. The memory is ``num_blocks * D`` copies of the
            parameters.

    Returns:
        :class:`Gains`. The ratios hold for these parameters and change during training. They are near 1 where all
        gradients are about as large.

        The last three numbers need about twenty examples of each domain. They are infinite, which means unknown, if a
        domain that occurs has one example only, or two examples that are in the same block. So is a ratio of two
        variances that are both 0.

        Everything is computed in float32. The gradients' norms have to be between 1e-18 and 1e18. The norm of the mean
        gradient may be at most a few hundred times the square root of the variance. Beyond, rounding of the squared
        mean hides the variance.

    Raises:
        ValueError: a block has fewer than two examples, there are fewer than two blocks, the arrays' lengths differ, or
            only one of ``domain_ids`` and ``num_domains`` is given.
        TypeError: ids that are not integers.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from mixjax import resampling
        >>> x = jnp.where(jnp.arange(400) % 10 == 0, 10.0, 1.0) * jnp.where(jnp.arange(400) % 20 < 10, 1, -1)
        >>> found = resampling.gains(lambda slope, x: slope * x, jnp.array(1.0), x)       # one in ten is large
        >>> print(f"{found.per_term_ratio[0]:.1f}")                                       # 1.9 squared over 10.9
        0.3

    References:
        Paper 003, below eq. 3.4 and 3.6, and eq. 3.45. Paper 000, eq. 13 to 16.
    """
    examples, num_blocks = jax.tree.map(jnp.asarray, examples), as_size("num_blocks", num_blocks)
    n = _num_examples(examples, num_blocks)
    if (domain_ids is None) != (num_domains is None):
        raise ValueError("domain_ids and num_domains go together: give both or neither.")
    ids = jnp.zeros(n, jnp.int32) if domain_ids is None else as_ids("domain_ids", domain_ids)
    if ids.shape != (n,):
        raise ValueError(f"domain_ids must be [{n}], got {ids.shape}.")

    def estimate(params, examples, ids):
        domains = jnp.arange(num_domains or 1, dtype=jnp.int32)
        # Under shard_map, the gradient of parameters that all devices share would be summed over the devices.
        params = varying_like(params, examples)

        def block_sums(rows):
            # The index n, which fills up a block, reads the last example, and `real` then leaves it out.
            rows, real = jnp.minimum(rows, n - 1), rows < n
            grads = jax.vmap(jax.grad(loss), (None, 0))(params, jax.tree.map(lambda x: x[rows], examples))
            grads = jax.tree.map(as_real, grads)
            norms = norm(grads)
            valid = real & jnp.isfinite(norms)
            member = ((ids[rows][:, None] == domains[None]) & valid[:, None]).astype(jnp.float32)
            return _summed(grads, norms, member)

        # `lax.map` holds the gradients of one block at a time.
        return _jackknife(jax.lax.map(block_sums, _blocks(n, num_blocks)), num_blocks)

    estimates, errors = with_auto_axes(estimate, PartitionSpec())(params, examples, ids)
    return Gains(*zip(estimates, errors, strict=True))


def _jackknife(parts, num_blocks):
    """Computes the numbers of :class:`Gains` and their standard errors, ``[6]`` each, from the sums of each block."""
    total = jax.tree.map(lambda x: x.sum(0), parts)
    # The jackknife computes the numbers without each block in turn. Sums without a block are differences of sums.
    whole, known = _variances(total)
    left_out, also_known = jax.vmap(lambda part: _variances(jax.tree.map(lambda a, b: a - b, total, part)))(parts)
    known &= also_known.all(0)
    unbiased = num_blocks * whole - (num_blocks - 1) * left_out.mean(0)
    errors = jnp.sqrt((num_blocks - 1) * left_out.var(0))
    return jnp.where(known, unbiased, UNKNOWN), jnp.where(known, errors, UNKNOWN)


def _num_examples(examples, num_blocks):
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(examples)}
    if len(sizes) != 1 or num_blocks < 2 or min(sizes) < 2 * num_blocks:
        raise ValueError(
            f"need arrays of one length, at least 2 blocks and at least {2 * num_blocks} examples, got {sorted(sizes)} "
            f"examples and {num_blocks} blocks."
        )
    return min(sizes)


def _blocks(n, num_blocks):
    """Deals the examples' indices out to blocks at random. The index ``n`` fills up the shorter blocks."""
    # The order is shuffled because a data set is often sorted. The key is fixed, so that the same examples always give
    # the same numbers.
    order = jax.random.permutation(jax.random.key(0), n)
    longest = -(-n // num_blocks)
    return jnp.full(longest * num_blocks, n).at[:n].set(order).reshape(-1, num_blocks).T


class _Sums(NamedTuple):
    """Holds sums over examples.

    Attributes:
        grads: pytree with leaves ``[D, ...]``, each domain's summed gradients.
        counts: ``[D]``, each domain's number of examples.
        squares: ``[D]``, each domain's sum of squared gradient norms.
        norms: scalar, the sum of the gradient norms of all examples.
    """

    grads: Any
    counts: jax.Array
    squares: jax.Array
    norms: jax.Array


def _summed(grads, norms, member):
    """Adds up examples by domain. ``member`` ``[n, D]`` is 1 where an example counts for a domain, and 0 elsewhere."""
    counted = member.any(1)

    def total(g):
        # Zero times an infinite gradient is NaN, so gradients that are left out are replaced before the product.
        g = jnp.where(counted.reshape(-1, *[1] * (g.ndim - 1)), g, 0.0)
        return jnp.tensordot(member, g.astype(jnp.float32), (0, 0))

    norms = jnp.where(counted, norms, 0.0)
    return _Sums(jax.tree.map(total, grads), member.sum(0), jnp.square(norms) @ member, norms.sum())


def _variances(sums):
    """Computes the numbers of :class:`Gains` from sums over examples.

    Returns:
        ``(numbers, known)``: float32 and bool ``[6]``, in the order of the fields. Unknown numbers are finite, so that
        the jackknife's differences of them are not NaN.
    """
    n, square = sums.counts.sum(), sums.squares.sum()
    leaves = jax.tree.leaves(sums.grads)
    # The squared norms of the summed gradients, over all examples and by domain.
    square_of_total = sum(jnp.square(g.sum(0)).sum() for g in leaves)
    squares_of_totals = sum(jnp.square(g).reshape(len(sums.counts), -1).sum(-1) for g in leaves)
    # Every variance is a mean square less the square of a mean.
    mean_squared = _square_of_mean(square_of_total, n, square)
    sgd = square / jnp.maximum(n, 1.0) - mean_squared
    per_term = _square_of_mean(jnp.square(sums.norms), n, square) - mean_squared
    mean_squares = sums.squares / jnp.maximum(sums.counts, 1.0)
    # The estimate of a domain's variance can come out below zero, and the root below would be NaN.
    spread = jnp.maximum(mean_squares - _square_of_mean(squares_of_totals, sums.counts, sums.squares), 0.0)
    stratified = jnp.dot(sums.counts, spread) / jnp.maximum(n, 1.0)
    variance_aware = jnp.square(jnp.dot(sums.counts, jnp.sqrt(spread)) / jnp.maximum(n, 1.0))
    numbers = [sgd, per_term, _ratio(per_term, sgd), stratified, variance_aware, _ratio(variance_aware, stratified)]
    # One example says nothing about its domain's spread. A domain without examples has share 0 and spread 0.
    some, every = n > 1, (n > 1) & ~jnp.any(sums.counts == 1)
    known = [some, some, some & (sgd != 0), every, every, every & (stratified != 0)]
    return jnp.stack(numbers), jnp.stack(known)


def _ratio(above, below):
    """Divides; 0 where the divisor is 0."""
    return jnp.where(below != 0, above / jnp.where(below != 0, below, 1.0), 0.0)


def _square_of_mean(square_of_sum, count, sum_of_squares):
    """Estimates the squared norm of a mean without bias: the mean product of two different examples."""
    return (square_of_sum - sum_of_squares) / jnp.maximum(count * (count - 1), 1.0)
