"""Chooses the mixtures of a swarm: around a prior, evenly over the simplex, or such that they tell most about a law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from mixjax.checks import as_simplex, check_choice, check_integer, check_range, requires
from mixjax.design.laws import LAWS
from mixjax.design.optimal import d_optimal, nominal_jacobian
from mixjax.design.simplex import as_bounds, project
from mixjax.design.solver import one_blas_thread

__all__ = ["swarm", "tempered"]

_STRENGTHS = (0.1, 5.0)  # RegMix's: from nearly one domain alone to near the prior
_TRIES = 2000  # candidates for each mixture that is wanted, before the bounds are called too narrow
# Mixtures from which "d_optimal" chooses, for each that is wanted, and at least.
_POOL, _LEAST_POOL = 10, 1000


def swarm(
    prior: Any,
    num: int,
    *,
    kind: Literal["dirichlet", "sobol", "d_optimal"] = "dirichlet",
    law: str = "log_linear",
    temperature: float = 0.5,
    floor: float = 0.0,
    min_share: Any = None,
    max_share: Any = None,
    repeats: int = 1,
    seed: int = 0,
    domains: Sequence[str] | None = None,
) -> np.ndarray:
    r"""Draws the mixtures at which the small runs of a swarm are trained.

    "dirichlet" draws around the tempered prior, at strengths from 0.1 to 5, evenly on a logarithmic scale:

    .. math:: r \sim \mathrm{Dirichlet}(s\, D\, \tilde\pi), \qquad \tilde\pi \propto \pi^{\tau}, \qquad
              \log s \sim U(\log 0.1, \log 5)

    "sobol" spreads the mixtures evenly over the simplex, whatever the prior: a scrambled Sobol sequence u in D - 1
    dimensions, whose sorted entries cut the unit interval into D shares.

    "d_optimal" takes of many mixtures drawn as above, and the corners of what the bounds allow, those from which the
    parameters of a law are known best: the determinant of their information is largest
    (:func:`mixjax.design.optimal.d_optimal`). For a law that is not linear it is that at nominal parameters, by which
    the loss of each domain is :math:`\exp(-3\, r_d)`. Intervals are then narrow if the law holds. If it does not, they
    are far too narrow: the mixtures are at the edges of the simplex, and do not show how a law fails between them. Take
    it for a law that other runs have confirmed.

    Mixtures outside the bounds are drawn again. Shares below the floor become 0, so that no domain is seen too rarely
    to tell anything, and the others are scaled up.

    Args:
        prior: ``[D]``, the domains' natural shares, such as their sizes.
        num: number of different mixtures, at least 1.
        kind: how the mixtures are chosen.
        law: the name of the law that "d_optimal" is for, one of :data:`mixjax.design.laws.LAWS`.
        temperature: :math:`\tau`, in [0, 1]: 1 keeps the prior and 0 makes it uniform.
        floor: the least share that is not 0, in [0, 1 / D].
        min_share: the least share, a number, ``[D]``, or a mapping of domains to numbers.
        max_share: the largest share, in the same forms.
        repeats: how often each mixture stands in the result, in a row; runs of one mixture tell the noise of a run.
        seed: seed of the draws.
        domains: ``[D]``, the names that the bounds may use; by default "domain_0" and so on.

    Returns:
        float64 ``[num * repeats, D]``. As ``points={"mixture": swarm(...)}`` they are the points of a sweep.

    Raises:
        ValueError: a prior that is none, arguments out of range, bounds that next to no mixture meets, or too few
            mixtures for the law of "d_optimal".
        ImportError: scipy is missing (extra ``experiments``) for "sobol".

    Example:
        >>> swarm([0.7, 0.2, 0.1], 3, max_share=0.9).round(2).tolist()
        [[0.6, 0.05, 0.34], [0.05, 0.87, 0.08], [0.22, 0.5, 0.29]]

    References:
        Liu et al., "RegMix: data mixture as regression for language model pre-training", 2024, and its
        ``mixture_config/synthesize_mixture.py``. The authors multiply the tempered prior by the strength alone; times
        D, a strength of 1 is the uniform distribution on the simplex if the prior is uniform, for any D.
        Atkinson, Donev and Tobias, "Optimum experimental designs, with SAS", 2007, for designs at nominal parameters.
    """
    prior = np.asarray(as_simplex("prior", prior), np.float64)
    size = len(prior)
    names = [f"domain_{d}" for d in range(size)] if domains is None else list(domains)
    if len(names) != size:
        raise ValueError(f"domains must have a name for each of {size} shares of the prior, got {len(names)}.")
    check_integer("num", num, 1)
    check_integer("repeats", repeats, 1)
    check_integer("seed", seed, 0)
    check_choice("kind", kind, ("dirichlet", "sobol", "d_optimal"))
    check_range("temperature", temperature, 0.0, 1.0)
    check_range("floor", floor, 0.0, 1.0 / size)
    bounds = as_bounds(names, min_share, max_share)
    draw = _sobol(size, seed) if kind == "sobol" else _dirichlet(prior, temperature, seed)
    if kind != "d_optimal":
        return _within(draw, num, floor, bounds).repeat(repeats, axis=0)
    check_choice("law", law, tuple(LAWS))
    num_parameters = LAWS[law].num_parameters(size)
    if num <= num_parameters:
        raise ValueError(f"num must be above the {num_parameters} parameters of the law {law!r}, got {num}.")
    if not prior.all():
        raise ValueError(f"prior must be positive for 'd_optimal', got 0 for {names[int(np.argmin(prior))]!r}.")
    corners = project(2.0 * np.eye(size), bounds)
    drawn = _within(draw, max(_POOL * num, _LEAST_POOL), floor, bounds)
    pool = np.concatenate([corners[((corners == 0) | (corners >= floor)).all(axis=1)], drawn])
    # Draws at low strengths are corners, up to rounding.
    pool = pool[np.sort(np.unique(pool.round(6), axis=0, return_index=True)[1])]
    with one_blas_thread():
        chosen = d_optimal(nominal_jacobian(LAWS[law], pool), num)
    return pool[chosen].repeat(repeats, axis=0)


def _within(draw, num, floor, bounds):
    """Draws mixtures until there are enough within the bounds; shares below the floor become 0."""
    kept = np.empty((0, len(bounds.low)))
    for _ in range(_TRIES):
        drawn = draw(max(num, 16))
        drawn = np.where(drawn < floor, 0.0, drawn)
        drawn = drawn / drawn.sum(axis=1, keepdims=True)
        kept = np.concatenate([kept, drawn[bounds.allow(drawn)]])
        if len(kept) >= num:
            return kept[:num]
    raise ValueError(
        f"the bounds leave too little room: of {_TRIES * max(num, 16)} mixtures {len(kept)} were within; widen them."
    )


def tempered(prior: np.ndarray, temperature: float) -> np.ndarray:
    """Flattens a prior ``[D]``: its shares to the power of the temperature, scaled to sum to one."""
    # 0 to the power of 0 is 1, but a domain without prior stays out.
    powers = np.where(prior > 0, np.power(np.maximum(prior, 1e-300), temperature), 0.0)
    return powers / powers.sum()


def _dirichlet(prior, temperature, seed):
    rng = np.random.default_rng(seed)
    centre = tempered(prior, temperature)
    low, high = np.log(_STRENGTHS)

    def draw(num):
        strengths = np.exp(rng.uniform(low, high, (num, 1)))
        # Gammas of shapes near 0 underflow together, and their sum with them: logarithms do not.
        shapes = strengths * len(prior) * centre
        logs = np.full(shapes.shape, -np.inf)
        inside = shapes > 0
        gammas = rng.gamma(shapes[inside] + 1.0)
        logs[inside] = np.log(gammas) + np.log(rng.uniform(size=gammas.shape)) / shapes[inside]
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    return draw


def _sobol(size, seed):
    with requires("experiments", "mixjax.design.swarm"):
        from scipy.stats import qmc

    if size == 1:
        return lambda num: np.ones((num, 1))
    sequence = qmc.Sobol(size - 1, rng=seed)

    def draw(num):
        # A power of two keeps the sequence balanced, and scipy warns of other numbers. random_base2 would also refuse a
        # third draw, whose sum with the two before is no power of two.
        cuts = np.sort(sequence.random(2 ** int(np.ceil(np.log2(num)))), axis=1)
        return np.diff(cuts, axis=1, prepend=0.0, append=1.0)

    return draw
