"""Implements the data mixing law: a loss is a constant plus an exponential of a linear function of the shares."""

from __future__ import annotations

import numpy as np

from mixjax.design.laws.law import Law
from mixjax.design.laws.units import best_of, units_of
from mixjax.design.solver import Link, least_squares

__all__ = ["log_linear"]

# All in units of the range of a metric's losses, above the least of them.
_FLOORS = (0.02, 0.3, 2.0)  # starts: how far below the least loss the constant is
_BOUNDS = (-10.0, 1.0)  # of the constant
_EXPONENTS = (-1e3, 30.0)  # of the logarithm of what a domain alone would add
_LARGEST = 60.0  # an exponent beyond it is cut, so that a step that went too far gives no overflow


def log_linear() -> Law:
    r"""Makes the data mixing law of Ye et al., the exponential of a linear function of the mixture.

    .. math:: L_m(r) = c_m + \exp\Bigl(\sum_d t_{md}\, r_d\Bigr)

    The paper writes :math:`c_m + k_m \exp(\sum_d t_{md} r_d)`. Since the shares add up to 1, the factor :math:`k_m` is
    a shift of all :math:`t_{md}` and no parameter of its own. The parameters are ``(c, t_1, ..., t_D)``. The loss is a
    convex function of the mixture.

    The fit starts from several constants. For each of them, the logarithm of the rest is a linear regression.

    Returns:
        A :class:`mixjax.design.laws.Law`.

    References:
        Ye et al., "Data mixing laws: optimizing data mixtures by predicting language modeling performance", 2024,
        equation 7. The authors minimise Huber's loss with a fixed threshold; here it follows from the residuals.
    """
    return Law(
        name="log_linear",
        equation="loss = c + exp(sum_d t_d share_d)",
        num_parameters=lambda num_domains: num_domains + 1,
        fit=_fit,
        predict=_predict,
        jacobian=_jacobian,
        slopes=_slopes,
        is_convex=True,
    )


def _fit(mixtures, losses, delta, start):
    targets, limits, least, scale = units_of(losses, delta)
    size = mixtures.shape[1]
    bounds = np.r_[_BOUNDS[0], np.full(size, _EXPONENTS[0])], np.r_[_BOUNDS[1], np.full(size, _EXPONENTS[1])]
    if start is not None:
        scaled = np.concatenate([(start[:, :1] - least) / scale, start[:, 1:] - np.log(scale)], axis=1)
        found, _ = least_squares(_link, mixtures, targets, scaled, bounds, limits, tolerance=1e-4, damping=1e-8)
    else:
        starts = [_start(mixtures, targets, floor) for floor in _FLOORS]
        found = best_of([least_squares(_link, mixtures, targets, first, bounds, limits) for first in starts])
    return np.concatenate([least + scale * found[:, :1], found[:, 1:] + np.log(scale)], axis=1)


def _start(mixtures, targets, floor):
    """Fits the logarithm of the losses above a constant, each row weighted by its derivative."""
    above = targets + floor
    weights = np.square(above)
    gram = np.einsum("kn,nd,ne->kde", weights, mixtures, mixtures, optimize=True)
    gram += 1e-9 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(mixtures.shape[1])
    right = (weights * np.log(above)) @ mixtures
    logs = np.linalg.solve(gram, right[..., None])[..., 0]
    return np.concatenate([np.full((len(logs), 1), -floor), logs], axis=1)


def _link(index, others):
    exponential = np.exp(np.minimum(index, _LARGEST))
    return Link(others + exponential, exponential, np.ones((len(index), 1, index.shape[1])))


def _predict(params, mixtures):
    return params[..., :1] + np.exp(np.minimum(params[..., 1:] @ mixtures.T, _LARGEST))


def _jacobian(params, mixtures):
    exponential = np.exp(params[:, 1:] @ mixtures.T)
    return np.concatenate([np.ones((*exponential.shape, 1)), exponential[..., None] * mixtures], axis=-1)


def _slopes(params, mixture):
    logs = params[..., 1:]
    exponential = np.exp(np.minimum(np.einsum("bmd,bd->bm", logs, mixture), _LARGEST))
    return params[..., 0] + exponential, exponential[..., None] * logs
