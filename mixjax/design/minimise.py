"""Minimises many functions over mixtures within bounds at once, by projected gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mixjax.design.simplex import Bounds, project

__all__ = ["minimise"]

_MEMORY = 8  # steps that a function may rise over
_HALVINGS = 30


def minimise(
    function: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    start: np.ndarray,
    bounds: Bounds,
    *,
    tolerance: float = 1e-7,
    max_steps: int = 300,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Minimises B functions by the spectral projected gradient method.

    .. math:: r \leftarrow r + t\,(P(r - s\,\nabla f(r)) - r)

    :math:`P` is the projection to mixtures within bounds, :math:`s` Barzilai and Borwein's step size, and :math:`t`
    is halved until the function is below the largest of its last values.

    Args:
        function: takes mixtures ``[b, D]`` and the numbers of the functions ``[b]``; returns values ``[b]`` and
            gradients ``[b, D]``.
        start: ``[B, D]``, a mixture to start from for each function.
        bounds: the least and the largest share of each domain.
        tolerance: a function is done when a projected step of length 1 moves no share by more than this.
        max_steps: the largest number of steps.

    Returns:
        The mixtures ``[B, D]`` and the values ``[B]``.

    References:
        Birgin, Martínez and Raydan, "Nonmonotone spectral projected gradient methods on convex sets", SIAM Journal on
        Optimization 10, 2000, algorithm 2.2.
    """
    at = project(start, bounds)
    every = np.arange(len(at))
    value, gradient = function(at, every)
    best, best_value = at.copy(), value.copy()
    recent = np.repeat(value[:, None], _MEMORY, axis=1)
    size = 1.0 / np.maximum(np.abs(gradient - gradient.mean(axis=1, keepdims=True)).max(axis=1), 1e-12)
    going = every
    for number in range(max_steps):
        going = going[~_is_done(at[going], gradient[going], size[going], bounds, tolerance)]
        if not len(going):
            break
        here, slope = at[going], gradient[going]
        direction = project(here - size[going, None] * slope, bounds) - here
        descent = (slope * direction).sum(axis=1)
        length, limit = np.ones(len(going)), recent[going].max(axis=1)
        tried, tried_value, tried_gradient = here.copy(), value[going].copy(), slope.copy()
        searching = np.arange(len(going))
        for _ in range(_HALVINGS):
            points = here[searching] + length[searching, None] * direction[searching]
            values, gradients = function(points, going[searching])
            fits = values <= limit[searching] + 1e-4 * length[searching] * descent[searching]
            taken = searching[fits]
            tried[taken], tried_value[taken], tried_gradient[taken] = points[fits], values[fits], gradients[fits]
            searching = searching[~fits]
            if not len(searching):
                break
            length[searching] *= 0.5
        moved, bent = tried - here, tried_gradient - slope
        curvature = (moved * bent).sum(axis=1)
        square = np.square(moved).sum(axis=1)
        flat = curvature <= 1e-300
        size[going] = np.where(flat, 4.0 * size[going], np.clip(square / np.where(flat, 1.0, curvature), 1e-9, 1e9))
        at[going], value[going], gradient[going] = tried, tried_value, tried_gradient
        recent[going, number % _MEMORY] = tried_value
        better = going[tried_value < best_value[going]]
        best[better], best_value[better] = at[better], value[better]
        # A function whose line search found nothing is at the limit of what rounding allows.
        going = np.delete(going, searching)
    return best, best_value


def _is_done(at, gradient, size, bounds, tolerance):
    # The length of the step is that of the last one, so that units of the losses do not matter.
    return np.abs(project(at - size[:, None] * gradient, bounds) - at).max(axis=1) <= tolerance
