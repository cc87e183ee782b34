"""Implements laws in tokens and mixture, fitted to runs of several budgets: size and mixture extrapolate together."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mixjax.design.laws.law import Law
from mixjax.design.laws.log_linear import log_linear
from mixjax.design.laws.power import power, start_power
from mixjax.design.laws.units import best_of, units_of
from mixjax.design.solver import Link, least_squares

__all__ = ["TokenLaw", "log_linear_in_tokens", "power_in_tokens"]

# In units of the range of a metric's losses, above the least of them: how far the constant is below.
_FLOORS = (0.05, 0.5)
_EXPONENTS = (0.3, 0.8)
_SPEEDS = (0.1, 0.4)  # starts of the exponent of tokens
_FREEDOM = 5.0  # the factor by which the exponent of the mixture may leave its start
_CONSTANTS = (-10.0, 1.0)
_MOST_SPEED = 5.0
_HIGHEST = 2.0  # the largest loss of a domain alone
_TINY = 1e-200  # below every effective share; guards logarithms of what rounding makes negative


class TokenLaw(NamedTuple):
    r"""Holds the functions of a law in tokens, which at any one budget is a law of the mixture alone.

    Its inputs are ``[n, D + 1]``: the shares, and the logarithm of each run's tokens over a reference.

    Attributes:
        name: the name of the law of the mixture alone, as ``law=`` takes it.
        equation: the law in a line, for a report.
        plain: the law of the mixture alone.
        num_parameters: takes the number of columns of the inputs; returns the number of parameters of a metric.
        fit: takes inputs, losses ``[K, n]``, Huber's thresholds ``[K]`` and parameters to start from, ``[K, P]`` or
            None; returns parameters ``[K, P]``.
        predict: takes parameters ``[..., P]`` and inputs ``[m, D + 1]``; returns losses ``[..., m]``.
        jacobian: takes parameters ``[K, P]`` and inputs; returns the derivatives by the parameters, ``[K, n, P]``.
        at: takes parameters ``[..., P]`` and the logarithm of tokens over the reference; returns the parameters of the
            law of the mixture alone, at this budget.
    """

    name: str
    equation: str
    plain: Law
    num_parameters: Callable[[int], int]
    fit: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]
    predict: Callable[[np.ndarray, np.ndarray], np.ndarray]
    jacobian: Callable[[np.ndarray, np.ndarray], np.ndarray]
    at: Callable[[np.ndarray, float], np.ndarray]


def log_linear_in_tokens() -> TokenLaw:
    r"""Makes the data mixing law with a power of the tokens.

    .. math:: L_m(r, N) = c_m + \Bigl(\frac{N}{N_0}\Bigr)^{-\beta_m} \exp\Bigl(\sum_d t_{md}\, r_d\Bigr)

    The logarithm of the tokens is one more input of the exponential, and the fit is that of the law without tokens. Its
    parameters are ``(c, t_1, ..., t_D, -beta)``. At a budget N the factor is a shift of all :math:`t_{md}`.

    A loss falls to :math:`c_m` with tokens as fast for all mixtures. Which mixture is best for one metric is hence the
    same at all budgets; for several metrics it is not, since their :math:`\beta_m` differ.

    Returns:
        A :class:`TokenLaw`.

    References:
        Ye et al., "Data mixing laws: optimizing data mixtures by predicting language modeling performance", 2024. The
        authors fit a power law of the steps to each mixture alone, and the mixing law to what these extrapolate
        to (section 4, "nested"); here both are fitted at once, with one exponent for all mixtures.
    """
    law = log_linear()

    def fit(inputs, losses, delta, start):
        # The fit takes the unit of the losses out of all coefficients, since shares sum to one; the tokens are none.
        unit = np.log(units_of(losses, delta).scale)
        if start is not None:
            start = start.copy()
            start[:, -1:] += unit
        found = law.fit(inputs, losses, delta, start)
        found[:, -1:] -= unit
        return found

    def at(params, log_tokens):
        return np.concatenate([params[..., :1], params[..., 1:-1] + params[..., -1:] * log_tokens], axis=-1)

    return TokenLaw(
        name="log_linear",
        equation="loss = c + (tokens / reference)^-beta exp(sum_d t_d share_d)",
        plain=law,
        num_parameters=law.num_parameters,
        fit=fit,
        predict=law.predict,
        jacobian=law.jacobian,
        at=at,
    )


def power_in_tokens() -> TokenLaw:
    r"""Makes the power law of effective data with a power of the tokens.

    .. math:: L_m(r, N) = c_m + \Bigl(\frac{N}{N_0}\Bigr)^{-\beta_m} \Bigl(\sum_d t_{md}\, r_d\Bigr)^{-\alpha_m},
        \qquad t_{md} \ge 0,\; \beta_m \ge 0

    With :math:`\beta = \alpha` it is a power of the effective tokens :math:`N \sum_d t_d r_d`. The two exponents differ
    where a domain's rows repeat, or where the model is too small for more of them. The parameters are
    ``(c, alpha, beta, t_1, ..., t_D)``. At a budget N the factor is one of all :math:`t_{md}`, by
    :math:`(N / N_0)^{\beta / \alpha}`.

    Returns:
        A :class:`TokenLaw`.

    References:
        Ge et al., "BiMix: bivariate data mixing law for language model pretraining", 2024, has a product of a power of
        a domain's own share and a power of the steps with a constant; here every domain adds to the share. Shukor et
        al., "Scaling laws for optimal data mixtures", 2025, add terms of tokens, model size and mixture instead, with
        an exponent for each domain; in their joint law the mixture changes the term of the tokens too.
    """
    return TokenLaw(
        name="power",
        equation="loss = c + (tokens / reference)^-beta (sum_d t_d share_d)^-alpha, t_d >= 0",
        plain=power(),
        num_parameters=lambda num_columns: num_columns + 2,
        fit=_fit,
        predict=_predict,
        jacobian=_jacobian,
        at=_at,
    )


def _fit(inputs, losses, delta, start):
    targets, limits, least, scale = units_of(losses, delta)
    mixtures, link = inputs[:, :-1], _link_at(inputs[:, -1])
    if start is not None:
        first = start.copy()
        first[:, :1] = (start[:, :1] - least) / scale
        first[:, 3:] *= scale ** (1.0 / start[:, 1:2])
        found, _ = least_squares(link, mixtures, targets, first, _bounds(first), limits, tolerance=1e-4, damping=1e-8)
    else:
        tries = []
        for floor in _FLOORS:
            for exponent in _EXPONENTS:
                for speed in _SPEEDS:
                    first = _start(inputs, targets, floor, exponent, speed)
                    bounds = _bounds(first)
                    tries.append(least_squares(link, mixtures, targets, first, bounds, limits, tolerance=1e-7))
        found = best_of(tries)
    found = found.copy()
    found[:, :1] = least + scale * found[:, :1]
    found[:, 3:] *= scale ** (-1.0 / found[:, 1:2])
    return found


def _bounds(start):
    low, high = np.empty_like(start), np.full_like(start, np.inf)
    low[:, 0], high[:, 0] = _CONSTANTS
    low[:, 1], high[:, 1] = start[:, 1] / _FREEDOM, start[:, 1] * _FREEDOM
    low[:, 2], high[:, 2] = 0.0, _MOST_SPEED
    low[:, 3:] = (_HIGHEST - start[:, :1]) ** (-1.0 / start[:, 1:2])
    return low, high


def _start(inputs, targets, floor, exponent, speed):
    """Fits the effective share to the losses above a constant, as they would be at the reference budget."""
    above = (targets + floor) * np.exp(speed * inputs[:, -1])
    found = start_power(inputs[:, :-1], above - floor, floor, exponent)
    return np.insert(found, 2, speed, axis=1)


def _link_at(log_tokens):
    def link(index, others):
        index = np.maximum(index, _TINY)
        logs = np.log(index)
        exponent, speed = others[:, 1:2], others[:, 2:3]
        value = np.exp(-exponent * logs - speed * log_tokens)
        derivatives = np.stack([np.ones_like(value), -logs * value, -log_tokens * value], axis=1)
        return Link(others[:, :1] + value, -exponent * value / index, derivatives)

    return link


def _predict(params, inputs):
    index = np.maximum(params[..., 3:] @ inputs[:, :-1].T, _TINY)
    return params[..., :1] + index ** -params[..., 1:2] * np.exp(-params[..., 2:3] * inputs[:, -1])


def _jacobian(params, inputs):
    at = _link_at(inputs[:, -1])(params[:, 3:] @ inputs[:, :-1].T, params[:, :3])
    return np.concatenate([at.others.transpose(0, 2, 1), at.slope[..., None] * inputs[:, :-1]], axis=-1)


def _at(params, log_tokens):
    factor = np.exp(params[..., 2:3] * log_tokens / params[..., 1:2])
    return np.concatenate([params[..., :2], params[..., 3:] * factor], axis=-1)
