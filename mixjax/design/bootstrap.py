"""Draws losses as other seeds could have given them, from which a law is fitted again: the wild bootstrap over runs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mixjax.checks import requires
from mixjax.design.laws.law import Law

__all__ = ["Point", "fit_point", "redrawn_losses"]

# In standard deviations; Huber's estimate then has 95 % of the efficiency of least squares for normal noise.
_HUBER = 1.345
_MAD = 1.4826  # median absolute deviation -> standard deviation, for normal noise


class Point(NamedTuple):
    """Holds the fit of a law to all runs.

    Attributes:
        params: ``[M, P]``.
        fitted: ``[M, n]``, the predictions for the runs.
        residuals: ``[M, n]``, standardised: with the variance of a new run's noise.
        delta: ``[M]``, Huber's thresholds.
        factor: ``[M]``, by which deviations are stretched for the degrees of freedom.
    """

    params: np.ndarray
    fitted: np.ndarray
    residuals: np.ndarray
    delta: np.ndarray
    factor: np.ndarray


def fit_point(law: Law, mixtures: np.ndarray, losses: np.ndarray, groups: np.ndarray) -> Point:
    r"""Fits a law to the losses, and standardises what it leaves.

    Huber's threshold is 1.345 times the noise, which is measured by the median of the absolute residuals: first those
    of least squares, then those of Huber's fit.

    Args:
        law: the law.
        mixtures: ``[n, D]``.
        losses: ``[n, M]``.
        groups: ``[n]``, equal for runs of one mixture.

    Returns:
        The fit. Its residuals of a mixture with s runs and leverage h, a run, have a mean that is divided by
        :math:`\sqrt{1 - s h}`: the fit follows its own runs, and what is left of them is too small.

    Raises:
        ImportError: scipy is missing (extra ``experiments``).
    """
    with requires("experiments", "mixjax.design"):
        from scipy.special import ndtri, stdtrit

    targets = np.ascontiguousarray(losses.T)
    num_runs, num_params = len(mixtures), law.num_parameters(mixtures.shape[1])
    free = num_runs - num_params
    params = law.fit(mixtures, targets, np.full(len(targets), np.inf), None)
    for _ in range(3):
        residuals = targets - law.predict(params, mixtures)
        scale = _MAD * np.median(np.abs(residuals), axis=1) * np.sqrt(num_runs / free)
        # Losses without noise have residuals of rounding, at which a threshold would stop every step.
        delta = np.maximum(_HUBER * scale, 1e-7 * np.ptp(targets, axis=1))
        params = law.fit(mixtures, targets, delta, params)
    fitted = law.predict(params, mixtures)
    residuals = targets - fitted
    basis = np.linalg.qr(law.jacobian(params, mixtures))[0]
    leverage = np.square(basis).sum(axis=-1)
    num_groups = groups.max() + 1
    sizes = np.bincount(groups)
    means = np.stack([np.bincount(groups, row) for row in residuals]) / sizes
    levers = np.stack([np.bincount(groups, row) for row in leverage])
    grown = means * (1.0 / np.sqrt(np.maximum(1.0 - levers, 0.05)) - 1.0)
    inside = (np.abs(residuals) <= delta[:, None]).mean(axis=1)
    # Student's t for as many degrees of freedom as there are mixtures to spare, and Huber's correction of the variance
    # of his estimate for the share of residuals that are clipped.
    spare = max(num_groups - num_params, 1)
    factor = stdtrit(spare, 0.95) / ndtri(0.95)
    factor = factor * (1.0 + num_params / num_runs * (1.0 - inside) / np.maximum(inside, 0.5))
    return Point(params, fitted, residuals + grown[:, groups], delta, factor)


def redrawn_losses(point: Point, groups: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    r"""Draws losses: the predictions plus each mixture's residuals, with a random sign a mixture.

    .. math:: y^*_i = \hat f(r_i) + \varepsilon_{g(i)}\, e_i, \qquad \varepsilon_g = \pm 1

    All metrics of a run, and all runs of a mixture, share the sign. Runs of one mixture are drawn together because the
    law's own error is the same for them: as single draws they would pass it off as noise that averages out. Rows are
    not drawn with replacement, since a swarm's mixtures are chosen and not random, and a swarm of few runs a parameter
    would often lose the runs that a parameter hangs on.

    Args:
        point: the fit.
        groups: ``[n]``, equal for runs of one mixture.
        num: how often.
        rng: draws the signs.

    Returns:
        ``[num, M, n]``.

    References:
        Wu, "Jackknife, bootstrap and other resampling methods in regression analysis", Annals of Statistics 14, 1986,
        section 7; the signs are Liu's, 1988.
    """
    signs = rng.choice([-1.0, 1.0], (num, groups.max() + 1))[:, groups]
    stretched = point.factor[:, None] * point.residuals
    return point.fitted + signs[:, None, :] * stretched
