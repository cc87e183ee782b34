"""Where the signals come from: the points on which losses, variances and gradient spreads are estimated.

Paper 000 is of two minds. Algorithm 1 draws ``M |S_d|`` points of a hold-out at each update; its section 5.1 uses
"a small subset of approximately 100 training points for all estimations"; and where data are seen once, the incoming
points will do. Each source here is a function ``source(key) -> (indices, domain_ids)`` with fixed shapes, so that they
are interchangeable; what differs is whether the points are independent of the parameters (section 3.1.1 asks for that)
and how many there are. A source holds the partition's indices as constants: where ``order`` is large or differs from
run to run, make the source inside the traced function from ``groups._replace(order=...)``.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mixjax.samplers import Partition, start_epochs, with_replacement, without_replacement

__all__ = ["fixed_points", "fresh_draws", "hold_out_draws", "whole_hold_out"]

Source = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


def _per_domain(numbers) -> jax.Array:
    return jnp.asarray(np.repeat(np.arange(len(numbers)), numbers), jnp.int32)


def fixed_points(groups: Partition, num: int = 100) -> Source:
    """The first ``num`` examples of each domain, at every update (all of a domain that has fewer).

    Args:
        groups: concrete :class:`mixjax.samplers.Partition`: the training part for the paper's section 5.1.
        num: points a domain, at least 1.

    Returns:
        A source that ignores its key.

    Raises:
        ValueError: ``num`` below 1.

    Example:
        >>> import jax, mixjax
        >>> source = mixjax.probes.fixed_points(mixjax.samplers.partition([0, 1, 0, 0]), num=2)
        >>> [x.tolist() for x in source(jax.random.key(0))]
        [[0, 2, 1], [0, 0, 1]]

    References:
        Paper 000, section 5.1.
    """
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}.")
    sizes = np.minimum(np.asarray(groups.sizes), num)
    rows = np.concatenate([start + np.arange(size) for start, size in zip(groups.starts, sizes, strict=True)])
    indices, domain_ids = jnp.asarray(groups.order)[rows], _per_domain(sizes)
    return lambda key: (indices, domain_ids)


def whole_hold_out(held_out: Partition) -> Source:
    """Every held-out example, at every update.

    Args:
        held_out: concrete :class:`mixjax.samplers.Partition`, the second part of :func:`mixjax.samplers.split`.

    Returns:
        A source that ignores its key. Its points are reused by later updates, so that only the first is independent of
        the weights' past; in our trials it is nonetheless much better than the literal split where data are few.

    Example:
        >>> import jax, mixjax
        >>> _, held_out = mixjax.samplers.split(mixjax.samplers.partition([0, 0, 0, 0]), 0.5)
        >>> mixjax.probes.whole_hold_out(held_out)(jax.random.key(0))[0].tolist()
        [2, 3]
    """
    return fixed_points(held_out, int(np.max(held_out.sizes)))


def hold_out_draws(held_out: Partition, total_sizes: jax.typing.ArrayLike, rho: float, rounds: int) -> Source:
    """Algorithm 1 to the letter: ``M |S_d|`` held-out points at each update, ``M = (1 - rho) T₀ / T``.

    Args:
        held_out: concrete :class:`mixjax.samplers.Partition` of the ``R_d = S_d \\ S_d^train``.
        total_sizes: int ``[D]``, ``|S_d|``, training part included.
        rho: training fraction, in (0, 1).
        rounds: number of updates ``T / T₀``, at least 1.

    Returns:
        A source that draws ``max(1, round(M |S_d|))`` points without replacement within an update, independently from
        update to update (as written, ``R_d`` does not shrink and the points do not join the training set).

    Raises:
        ValueError: ``rho`` outside (0, 1) or ``rounds`` below 1.

    Example:
        >>> import jax, mixjax
        >>> _, held_out = mixjax.samplers.split(mixjax.samplers.partition([0] * 100), 0.8)
        >>> source = mixjax.probes.hold_out_draws(held_out, [100], rho=0.8, rounds=5)
        >>> source(jax.random.key(0))[0].shape
        (4,)

    References:
        Paper 000, algorithm 1, lines 1, 9 and 10. With ``rho = 1 - 1/sqrt|S|`` (theorem A.4) this is a handful of
        points for ``|S| <= 1000``, and the weights are then noise.
    """
    if not 0.0 < rho < 1.0 or rounds < 1:
        raise ValueError(f"need rho in (0, 1) and rounds >= 1, got {rho} and {rounds}.")
    numbers = np.maximum(np.round((1.0 - rho) / rounds * np.asarray(total_sizes)).astype(int), 1)
    domain_ids = _per_domain(np.minimum(numbers, np.asarray(held_out.sizes)))

    def source(key):
        indices, _ = without_replacement(start_epochs(key, len(numbers)), held_out, domain_ids)
        return indices, domain_ids

    return source


def fresh_draws(groups: Partition, num: int) -> Source:
    """``num`` examples of each domain drawn with replacement, anew at each update: algorithm 2's ``B'_d``.

    Args:
        groups: the examples by domain.
        num: draws a domain ``B_e``, at least 1.

    Returns:
        A source.

    Raises:
        ValueError: ``num`` below 1.

    Example:
        >>> import jax, mixjax
        >>> source = mixjax.probes.fresh_draws(mixjax.samplers.partition([0, 1, 1]), num=4)
        >>> source(jax.random.key(0))[1].tolist()
        [0, 0, 0, 0, 1, 1, 1, 1]

    References:
        Paper 000, algorithm 2, line 8.
    """
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}.")
    domain_ids = _per_domain([num] * len(groups.sizes))
    return lambda key: (with_replacement(key, groups, domain_ids), domain_ids)
