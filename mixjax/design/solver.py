"""Fits many nonlinear regressions at once: several columns of losses on the same mixtures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

__all__ = ["Link", "huber", "huber_linear", "least_squares", "one_blas_thread"]

# Problems are solved in groups whose arrays have about this many entries, so that they stay in the processor's cache.
_ENTRIES = 300_000


class Link(NamedTuple):
    """Holds a regression function at all rows of many problems, with its derivatives.

    Attributes:
        value: ``[K, n]``, the predictions.
        slope: ``[K, n]``, the derivative by the index ``features @ coefficients``.
        others: ``[K, E, n]``, the derivatives by the other parameters.
    """

    value: np.ndarray
    slope: np.ndarray
    others: np.ndarray


def huber(residuals: np.ndarray, delta: np.ndarray) -> np.ndarray:
    r"""Computes Huber's loss: half the square up to a threshold, and linear beyond.

    .. math:: \rho_\delta(x) = m\,(|x| - m / 2), \qquad m = \min(|x|, \delta)

    Args:
        residuals: ``[K, n]``.
        delta: ``[K]``, the thresholds; ``inf`` gives squares.

    Returns:
        ``[K]``, summed over the rows.

    Example:
        >>> huber(np.array([[1.0, -3.0]]), np.array([2.0])).tolist()
        [4.5]
    """
    size = np.abs(residuals)
    inside = np.minimum(size, delta[:, None])
    return (inside * (size - 0.5 * inside)).sum(axis=1)


def huber_linear(
    features: np.ndarray, targets: np.ndarray, delta: np.ndarray, start: np.ndarray | None = None
) -> np.ndarray:
    r"""Minimises Huber's loss of K linear regressions that share their rows.

    Each step is least squares on the residuals clipped at the threshold, stretched by the share of residuals that are
    not clipped. All steps of all problems share one pseudoinverse:

    .. math:: w \leftarrow w + X^+ \psi / \overline{\psi'}, \qquad \psi = \max(-\delta, \min(y - X w, \delta))

    Args:
        features: ``[n, F]``, of rank F.
        targets: ``[K, n]``.
        delta: ``[K]``, Huber's thresholds; ``inf`` gives least squares.
        start: ``[K, F]``; by default least squares. From a close start two steps are taken, and else up to 100.

    Returns:
        ``[K, F]``.

    References:
        Huber and Ronchetti, "Robust Statistics", 2nd edition, section 7.8.2 (modified residuals).
    """
    inverse = np.linalg.pinv(features)
    if start is None or not np.isfinite(delta).all():
        start = targets @ inverse.T
        if not np.isfinite(delta).any():
            return start
        max_steps = 100
    else:
        max_steps = 2
    found = np.array(start)
    size = max(_ENTRIES // len(features), 1)
    for i in range(0, len(targets), size):
        at = slice(i, i + size)
        limit = delta[at, None]
        for _ in range(max_steps):
            residuals = targets[at] - found[at] @ features.T
            inside = (np.abs(residuals) <= limit).mean(axis=1, keepdims=True)
            step = np.clip(residuals, -limit, limit) @ inverse.T / np.maximum(inside, 0.5)
            found[at] += step
            if np.abs(step).max() <= 1e-9 * np.abs(found[at]).max():
                break
    return found


def least_squares(
    link: Callable[[np.ndarray, np.ndarray], Link],
    features: np.ndarray,
    targets: np.ndarray,
    start: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray],
    delta: np.ndarray,
    *,
    tolerance: float = 1e-9,
    damping: float = 1e-3,
    max_steps: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Minimises Huber's loss of K nonlinear regressions that share their rows, each from its own start.

    .. math:: \min_{a_k, w_k} \sum_i \rho_{\delta_k}(y_{ki} - f(x_i \cdot w_k;\, a_k))

    The steps are those of Levenberg and Marquardt for the residuals clipped at the threshold,
    :math:`\psi = \max(-\delta, \min(y - f, \delta))`:

    .. math:: (J^T J + \lambda\, \mathrm{diag}(J^T J))\, s = J^T \psi

    The index :math:`x \cdot w` makes this fast. Of the Jacobians only the slopes differ between the problems, so that
    all matrices :math:`J^T J` are one product of the squared slopes with the products of each two features.

    Args:
        link: takes the indices ``[K, n]`` and the other parameters ``[K, E]``; returns the function and its
            derivatives.
        features: ``[n, F]``.
        targets: ``[K, n]``.
        start: ``[K, E + F]``, the other parameters first.
        bounds: from below and from above, ``[E + F]`` or ``[K, E + F]`` each; infinite where there is none.
        delta: ``[K]``, Huber's thresholds; ``inf`` gives least squares.
        tolerance: a problem is solved when a step lowers its loss by less than this part of it.
        damping: the first :math:`\lambda`; small where the start is close.
        max_steps: the largest number of steps.

    Returns:
        The parameters ``[K, E + F]``, and Huber's loss ``[K]`` at them.

    References:
        Huber and Ronchetti, "Robust Statistics", 2nd edition, section 7.8, for the clipped residuals.
    """
    first, second = np.triu_indices(features.shape[1])
    products = features[:, first] * features[:, second]
    low, high = (np.broadcast_to(bound, start.shape) for bound in bounds)
    size = max(_ENTRIES // len(features), 1)
    parts = [slice(i, i + size) for i in range(0, len(targets), size)]

    def solve(at):
        group = _Group(
            link=link,
            features=features,
            products=products,
            bounds=(low[at], high[at]),
            targets=targets[at],
            delta=delta[at],
        )
        return group.solve(start[at], tolerance, damping, max_steps)

    with one_blas_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(solve, parts))
    return np.concatenate([params for params, _ in found]), np.concatenate([loss for _, loss in found])


def one_blas_thread() -> contextlib.AbstractContextManager:
    """Keeps matrix products to one thread each, for work that is already spread over the processor's cores.

    Threads of a product wait for each other in a loop. Where other processes keep the cores busy, small products take
    ten times as long by that.

    Returns:
        A context; it changes nothing where threadpoolctl, which scikit-learn brings along, is missing.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:
        return contextlib.nullcontext()
    return threadpool_limits(limits=1, user_api="blas")


class _Group(NamedTuple):
    """Holds some of the problems of :func:`least_squares`, with what they share, and solves them."""

    link: Callable[[np.ndarray, np.ndarray], Link]
    features: np.ndarray
    products: np.ndarray
    bounds: tuple[np.ndarray, np.ndarray]
    targets: np.ndarray
    delta: np.ndarray

    def solve(self, start, tolerance, damping, max_steps):
        """Returns the parameters of the problems, and Huber's loss at them."""
        low, high = self.bounds
        params = np.clip(start, low, high)
        loss = np.full(len(params), np.inf)
        solved = np.zeros(len(params), bool)
        lam = np.full(len(params), damping)
        system = self.system(params, np.arange(len(params)))
        loss[:] = system[0]
        for _ in range(max_steps):
            going = np.flatnonzero(~solved)
            if not len(going):
                break
            _, gradient, gram = (part[going] for part in system)
            step = _damped_step(gradient, gram, lam[going], params[going], low[going], high[going])
            tried = np.clip(params[going] + step, low[going], high[going])
            new = self.system(tried, going)
            # A tie is taken, so that a problem without residuals ends; NaN is not.
            better = new[0] <= loss[going]
            gain = loss[going] - new[0]
            solved[going] = (better & (gain <= tolerance * loss[going])) | (lam[going] > 1e9)
            lam[going] = np.where(better, np.maximum(lam[going] / 10.0, 1e-12), lam[going] * 10.0)
            taken = going[better]
            params[taken], loss[taken] = tried[better], new[0][better]
            for old, fresh in zip(system[1:], new[1:], strict=True):
                old[taken] = fresh[better]
        return params, loss

    def system(self, params, which):
        """Returns Huber's loss, ``J^T psi`` and ``J^T J`` at the parameters of some problems."""
        num_others = params.shape[1] - self.features.shape[1]
        at = self.link(params[:, num_others:] @ self.features.T, params[:, :num_others])
        residuals = self.targets[which] - at.value
        delta = self.delta[which]
        clipped = np.clip(residuals, -delta[:, None], delta[:, None])
        loss = np.einsum("kn,kn->k", clipped, residuals - 0.5 * clipped)
        gradient = np.concatenate(
            [np.einsum("ken,kn->ke", at.others, clipped), (clipped * at.slope) @ self.features], axis=1
        )
        gram = np.empty((len(params), params.shape[1], params.shape[1]))
        first, second = np.triu_indices(self.features.shape[1])
        block = np.square(at.slope) @ self.products
        gram[:, num_others + first, num_others + second] = block
        gram[:, num_others + second, num_others + first] = block
        gram[:, :num_others, :num_others] = np.einsum("ken,kfn->kef", at.others, at.others)
        for i in range(num_others):
            mixed = (at.others[:, i] * at.slope) @ self.features
            gram[:, i, num_others:] = mixed
            gram[:, num_others:, i] = mixed
        return loss, gradient, gram


def _damped_step(gradient, gram, lam, params, low, high):
    """Solves for the step; a parameter at a bound that the gradient pushes against stays there."""
    held = ((params <= low) & (gradient < 0)) | ((params >= high) & (gradient > 0))
    free = ~held
    gram = gram * (free[:, :, None] & free[:, None, :])
    diagonal = np.einsum("kii->ki", gram).copy()
    # A parameter that moves no prediction would make the matrix singular.
    least = 1e-13 * diagonal.max(axis=1, keepdims=True) + np.finfo(np.float64).tiny
    every = np.arange(gram.shape[1])
    gram[:, every, every] += lam[:, None] * diagonal + least + held
    return np.linalg.solve(gram, (gradient * free)[..., None])[..., 0]
