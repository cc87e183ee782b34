"""Implements RegMix's regression: trees that LightGBM grows one after the other, each for what the others left."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mixjax.checks import requires
from mixjax.design.laws.surface import Estimate, Smoother, Surface
from mixjax.design.laws.units import tamed

__all__ = ["boosted_trees"]

_LEAST_RUNS = 10  # in a leaf
_TREES = {"num_iterations": 300, "learning_rate": 0.03, "num_leaves": 31, "min_data_in_leaf": _LEAST_RUNS}
_PARTS = 10  # into which the mixtures are split, for the errors on left-out runs
_MOST_RESAMPLES = 100  # each takes new trees for all metrics
_FENCE = 2.0  # in ranges of the middle half of the losses, for the first fit
_FAR_FENCE = 15.0
_HUBER = 1.345  # in standard deviations
_MAD = 1.4826  # median absolute deviation -> standard deviation, for normal noise


def boosted_trees() -> Smoother:
    r"""Makes the regression of RegMix, gradient boosting of trees by LightGBM, each metric alone.

    .. math:: L_m(r) = \mu_m + \eta \sum_k T_{mk}(r)

    The trees :math:`T_k` are constant on boxes of shares. They take losses of any shape, need many runs, and cannot
    predict a loss below all measured ones. Proposals are therefore searched among random mixtures, as RegMix does.

    The resamples are those of a wild bootstrap with the errors on left-out runs, one part in ten at a time. At most 100
    are made. Trees cannot tell noise from what they get wrong themselves: an error on a left-out run is added to each
    resample, and the interval for a mean is that for a new run.

    Returns:
        A :class:`mixjax.design.laws.Smoother`. It needs LightGBM (extra ``lightgbm``).

    References:
        Liu et al., "RegMix: data mixture as regression for language model pre-training", 2024, section 3. The authors
        grow 1,000 trees at a rate of 0.01 by squared errors and stop early on runs kept apart; here are 300 at 0.03,
        all of them, by Huber's loss. Ke et al., "LightGBM: a highly efficient gradient boosting decision tree", 2017.
    """
    return Smoother(
        name="lightgbm",
        equation="loss = sum of boosted trees",
        num_parameters=lambda num_domains: 2 * _LEAST_RUNS,
        estimate=_estimate,
        surface=_surface,
    )


def _estimate(mixtures, losses, groups, num, rng):
    parts = rng.permutation(groups.max() + 1)[groups] % _PARTS
    num = min(num, _MOST_RESAMPLES)
    targets = tamed(losses.T, _FAR_FENCE)

    def left_out(values, delta):
        """Returns the error on each run by trees that have not seen its mixture, ``[M, n]``."""
        errors = np.empty_like(values)
        for part in np.unique(parts):
            out = parts == part
            trees = _grown(mixtures[~out], values[:, ~out], delta)
            errors[:, out] = targets[:, out] - _predict(trees, mixtures[out])
        return errors

    first = left_out(tamed(losses.T, _FENCE), np.full(len(targets), np.inf))
    delta = np.maximum(_HUBER * _MAD * np.median(np.abs(first), axis=1), 1e-7 * np.ptp(targets, axis=1))
    # A run that diverged says nothing of the errors that others may have.
    errors = tamed(left_out(targets, delta), _FENCE)
    params = _grown(mixtures, targets, delta)
    fitted = _predict(params, mixtures)
    signs = rng.choice([-1.0, 1.0], (num, groups.max() + 1))[:, groups]
    drawn = fitted + signs[:, None, :] * errors
    resampled = _grown(mixtures, drawn.reshape(-1, len(mixtures)), np.tile(delta, num))
    resampled = resampled.reshape(num, len(targets), 1)
    # The same run for all metrics: their errors go together.
    for trees, run in zip(resampled, rng.integers(len(mixtures), size=num), strict=True):
        for metric, error in zip(trees[:, 0], errors[:, run], strict=True):
            metric.least += error
    return Estimate(params, resampled, np.zeros_like(errors))


def _grown(mixtures, targets, delta):
    """Grows trees for several columns of losses ``[K, n]``; returns ``[K, 1]``, an object each."""
    with requires("lightgbm", "the law 'lightgbm'"):
        import lightgbm

    settings = _TREES | {"verbosity": -1, "num_threads": 1, "deterministic": True, "seed": 0}
    least, scale = targets.min(axis=1), np.ptp(targets, axis=1)
    scale = np.where(scale > 0, scale, 1.0)

    def grow(k):
        if np.isinf(delta[k]):
            loss = {"objective": "regression"}
        else:
            loss = {"objective": "huber", "alpha": delta[k] / scale[k]}
        data = lightgbm.Dataset(mixtures, (targets[k] - least[k]) / scale[k], params={"verbosity": -1})
        return _Trees(lightgbm.train(settings | loss, data), least[k], scale[k])

    # LightGBM's own threads wait for each other at each of these small trees.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        grown = list(pool.map(grow, range(len(targets))))
    found = np.empty((len(grown), 1), object)
    found[:, 0] = grown
    return found


class _Trees:
    """Predicts losses in their own unit; the trees are fitted to losses between 0 and 1."""

    def __init__(self, booster, least, scale):
        self.booster, self.least, self.scale = booster, least, scale

    def __call__(self, mixtures):
        return self.least + self.scale * self.booster.predict(mixtures, num_threads=1)


def _predict(params, mixtures):
    found = np.stack([trees(mixtures) for trees in params.reshape(-1)])
    return found.reshape(*params.shape[:-1], len(mixtures))


def _slopes(params, mixture):
    values = np.stack([_predict(each, at[None])[:, 0] for each, at in zip(params, mixture, strict=True)])
    return values, np.zeros((*values.shape, mixture.shape[1]))


def _surface(runs, params, resampled):
    return Surface(_predict, _slopes, False, False, params, resampled)
