"""Measures the signals that rules look at: per-domain moments of the loss, and spreads of per-example gradients.

Everything here is

- masked: a domain may be absent, an example may be padding;
- stable: squared deviations are summed around the mean, never taken as differences of squares.

:class:`Moments` also merge, by Chan's formula: over microbatches, over the steps of a ``scan``, over devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from mixjax.checks import as_ids, as_size, check_leading_axes, check_real, check_shape
from mixjax.meshes import spec_of, varying_like, with_auto_axes
from mixjax.types import UNKNOWN

__all__ = [
    "DomainSums",
    "Moments",
    "as_real",
    "domain_sums",
    "grad_stds",
    "merge",
    "microbatch_grad_stds",
    "moments",
    "psum",
]

_FEW = 4
"""Number of domains up to which masks, which vectorise, are faster than segment sums and gathers, at least on a CPU."""


class Moments(NamedTuple):
    """Holds each domain's count, mean and sum of squared deviations; the empty domain has ``(0, 0, 0)``.

    Attributes:
        count: float32 ``[D]``, number of examples.
        mean: float32 ``[D]``.
        m2: float32 ``[D]``, sum of squared deviations from the mean.
    """

    # The field hides the method of tuples, which counts equal entries and which nobody needs here.
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mean: jax.Array
    m2: jax.Array

    def signals(self) -> dict[str, jax.Array]:
        """Returns the keyword arguments ``counts, losses, loss_vars`` of a rule's ``update``.

        Returns:
            ``losses`` is infinite where the count is 0, and ``loss_vars`` (divisor n - 1) where it is below 2. The
            variance of one example is not 0 but unknown. A rule that reads a number that is not finite leaves the row
            unseen, see :data:`mixjax.types.UNKNOWN`.
        """
        return {
            "counts": self.count,
            "losses": jnp.where(self.count > 0, self.mean, UNKNOWN),
            "loss_vars": jnp.where(self.count > 1, self.m2 / jnp.maximum(self.count - 1.0, 1.0), UNKNOWN),
        }


class DomainSums(NamedTuple):
    """Holds two functions for fixed domain ids: one sums examples by domain, one looks up each example's domain row.

    Attributes:
        total: ``[*ids, ...] -> [D]``, the sum over each domain's examples and over all axes behind those of the ids;
            padding is left out.
        per_example: ``[D] -> [*ids]``, the row of each example's domain; 0 for padding.
    """

    total: Callable[[jax.Array], jax.Array]
    per_example: Callable[[jax.Array], jax.Array]


def moments(values: ArrayLike, domain_ids: ArrayLike, num_domains: int, *, mask: ArrayLike | None = None) -> Moments:
    """Measures counts, means and squared deviations of each domain's values, by the corrected two-pass algorithm.

    Args:
        values: ``[B]``, e.g. per-example losses, or ``[B, T]``, e.g. per-token losses, or of more axes. Every single
            value counts as one example. Computed in float32 whatever the dtype. A non-finite value spoils its own
            domain's row only.
        domain_ids: integers of any type, ``[B]``, or of more of the leading axes of ``values``. An id holds for all
            values behind it. Ids outside ``[0, num_domains)`` mark padding and are left out.
        num_domains: ``D``.
        mask: ``[B]``, or of more of the leading axes of ``values``: 0 or False marks further padding.

    Returns:
        :class:`Moments` with rows ``[D]``. Cost: one pass over the values and O(D).

    Raises:
        ValueError: shapes that do not fit.
        TypeError: ids that are not integers, or complex values.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import signals
        >>> m = signals.moments(jnp.array([1.0, 3.0, 5.0]), jnp.array([0, 0, 1]), num_domains=3)
        >>> m.signals()["losses"].tolist(), m.signals()["loss_vars"].tolist()
        ([2.0, 5.0, inf], [2.0, inf, inf])

    References:
        Chan, Golub and LeVeque, "Algorithms for computing the sample variance: analysis and recommendations", The
        American Statistician 37(3), 1983, eq. 1.7.
    """
    values, ids = jnp.asarray(values), as_ids("domain_ids", domain_ids)
    num_domains = as_size("num_domains", num_domains)
    check_real("values", values)
    check_leading_axes("domain_ids", ids, "values", values)
    if mask is not None:
        mask = jnp.asarray(mask)
        check_leading_axes("mask", mask, "values", values)

    def measure(values, ids, mask):
        total, per_example = domain_sums(ids, num_domains)

        def own(rows):
            """Looks up the row of each value's domain."""
            return expand(per_example(rows), values.ndim)

        # Padding may hold anything. Zeros in its place keep a NaN out of the sums, and out of jax_debug_nans.
        real = jnp.broadcast_to(expand(_is_real(ids, num_domains, mask), values.ndim), values.shape)
        values = jnp.where(real, values, 0.0)
        # Integers are counted exactly beyond 2^24, where a sum of ones in float32 stops.
        count = total(real.astype(jnp.int32)).astype(jnp.float32)
        guess = total(values) / jnp.maximum(count, 1.0)
        deviations = jnp.where(real, values - own(guess), 0.0)
        # The mean of the deviations corrects the guess: a long float32 sum is off by far more than the mean's rounding.
        rest = total(deviations) / jnp.maximum(count, 1.0)
        squares = jnp.square(deviations)
        m2 = total(squares)
        # For more than _FEW domains domain_sums uses segment sums, which add one number after the other and lose
        # digits. The sum of what the squares differ from their mean by is small, and adding it restores the digits.
        if num_domains > _FEW:
            m2 += total(jnp.where(real, squares - own(m2 / jnp.maximum(count, 1.0)), 0.0))
        return Moments(count, guess + rest, jnp.maximum(m2 - count * jnp.square(rest), 0.0))

    return with_auto_axes(measure, PartitionSpec())(values.astype(jnp.float32), ids, mask)


def _is_real(ids, num_domains, mask):
    """Tells what is no padding, in the shape of ``ids`` or of ``mask``, whichever has more axes."""
    inside = (ids >= 0) & (ids < num_domains)
    if mask is None:
        return inside
    ndim = max(ids.ndim, mask.ndim)
    return expand(inside, ndim) & expand(mask.astype(bool), ndim)


def expand(x: jax.Array, ndim: int) -> jax.Array:
    """Appends axes of size one, so that what holds for the leading axes of an array broadcasts against the array.

    Args:
        x: an array of at most ``ndim`` axes.
        ndim: number of axes of the result.
    """
    return x.reshape(x.shape + (1,) * (ndim - x.ndim))


def domain_sums(domain_ids: ArrayLike, num_domains: int) -> DomainSums:
    """Makes the functions that sum by domain and look up rows: by masks for few domains, by segment sums for many.

    Args:
        domain_ids: integers of any type and shape, such as ``[B]``; ids outside ``[0, num_domains)`` mark padding.
        num_domains: ``D``.

    Returns:
        :class:`DomainSums`.

    Raises:
        TypeError: ids that are not integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import signals
        >>> total, per_example = signals.domain_sums(jnp.array([0, 0, 1, -1]), 2)
        >>> total(jnp.array([1.0, 2.0, 4.0, 8.0])).tolist(), per_example(jnp.array([3.0, 4.0])).tolist()
        ([3.0, 4.0], [3.0, 3.0, 4.0, 0.0])
    """
    # Widened before the comparison with D, which a narrow type may not hold.
    ids, num_domains = as_ids("domain_ids", domain_ids), as_size("num_domains", num_domains)
    # Ids below zero would count from the end: padding gets an id of its own, one beyond the last domain.
    ids = jnp.where(_is_real(ids, num_domains, None), ids, num_domains)
    if num_domains <= _FEW:
        return _sums_by_masks(ids, num_domains)
    return _sums_by_segments(ids, num_domains)


def _sums_by_segments(ids, num_domains):
    """Sums and looks up in O(B + D); padding has the id ``D``, whose segment is cut off."""

    def total(x, ids):
        return jax.ops.segment_sum(_sum_behind(x, ids).ravel(), ids.ravel(), num_domains + 1)[:num_domains]

    def per_example(rows, ids):
        return jnp.pad(rows, (0, 1))[ids]

    return DomainSums(
        total=lambda x: with_auto_axes(total, PartitionSpec())(x, ids),
        per_example=lambda rows: with_auto_axes(per_example, spec_of(ids))(rows, ids),
    )


def _sums_by_masks(ids, num_domains):
    """Sums and looks up in O(B D); padding has the id ``D``, which no mask holds."""
    masks = [ids == domain for domain in range(num_domains)]

    def total(x):
        x = _sum_behind(x, ids)
        return jnp.stack([jnp.where(mask, x, 0).sum(dtype=x.dtype) for mask in masks])

    def per_example(rows):
        x = jnp.zeros(ids.shape, rows.dtype)
        for domain, mask in enumerate(masks):
            x = jnp.where(mask, rows[domain], x)
        return x

    return DomainSums(total, per_example)


def _sum_behind(x, ids):
    """Sums over the axes of ``x`` behind those of ``ids``."""
    return x.sum(tuple(range(ids.ndim, x.ndim)), dtype=x.dtype) if x.ndim > ids.ndim else x


def merge(a: Moments, b: Moments) -> Moments:
    """Merges the moments of two disjoint sets of examples into the moments of their union, row by row.

    Args:
        a: moments of one set, rows of any shape.
        b: moments of the other, same shape.

    Returns:
        The moments of the union. ``merge`` is associative and commutative up to rounding;
        ``jax.tree.map(jnp.zeros_like, a)`` is its unit.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax.signals import merge, moments
        >>> ids = jnp.zeros(2, int)
        >>> m = merge(moments(jnp.array([1.0, 3.0]), ids, 1), moments(jnp.array([5.0, 7.0]), ids, 1))
        >>> m.mean.tolist(), m.m2.tolist()
        ([4.0], [20.0])

    References:
        Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """
    count = a.count + b.count
    fraction = b.count / jnp.maximum(count, 1.0)
    # If one side is empty, the result is the other side's mean to the bit, even if the empty side's mean is NaN.
    both = (a.count > 0) & (b.count > 0)
    delta = jnp.where(both, b.mean, 0.0) - jnp.where(both, a.mean, 0.0)
    mean = jnp.where(a.count > 0, a.mean, b.mean) + delta * fraction
    between = jnp.square(delta) * a.count * fraction
    return Moments(count, mean, a.m2 + b.m2 + between)


def psum(m: Moments, axis_name: str | tuple[str, ...]) -> Moments:
    """Merges the moments of all devices along a mapped axis, in three all-reduces of ``[D]``.

    Args:
        m: this device's moments.
        axis_name: the axis of ``shard_map``, ``vmap`` or ``pmap``, or several.

    Returns:
        The merged moments, the same on every device.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from mixjax import signals
        >>> def local(values):
        ...     return signals.psum(signals.moments(values, jnp.zeros(2, int), 1), "devices").mean
        >>> jax.vmap(local, axis_name="devices")(jnp.array([[1.0, 3.0], [5.0, 7.0]])).tolist()
        [[4.0], [4.0]]
    """
    count = jax.lax.psum(m.count, axis_name)
    # A device without examples of a domain may hold NaN as its mean.
    own = jnp.where(m.count > 0, m.mean, 0.0)
    mean = jax.lax.psum(m.count * own, axis_name) / jnp.maximum(count, 1.0)
    between = m.count * jnp.square(own - mean)
    return Moments(count, mean, jax.lax.psum(m.m2 + between, axis_name))


def grad_stds(
    loss: Callable[[Any, Any], jax.Array], params: Any, examples: Any, domain_ids: ArrayLike, num_domains: int
) -> jax.Array:
    r"""Measures the standard deviation of the per-example gradient in each domain, exactly.

    .. math:: v_d^2 = \frac{1}{n_d - 1} \sum_{z \in d} \|\nabla \ell(\theta, z) - \bar g_d\|^2

    ``l`` is ``loss``, ``theta`` is ``params``, ``z`` is one of the ``n_d`` examples of domain ``d``, and ``g_d`` is the
    mean of their gradients. Cost: one ``vmap`` of the gradient over the ``n`` examples, and memory for ``n + D`` copies
    of the parameters. Where that is too much, use :func:`microbatch_grad_stds`, which needs only the mean gradients of
    microbatches.

    Args:
        loss: ``loss(params, example) -> scalar``, for one example.
        params: pytree of parameters.
        examples: pytree of arrays with a leading axis of ``n`` examples.
        domain_ids: integers of any type, ``[n]``; ids outside ``[0, num_domains)`` mark padding.
        num_domains: ``D``.

    Returns:
        float32 ``[D]``, in units of the gradient; infinite, which means unknown, for domains with fewer than two
        examples.

    Raises:
        TypeError: ids that are not integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import signals
        >>> x, ids = jnp.array([1.0, 3.0, 5.0, 5.0]), jnp.array([0, 0, 1, 1])
        >>> signals.grad_stds(lambda slope, x: slope * x, jnp.array(2.0), x, ids, 2).tolist()
        [1.414, 0.0]

    References:
        Paper 000, eq. 15. Deviation: divisor ``n_d - 1`` (unbiased for ``v_d²``).
    """
    num_domains = as_size("num_domains", num_domains)

    def measure(params, examples, ids):
        # Under shard_map, the gradient of parameters that all devices share would be summed over the devices.
        grads = jax.vmap(jax.grad(loss), in_axes=(None, 0))(varying_like(params, examples), examples)
        return _spread(grads, jnp.ones_like(ids, jnp.float32), ids, num_domains)

    return with_auto_axes(measure, PartitionSpec())(params, examples, as_ids("domain_ids", domain_ids))


def microbatch_grad_stds(mean_grads: Any, counts: ArrayLike) -> jax.Array:
    r"""Estimates the standard deviation of :func:`grad_stds` from the mean gradients of a few microbatches.

    .. math:: \hat v_d^2 = \frac{1}{M_d - 1} \sum_m n_{md} \|\hat g_{md} - \bar g_d\|^2

    ``g_md`` is the mean gradient of the ``n_md`` examples of domain ``d`` in microbatch ``m``, ``M_d`` is the number of
    microbatches where there are any, and the grand mean is weighted by ``n_md``. The square is unbiased for ``v_d²`` of
    eq. 15 whatever the counts, since mean gradients of ``n`` examples vary by ``v²/n``. Its relative standard error is
    about ``sqrt(2 / ((M - 1) r))``, with ``r`` the effective dimension of the gradient noise. Cost: ``M`` gradients per
    domain, which gradient accumulation computes anyway, and memory for ``M D`` of them.

    Args:
        mean_grads: pytree with leading axes ``[M, D]``: mean gradients.
        counts: ``[M, D]``, examples behind each; rows of count 0 are left out.

    Returns:
        float32 ``[D]``; infinite, which means unknown, for domains present in fewer than two microbatches.

    Raises:
        ValueError: counts that do not match the leading axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import signals
        >>> grads = jnp.array([[[1.0]], [[3.0]]])          # M = 2 microbatches, D = 1, one parameter
        >>> signals.microbatch_grad_stds(grads, jnp.array([[8], [8]])).tolist()
        [4.0]

    References:
        Paper 000, eq. 15; the one-way analysis of variance's between-group mean square.
    """
    counts = jnp.asarray(counts, jnp.float32)
    check_shape("counts", counts, ("M", "D"), "like the leading axes of mean_grads")
    for leaf in jax.tree.leaves(mean_grads):
        if leaf.shape[:2] != counts.shape:
            raise ValueError(
                f"mean_grads must have the leading axes {counts.shape} of counts, got a leaf of shape {leaf.shape}."
            )

    def measure(mean_grads, counts):
        # Flattened to M D rows, each with its domain's id; _spread then weighs each row by its count.
        num_domains = counts.shape[1]
        ids = jnp.broadcast_to(jnp.arange(num_domains, dtype=jnp.int32)[None], counts.shape)
        flat = jax.tree.map(lambda g: g.reshape(-1, *g.shape[2:]), mean_grads)
        return _spread(flat, counts.reshape(-1), ids.reshape(-1), num_domains)

    return with_auto_axes(measure, PartitionSpec())(mean_grads, counts)


def as_real(x: jax.Array) -> jax.Array:
    """Returns real coordinates of an array, so that sums of their squares are sums of squared absolute values.

    Args:
        x: real or complex, any shape.

    Returns:
        ``x`` where it is real, else its real and imaginary parts along a new last axis of size 2.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import signals
        >>> signals.as_real(jnp.array([3.0 + 4.0j])).tolist()
        [[3.0, 4.0]]
    """
    return jnp.stack([x.real, x.imag], axis=-1) if jnp.iscomplexobj(x) else x


def _spread(grads, weights, ids, num_domains):
    """Computes ``sqrt(sum of weight * |grad - the domain's weighted mean|² / (rows - 1))``; unknown below two rows."""
    ids = jnp.where((ids >= 0) & (ids < num_domains) & (weights > 0), ids, num_domains)
    # Segments for any number of domains: masks would read the large gradients once for each domain.
    total, _ = _sums_by_segments(ids, num_domains)
    rows = total(jnp.ones_like(weights))
    mass = jnp.pad(total(weights), (0, 1))

    def squared_distances(g):
        # The segment of padding is dropped; zeros in place of its gradients keep their NaN out of jax_debug_nans.
        present = expand(ids < num_domains, g.ndim)
        g = jnp.where(present, g, 0.0).astype(jnp.float32).reshape(len(g), -1)
        sums = jax.ops.segment_sum(weights[:, None] * g, ids, num_domains + 1)
        means = sums / jnp.maximum(mass, jnp.finfo(jnp.float32).tiny)[:, None]
        return total(weights * jnp.square(g - means[ids]).sum(axis=1))

    squares = sum(squared_distances(as_real(leaf)) for leaf in jax.tree.leaves(grads))
    return jnp.where(rows > 1, jnp.sqrt(squares / jnp.maximum(rows - 1.0, 1.0)), UNKNOWN)
