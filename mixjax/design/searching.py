"""Searches the best mixture among random ones, for laws that have no slopes to follow."""

from __future__ import annotations

import numpy as np

from mixjax.design.simplex import Bounds, project

__all__ = ["mean_of_best", "random_mixtures"]

_TRIED = 4000
_BEST = 32  # mixtures of which the mean is taken
_SPREADS = (1.0, 8.0, 64.0)  # sums of the Dirichlet distribution's parameters, from wide to narrow


def random_mixtures(mixtures: np.ndarray, bounds: Bounds, seed: int) -> np.ndarray:
    """Draws mixtures as the runs had them, near them and between them, within bounds.

    Args:
        mixtures: ``[n, D]``, those of the runs.
        bounds: the least and the largest share of each domain.
        seed: seed of the draws.

    Returns:
        ``[m, D]``: the runs' own first, then draws of Dirichlet distributions around the mean of two of them.
    """
    rng = np.random.default_rng([seed, 4])
    first, second = rng.integers(len(mixtures), size=(2, _TRIED))
    centres = 0.5 * (mixtures[first] + mixtures[second])
    spread = rng.choice(_SPREADS, _TRIED)[:, None] * mixtures.shape[1]
    # Gamma variables over their sum are Dirichlet's; tiny parameters may all give zero.
    gammas = rng.gamma(spread * centres + 0.05) + 1e-300
    return project(np.concatenate([mixtures, gammas / gammas.sum(axis=1, keepdims=True)]), bounds)


def mean_of_best(mixtures: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Averages the mixtures of the least values.

    Trees are flat on boxes, and the least of many predictions is noise. RegMix averages the best of its random mixtures
    too.

    Args:
        mixtures: ``[m, D]``.
        values: ``[m]``.

    Returns:
        ``[D]``.

    References:
        Liu et al., "RegMix: data mixture as regression for language model pre-training", 2024, section 3.3.
    """
    return mixtures[np.argsort(values, kind="stable")[:_BEST]].mean(axis=0)
