"""Chooses the examples on which losses, variances and gradient spreads are estimated.

A *source* is a function ``source(key) -> (indices, domain_ids)``. The shapes of its results are fixed, so it can be
called inside a compiled loop. Sources differ in how many examples they choose, and in whether these examples are
independent of the parameters, as paper 000, section 3.1.1 asks. The paper uses two kinds:

- Algorithm 1 draws ``M |S_d|`` held-out examples at each update: :func:`hold_out_draws`.
- Section 5.1 uses "a small subset of approximately 100 training points for all estimations": :func:`fixed_points`.

Where training sees every example once, it can measure on the examples that come next, and needs no source.

A source holds the partition's ``order`` (the indices of the examples) as a constant of the compiled program. Where
``order`` is large or differs from run to run, make the source inside the traced function, from
``groups._replace(order=...)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mixjax.checks import as_ids, check_integer
from mixjax.samplers import Partition, start_epochs, with_replacement, without_replacement

__all__ = ["fixed_points", "fresh_draws", "hold_out_draws", "whole_hold_out"]

Source = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
"""The type of a source: ``source(key) -> (indices, domain_ids)``."""


def fixed_points(groups: Partition, num: int = 100) -> Source:
    """Makes a source of the first ``num`` examples of each domain, the same at every update.

    Args:
        groups: concrete :class:`mixjax.samplers.Partition` of the examples. For the paper's section 5.1, this is the
            training part.
        num: the number of examples of each domain, at least 1. A domain that has fewer gives all of them.

    Returns:
        A source that ignores its key.

    Raises:
        ValueError: ``num`` is below 1.

    Example:
        >>> import jax, mixjax
        >>> source = mixjax.probes.fixed_points(mixjax.samplers.partition([0, 1, 0, 0]), num=2)
        >>> [x.tolist() for x in source(jax.random.key(0))]
        [[0, 2, 1], [0, 0, 1]]

    References:
        Paper 000, section 5.1.
    """
    check_integer("num", num, 1)
    # In NumPy, because the numbers of examples are shapes, which have to be concrete.
    sizes, starts = np.minimum(np.asarray(groups.sizes, np.int64), num), np.asarray(groups.starts)
    places = np.concatenate([start + np.arange(size) for start, size in zip(starts, sizes, strict=True)])
    indices, domain_ids = as_ids("groups.order", groups.order)[places], _repeated_ids(sizes)
    # The key is taken all the same, so that this source can stand in for one that draws.
    return lambda key: (indices, domain_ids)


def whole_hold_out(held_out: Partition) -> Source:
    """Makes a source of all held-out examples, the same at every update.

    Every update uses the same examples, so only the first update's estimate is independent of how the weights moved
    before. In our trials this source is nevertheless much better than the paper's split where data are few.

    Args:
        held_out: concrete :class:`mixjax.samplers.Partition`, the second part of :func:`mixjax.samplers.split`.

    Returns:
        A source that ignores its key.

    Example:
        >>> import jax, mixjax
        >>> _, held_out = mixjax.samplers.split(mixjax.samplers.partition([0, 0, 0, 0]), 0.5)
        >>> mixjax.probes.whole_hold_out(held_out)(jax.random.key(0))[0].tolist()
        [2, 3]
    """
    return fixed_points(held_out, int(np.max(held_out.sizes)))


def hold_out_draws(held_out: Partition, total_sizes: ArrayLike, rho: float, rounds: int) -> Source:
    """Makes a source that draws ``M |S_d|`` held-out examples at each update, ``M = (1 - rho) T₀ / T``.

    The paper's algorithm 1 does exactly this.

    Args:
        held_out: concrete :class:`mixjax.samplers.Partition` of the held-out examples, ``R_d = S_d \\ S_d^train``.
        total_sizes: int ``[D]``, the domains' sizes ``|S_d|`` with the training part.
        rho: the training part's share of the examples, in (0, 1).
        rounds: the number of updates ``T / T₀``, at least 1.

    Returns:
        A source that draws ``max(1, round(M |S_d|))`` examples of domain d, but at most all that are held out. Within
        an update they are drawn without replacement. Different updates draw independently: as the algorithm is written,
        ``R_d`` does not shrink and the examples do not join the training set.

    Raises:
        ValueError: ``rho`` is outside (0, 1), or ``rounds`` is below 1.

    Example:
        >>> import jax, mixjax
        >>> _, held_out = mixjax.samplers.split(mixjax.samplers.partition([0] * 100), 0.8)
        >>> source = mixjax.probes.hold_out_draws(held_out, [100], rho=0.8, rounds=5)
        >>> source(jax.random.key(0))[0].shape
        (4,)

    References:
        Paper 000, algorithm 1, lines 1, 9 and 10. With ``rho = 1 - 1/sqrt|S|`` (theorem A.4) this is a handful of
        examples for ``|S| <= 1000``, and the weights are then noise.
    """
    if not 0.0 < rho < 1.0 or rounds < 1:
        raise ValueError(f"need rho in (0, 1) and rounds >= 1, got {rho} and {rounds}.")
    numbers = np.maximum(np.round((1.0 - rho) / rounds * np.asarray(total_sizes)).astype(int), 1)
    # More draws than held-out examples would run into a second epoch and repeat some.
    domain_ids = _repeated_ids(np.minimum(numbers, np.asarray(held_out.sizes)))

    def source(key):
        # Each update starts an epoch of its own, and within an epoch no example comes twice.
        indices, _ = without_replacement(start_epochs(key, len(numbers)), held_out, domain_ids)
        return indices, domain_ids

    return source


def fresh_draws(groups: Partition, num: int) -> Source:
    """Makes a source that draws ``num`` examples of each domain with replacement, anew at each update.

    Args:
        groups: :class:`mixjax.samplers.Partition` of the examples.
        num: the number of draws of each domain, ``B_e``, at least 1.

    Returns:
        A source. Its examples are the ``B'_d`` of algorithm 2.

    Raises:
        ValueError: ``num`` is below 1.

    Example:
        >>> import jax, mixjax
        >>> source = mixjax.probes.fresh_draws(mixjax.samplers.partition([0, 1, 1]), num=4)
        >>> source(jax.random.key(0))[1].tolist()
        [0, 0, 0, 0, 1, 1, 1, 1]

    References:
        Paper 000, algorithm 2, line 8.
    """
    check_integer("num", num, 1)
    domain_ids = _repeated_ids([num] * np.size(groups.sizes))
    return lambda key: (with_replacement(key, groups, domain_ids), domain_ids)


def _repeated_ids(numbers: Sequence[int] | np.ndarray) -> jax.Array:
    """Returns domain ids with id ``d`` repeated ``numbers[d]`` times."""
    return jnp.asarray(np.repeat(np.arange(len(numbers)), numbers), jnp.int32)
