"""Implements a Gaussian process with noise: losses are a smooth function of the square roots of the shares."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from mixjax.checks import requires
from mixjax.design.laws.surface import Estimate, Smoother, Surface
from mixjax.design.laws.units import tamed
from mixjax.design.solver import one_blas_thread

__all__ = ["gaussian_process"]

_FEATURES = 256  # random waves of which a draw of the process is made, away from the runs
_MOST_RUNS = 256  # runs from which lengths and noise are learnt: the time grows with the cube of their number
_FENCE = 2.0  # in ranges of the middle half of the losses, for the first fit
_OUTLIER = 4.0  # standard deviations of a left-out run beyond which its loss pulls no harder
_PARTS = 5  # into which the runs are split, to see how often intervals hold left-out runs
_NORMAL = 1.645  # quantile of the normal distribution, for 90 % intervals
_MAD = 1.4826  # median absolute deviation -> standard deviation, for normal noise
_LEAST_SHARE = 1e-8  # guards the derivative of the square root at a share of zero


class _Kernel(NamedTuple):
    """Holds what one metric's process has learnt, beside its weights.

    Attributes:
        mean: the loss far from all runs.
        height: the standard deviation of the process.
        lengths: ``[D]``, how far one has to go along each axis for the loss to change.
        noise: the variance of a run's noise.
    """

    mean: float
    height: float
    lengths: np.ndarray
    noise: float

    def between(self, first, second):
        """Returns the covariance of the process between two sets of points, ``[m, n]``."""
        first, second = first / self.lengths, second / self.lengths
        squares = np.square(first).sum(axis=1)[:, None] + np.square(second).sum(axis=1) - 2.0 * first @ second.T
        return self.height**2 * np.exp(-0.5 * np.maximum(squares, 0.0))


def gaussian_process() -> Smoother:
    r"""Makes a Gaussian process regression with noise, each metric alone.

    .. math:: L_m(r) = \mu_m + g_m(\sqrt r) + \text{noise}, \qquad
        \mathrm{cov}(g_m(x), g_m(x')) = h_m^2 \exp\Bigl(-\tfrac12 \sum_d (x_d - x'_d)^2 / \ell_{md}^2\Bigr)

    The height :math:`h`, a length :math:`\ell_d` for each domain and the variance of the noise are those of the largest
    marginal likelihood. Square roots of the shares spread the small shares out, where losses are steep.

    A resample is a draw of the process given the losses. The intervals hence grow where runs are far, which no
    bootstrap of a formula knows about. They are stretched until nine in ten left-out runs are within, in five parts.

    A run whose loss is further than four standard deviations from what the others predict pulls no harder than at four.

    Returns:
        A :class:`mixjax.design.laws.Smoother`. It needs scikit-learn (extra ``experiments``).

    References:
        Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, sections 2.2 and 5.4.2 (left-out runs);
        the likelihood is maximised by scikit-learn's ``GaussianProcessRegressor``. Wilson et al., "Efficiently sampling
        functions from Gaussian process posteriors", 2020, equation 10, for the draws.
    """
    return Smoother(
        name="gaussian_process",
        equation="loss = a Gaussian process of the square roots of the shares, and noise",
        num_parameters=lambda num_domains: num_domains,
        estimate=_estimate,
        surface=_surface,
    )


def _estimate(mixtures, losses, groups, num, rng):
    points = np.sqrt(mixtures)
    waves, phases = _waves(mixtures.shape[1])
    params, resampled, noises = [], [], []
    for metric in losses.T:
        # Threads of these small products wait for each other.
        with one_blas_thread():
            kernel, values, stretch = _learnt(points, metric, rng)
        covariance = kernel.between(points, points) + kernel.noise * np.eye(len(points))
        inverse = np.linalg.inv(covariance)
        weights = inverse @ (values - kernel.mean)
        head = np.r_[kernel.mean, kernel.height, kernel.lengths]
        params.append(np.r_[head, weights, np.zeros(_FEATURES)])
        # A draw is one of the prior, moved by what it gets wrong about the runs.
        drawn = rng.normal(size=(num, _FEATURES))
        prior = drawn @ _features(points, kernel.height, kernel.lengths, waves, phases).T
        noise = np.sqrt(kernel.noise) * rng.normal(size=prior.shape)
        moved = (values - kernel.mean - prior - noise) @ inverse
        weights_drawn = weights + stretch * (moved - weights)
        resampled.append(
            np.concatenate([np.broadcast_to(head, (num, len(head))), weights_drawn, stretch * drawn], axis=1)
        )
        # What is left of the losses is noise times a matrix, whose rows tell how much of it.
        left = kernel.noise * np.sqrt(np.square(inverse).sum(axis=1))
        noises.append(stretch * kernel.noise * weights / np.maximum(left, 0.05))
    return Estimate(np.stack(params), np.stack(resampled, axis=1), np.stack(noises))


def _learnt(points, losses, rng):
    """Learns the kernel of a metric.

    Returns:
        The kernel; the losses, those of outliers moved towards the others; and the factor of the intervals.
    """
    values = tamed(losses[None], _FENCE)[0]
    kernel: Any = None
    for _ in range(2):
        kernel = _most_likely(points, values, kernel, rng)
        for _ in range(3):
            inverse = np.linalg.inv(kernel.between(points, points) + kernel.noise * np.eye(len(points)))
            spread = 1.0 / np.sqrt(np.diag(inverse))
            others = values - (inverse @ (values - kernel.mean)) * np.square(spread)
            apart = (losses - others) / spread
            limit = _OUTLIER * max(_MAD * float(np.median(np.abs(apart))), 1.0)
            values = others + spread * np.clip(apart, -limit, limit)
        if (np.abs(apart) <= limit).all() and np.array_equal(losses, tamed(losses[None], _FENCE)[0]):
            # No loss was moved but by rounding, and the kernel is that of the losses as they are.
            values = losses
            break
    return kernel, values, _stretch(points, values, kernel, rng)


def _stretch(points, values, kernel, rng):
    """Returns by how much intervals must grow to hold left-out runs as often as they say, at least 1.

    The lengths are those that fit best, and the process does not know that they might be others. Here they are learnt
    without the runs that are left out. Noise hides how far the process itself is off; it is stretched at least as a
    regression is for its parameters.
    """
    parts = rng.permutation(len(points)) % _PARTS
    apart = np.empty(len(points))
    for part in range(_PARTS):
        out = parts == part
        learnt = _most_likely(points[~out], values[~out], kernel, rng)
        inverse = np.linalg.inv(learnt.between(points[~out], points[~out]) + learnt.noise * np.eye((~out).sum()))
        across = learnt.between(points[out], points[~out])
        mean = learnt.mean + across @ inverse @ (values[~out] - learnt.mean)
        spread = learnt.height**2 + learnt.noise - np.einsum("ij,jk,ik->i", across, inverse, across)
        apart[out] = np.abs(values[out] - mean) / np.sqrt(np.maximum(spread, learnt.noise))
    spare = max(len(points) - points.shape[1] - 3, 1)
    least = np.sqrt(len(points) / spare) * (1.0 + (_NORMAL**2 + 1.0) / (4.0 * spare))
    return max(float(np.quantile(apart, 0.9)) / _NORMAL, float(least))


def _most_likely(points, values, start, rng):
    """Maximises the marginal likelihood; returns the kernel."""
    with requires("experiments", "the law 'gaussian_process'"):
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    if len(points) > _MOST_RUNS:
        chosen = rng.permutation(len(points))[:_MOST_RUNS]
        points, values = points[chosen], values[chosen]
    mean, scale = float(values.mean()), float(values.std())
    lengths = np.ones(points.shape[1]) if start is None else np.clip(start.lengths, 0.02, 90.0)
    # Any: a length for each dimension is allowed, and pyright takes the default, a number, for the type.
    by_domain: Any = lengths
    kernel = ConstantKernel(1.0, (1e-2, 1e4)) * RBF(by_domain, (1e-2, 1e2)) + WhiteKernel(1e-2, (1e-7, 1.0))
    with warnings.catch_warnings():
        # A domain that does not matter has an infinite length, which is at its bound.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found: Any = GaussianProcessRegressor(kernel).fit(points, (values - mean) / scale).kernel_
    # In the order of the kernel's expression, as logarithms.
    height, *lengths, noise = np.exp(found.theta)
    return _Kernel(mean, scale * float(np.sqrt(height)), np.array(lengths), scale**2 * float(noise))


def _waves(num_domains):
    """Draws the directions and phases of the waves of which draws are made: the same ones whenever they are needed."""
    rng = np.random.default_rng(num_domains)
    return rng.normal(size=(_FEATURES, num_domains)), rng.uniform(0.0, 2.0 * np.pi, _FEATURES)


def _features(points, height, lengths, waves, phases):
    return height * np.sqrt(2.0 / _FEATURES) * np.cos(points / lengths @ waves.T + phases)


def _surface(runs, params, resampled):
    """Returns the losses as functions of the mixture, for the runs' mixtures ``[n, D]``."""
    size = runs.shape[1]
    points, (waves, phases) = np.sqrt(runs), _waves(size)

    def split(params):
        """Returns the kernel of parameters ``[P]``, and where its weights and its waves begin."""
        return _Kernel(params[0], params[1], params[2 : 2 + size], 0.0), 2 + size, 2 + size + len(points)

    def predict(params, mixtures):
        flat = params.reshape(-1, params.shape[-1])
        found, places = np.empty((len(flat), len(mixtures))), np.sqrt(mixtures)
        # Parameters of one metric share their kernel.
        _, first, which = np.unique(flat[:, : 2 + size], axis=0, return_index=True, return_inverse=True)
        for number, i in enumerate(first):
            kernel, at, _ = split(flat[i])
            mine = which.reshape(-1) == number
            basis = np.concatenate(
                [kernel.between(places, points), _features(places, kernel.height, kernel.lengths, waves, phases)],
                axis=1,
            )
            found[mine] = kernel.mean + flat[mine, at:] @ basis.T
        return found.reshape(*params.shape[:-1], len(mixtures))

    def slopes(params, mixture):
        places = np.sqrt(np.maximum(mixture, _LEAST_SHARE))
        values, derivatives = np.empty(params.shape[:2]), np.empty((*params.shape[:2], size))
        for m in range(params.shape[1]):
            kernel, at, end = split(params[0, m])
            weights, drawn = params[:, m, at:end], params[:, m, end:]
            near = weights * kernel.between(places, points)
            angles = places / kernel.lengths @ waves.T + phases
            wave = kernel.height * np.sqrt(2.0 / _FEATURES) * drawn
            values[:, m] = kernel.mean + near.sum(axis=1) + (wave * np.cos(angles)).sum(axis=1)
            to_runs = near @ points - near.sum(axis=1, keepdims=True) * places
            moved = to_runs / np.square(kernel.lengths) - (wave * np.sin(angles)) @ waves / kernel.lengths
            derivatives[:, m] = moved / (2.0 * places)
        return values, derivatives

    return Surface(predict, slopes, False, True, params, resampled)
