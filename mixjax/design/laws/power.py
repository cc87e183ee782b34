"""Implements the power law of effective data: every domain's rows count for a metric by a factor of their own."""

from __future__ import annotations

import numpy as np

from mixjax.design.laws.law import Law
from mixjax.design.laws.units import best_of, units_of
from mixjax.design.solver import Link, least_squares

__all__ = ["power", "start_power"]

# In units of the range of a metric's losses, above the least of them: how far the constant is below.
_FLOORS = (0.05, 1.0)
_EXPONENTS = (0.15, 0.4, 1.0)
_FREEDOM = 1.8  # the factor by which an exponent may leave its start, so that each start searches a part of its own
# The same where the start is a fit. A bound that stops some resamples would make the intervals too narrow.
_WIDE_FREEDOM = 5.0
_CONSTANTS = (-10.0, 1.0)
# The largest loss of a domain alone. A power of a share of zero is infinite, and no run has told how high it really is.
_HIGHEST = 2.0
_TINY = 1e-200  # below every effective share; guards logarithms of what rounding makes negative


def power() -> Law:
    r"""Makes a power law in the effective share of data, to which each domain adds by a factor of its own.

    .. math:: L_m(r) = c_m + \Bigl(\sum_d t_{md}\, r_d\Bigr)^{-\alpha_m}, \qquad t_{md} \ge 0

    A loss falls as a power of the data that help it. At a fixed number of tokens these are proportional to the shares,
    and the number is part of the factors :math:`t_{md}`, which say how well a domain transfers to a metric. Unlike the
    log-linear law it is steepest where the helpful domains are all but absent. The parameters are
    ``(c, alpha, t_1, ..., t_D)``. The loss is a convex function of the mixture.

    Returns:
        A :class:`mixjax.design.laws.Law`.

    References:
        Hernandez et al., "Scaling laws for transfer", 2021, for effective data; Hestness et al., "Deep learning scaling
        is predictable, empirically", 2017, for the power law with a constant.
    """
    return Law(
        name="power",
        equation="loss = c + (sum_d t_d share_d)^-alpha, t_d >= 0",
        num_parameters=lambda num_domains: num_domains + 2,
        fit=_fit,
        predict=_predict,
        jacobian=_jacobian,
        slopes=_slopes,
        is_convex=True,
    )


def _fit(mixtures, losses, delta, start):
    targets, limits, least, scale = units_of(losses, delta)
    if start is not None:
        first = start.copy()
        first[:, :1] = (start[:, :1] - least) / scale
        first[:, 2:] *= scale ** (1.0 / start[:, 1:2])
        found, _ = least_squares(
            _link, mixtures, targets, first, _bounds(first, _WIDE_FREEDOM), limits, tolerance=1e-4, damping=1e-8
        )
    else:
        tries = []
        for floor in _FLOORS:
            for exponent in _EXPONENTS:
                first = start_power(mixtures, targets, floor, exponent)
                tries.append(
                    least_squares(
                        _link,
                        mixtures,
                        targets,
                        first,
                        _bounds(first, _FREEDOM),
                        limits,
                        tolerance=1e-6,
                        max_steps=40,
                    )
                )
        found = best_of(tries)
    found = found.copy()
    found[:, :1] = least + scale * found[:, :1]
    found[:, 2:] *= scale ** (-1.0 / found[:, 1:2])
    return found


def _bounds(start, freedom):
    """Returns bounds around a start: its exponent is near, and no domain alone has a loss that is far too high."""
    low, high = np.empty_like(start), np.full_like(start, np.inf)
    low[:, 0], high[:, 0] = _CONSTANTS
    low[:, 1], high[:, 1] = start[:, 1] / freedom, start[:, 1] * freedom
    low[:, 2:] = (_HIGHEST - start[:, :1]) ** (-1.0 / start[:, 1:2])
    return low, high


def start_power(mixtures, targets, floor, exponent):
    """Fits the effective share, a power of the losses above a constant, each row weighted by its derivative."""
    above = targets + floor
    share = above ** (-1.0 / exponent)
    weights = np.square(above / share)
    gram = np.einsum("kn,nd,ne->kde", weights, mixtures, mixtures, optimize=True)
    gram += 1e-9 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(mixtures.shape[1])
    factors = np.linalg.solve(gram, ((weights * share) @ mixtures)[..., None])[..., 0]
    # A factor of zero would be held at its bound from the first step on.
    factors = np.maximum(factors, 1.5 * (_HIGHEST + floor) ** (-1.0 / exponent))
    return np.concatenate([np.full((len(factors), 1), -floor), np.full((len(factors), 1), exponent), factors], axis=1)


def _link(index, others):
    index = np.maximum(index, _TINY)
    logs = np.log(index)
    exponent = others[:, 1:]
    value = np.exp(-exponent * logs)
    ones = np.ones_like(value)
    return Link(others[:, :1] + value, -exponent * value / index, np.stack([ones, -logs * value], axis=1))


def _predict(params, mixtures):
    index = np.maximum(params[..., 2:] @ mixtures.T, _TINY)
    return params[..., :1] + index ** -params[..., 1:2]


def _jacobian(params, mixtures):
    at = _link(params[:, 2:] @ mixtures.T, params[:, :2])
    return np.concatenate([at.others.transpose(0, 2, 1), at.slope[..., None] * mixtures], axis=-1)


def _slopes(params, mixture):
    factors, exponent = params[..., 2:], params[..., 1]
    index = np.maximum(np.einsum("bmd,bd->bm", factors, mixture), _TINY)
    value = index**-exponent
    return params[..., 0] + value, (-exponent * value / index)[..., None] * factors
