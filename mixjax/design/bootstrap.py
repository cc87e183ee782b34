"""Draws losses as other seeds could have given them, from which a law is fitted again: the wild bootstrap over runs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mixjax.design.laws.law import Law
from mixjax.design.laws.surface import Estimate
from mixjax.design.laws.tokens import TokenLaw
from mixjax.design.laws.units import tamed

__all__ = ["Point", "fit_point", "redrawn_losses", "wild_bootstrap"]

# In standard deviations; Huber's estimate then has 95 % of the efficiency of least squares for normal noise.
_HUBER = 1.345
# In ranges of the middle half of the losses, beyond it.
_FENCE = 15.0
_FIRST_FENCE = 2.0
_NORMAL = 1.645  # quantile of the normal distribution, for 90 % intervals
_MAD = 1.4826  # median absolute deviation -> standard deviation, for normal noise


class Point(NamedTuple):
    """Holds the fit of a law to all runs.

    Attributes:
        params: ``[M, P]``, the parameters of each metric's law.
        fitted: ``[M, n]``, the predictions for the runs.
        noise: ``[M, n]``, the residuals with the variance of a new run's noise.
        jackknife: ``[M, n]``, the residuals from fits that have not seen the mixture, stretched for the degrees of
            freedom.
        delta: ``[M]``, Huber's thresholds.
    """

    params: np.ndarray
    fitted: np.ndarray
    noise: np.ndarray
    jackknife: np.ndarray
    delta: np.ndarray


def fit_point(law: Law | TokenLaw, mixtures: np.ndarray, losses: np.ndarray, groups: np.ndarray) -> Point:
    r"""Fits a law to the losses, and corrects the residuals for what the fit has made of them.

    Huber's threshold is 1.345 times the noise, which is measured by the median of the absolute residuals of the
    fit before.

    A fit follows its own runs, and what it leaves of them is too small. With h the leverage of a run and s the number
    of runs of its mixture, the mean residual of the mixture is divided by :math:`\sqrt{1 - s h}` to have the variance
    of noise, and by :math:`1 - s h` to be that of a fit without the mixture. The latter are stretched as the 95 %
    quantile of Student's t is, for as many degrees of freedom as there are mixtures to spare.

    Args:
        law: the law.
        mixtures: ``[n, D]``; for a law in tokens with the logarithm of the budget as one more column.
        losses: ``[n, M]``.
        groups: ``[n]``, equal for runs of one mixture.

    Returns:
        The fit.
    """
    targets = tamed(losses.T, _FENCE)
    num_runs, num_params = len(mixtures), law.num_parameters(mixtures.shape[1])
    # The first fit decides into which valley the others go: outliers must not.
    spread = np.median(np.abs(targets - np.median(targets, axis=1, keepdims=True)), axis=1)
    delta = np.where(spread > 0, _HUBER * _MAD * spread, np.inf)
    params = law.fit(mixtures, tamed(losses.T, _FIRST_FENCE), delta, None)
    for _ in range(5):
        residuals = targets - law.predict(params, mixtures)
        scale = _MAD * np.median(np.abs(residuals), axis=1) * np.sqrt(num_runs / (num_runs - num_params))
        # Losses without noise have residuals of rounding, at which a threshold would stop every step.
        delta = np.maximum(_HUBER * scale, 1e-7 * np.ptp(targets, axis=1))
        params = law.fit(mixtures, targets, delta, params)
    fitted = law.predict(params, mixtures)
    residuals = targets - fitted
    basis = np.linalg.qr(law.jacobian(params, mixtures))[0]
    leverage = np.broadcast_to(np.square(basis).sum(axis=-1), fitted.shape)
    means = np.stack([np.bincount(groups, row) for row in residuals]) / np.bincount(groups)
    # A mixture that the fit must go through leaves no residual, whatever its noise.
    left = np.maximum(1.0 - np.stack([np.bincount(groups, row) for row in leverage]), 0.05)
    noise = residuals + (means * (left**-0.5 - 1.0))[:, groups]
    jackknife = residuals + (means * (1.0 / left - 1.0))[:, groups]
    # Student's t has wider quantiles than the normal distribution, by this factor to first order.
    spare = max(len(left[0]) - num_params, 1)
    jackknife = jackknife * (1.0 + (_NORMAL**2 + 1.0) / (4.0 * spare))
    return Point(params=params, fitted=fitted, noise=noise, jackknife=jackknife, delta=delta)


def redrawn_losses(point: Point, groups: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    r"""Draws losses: the predictions plus each mixture's jackknife residuals, with a random sign a mixture.

    .. math:: y^*_i = \hat f(r_i) + \varepsilon_{g(i)}\, e_i, \qquad \varepsilon_g = \pm 1

    All metrics of a run, and all runs of a mixture, share the sign. Runs of one mixture are drawn together because the
    law's own error is the same for them: as single draws they would pass it off as noise that averages out. Rows are
    not drawn with replacement, since a swarm's mixtures are chosen and not random, and a swarm of few runs a parameter
    would often lose the runs that a parameter hangs on.

    Args:
        point: the fit.
        groups: ``[n]``, equal for runs of one mixture.
        num: number of draws.
        rng: the generator that draws the signs.

    Returns:
        ``[num, M, n]``.

    References:
        Wu, "Jackknife, bootstrap and other resampling methods in regression analysis", Annals of Statistics 14, 1986,
        section 7; the signs are Liu's, 1988. MacKinnon and White, 1985, for the jackknife residuals, whose
        intervals are better in small samples.
    """
    signs = rng.choice([-1.0, 1.0], (num, groups.max() + 1))[:, groups]
    return point.fitted + signs[:, None, :] * point.jackknife


def wild_bootstrap(
    law: Law | TokenLaw,
    mixtures: np.ndarray,
    losses: np.ndarray,
    groups: np.ndarray,
    num: int,
    rng: np.random.Generator,
) -> Estimate:
    """Fits a law to the losses, and again to losses as other seeds could have given them.

    Args:
        law: the law.
        mixtures: ``[n, D]``; for a law in tokens with the logarithm of the budget as one more column.
        losses: ``[n, M]``.
        groups: ``[n]``, equal for runs of one mixture.
        num: number of resamples.
        rng: the generator that draws them.

    Returns:
        The fits.
    """
    point = fit_point(law, mixtures, losses, groups)
    drawn = redrawn_losses(point, groups, num, rng)
    # Each resample starts where the fit ended.
    starts = np.broadcast_to(point.params, (num, *point.params.shape)).reshape(-1, point.params.shape[1])
    resampled = law.fit(mixtures, drawn.reshape(-1, drawn.shape[2]), np.tile(point.delta, num), starts)
    return Estimate(point.params, resampled.reshape(num, *point.params.shape), point.noise)
