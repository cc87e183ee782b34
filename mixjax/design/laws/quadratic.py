"""Implements the quadratic mixture model of Scheffé: every domain and every pair of domains has a coefficient."""

from __future__ import annotations

import numpy as np

from mixjax.design.laws.law import Law
from mixjax.design.solver import huber_linear

__all__ = ["quadratic"]


def quadratic() -> Law:
    r"""Makes the quadratic mixture model of Scheffé.

    .. math:: L_m(r) = \sum_d b_{md}\, r_d + \sum_{d < e} b_{mde}\, r_d r_e

    It holds every quadratic function of the mixture, constants and squares included, since the shares add up to 1. It
    has D (D + 1) / 2 parameters a metric, and may have several minima.

    Returns:
        A :class:`mixjax.design.laws.Law`.

    References:
        Scheffé, "Experiments with mixtures", Journal of the Royal Statistical Society B 20, 1958, equation 2.4.
    """
    return Law(
        name="quadratic",
        equation="loss = sum_d b_d share_d + sum_{d<e} b_de share_d share_e",
        num_parameters=lambda num_domains: num_domains * (num_domains + 1) // 2,
        fit=lambda mixtures, losses, delta, start: huber_linear(_features(mixtures), losses, delta, start),
        predict=lambda params, mixtures: params @ _features(mixtures).T,
        jacobian=lambda params, mixtures: _features(mixtures)[None],
        slopes=_slopes,
        is_convex=False,
    )


def _features(mixtures):
    first, second = np.triu_indices(mixtures.shape[1], k=1)
    return np.concatenate([mixtures, mixtures[:, first] * mixtures[:, second]], axis=1)


def _slopes(params, mixture):
    size = mixture.shape[1]
    first, second = np.triu_indices(size, k=1)
    linear = params[..., :size]
    matrix = np.zeros((*linear.shape, size))
    matrix[..., first, second] = params[..., size:]
    matrix[..., second, first] = params[..., size:]
    crossed = np.einsum("bmde,be->bmd", matrix, mixture)
    values = np.einsum("bmd,bd->bm", linear + 0.5 * crossed, mixture)
    return values, linear + crossed
