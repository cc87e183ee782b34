"""Chooses mixtures that tell most about the parameters of a law: D-optimal designs, by exchanges."""

from __future__ import annotations

import numpy as np

from mixjax.design.laws.law import Law

__all__ = ["d_optimal", "nominal_jacobian"]

_FALL = 3.0  # of the logarithm of a domain's loss, from no share to all of it
_PASSES = 5
_LEAST = 1e-9  # gain of an exchange


def nominal_jacobian(law: Law, mixtures: np.ndarray) -> np.ndarray:
    r"""Computes how the predictions of a law depend on its parameters, where each domain lowers its own loss.

    A law that is not linear needs parameters before its design is known. They are those that fit the nominal losses

    .. math:: L_d(r) = \exp(-3\, r_d), \qquad d = 1, \dots, D

    Args:
        law: the law.
        mixtures: ``[n, D]``.

    Returns:
        ``[K, n, P]``, with K = D, or 1 where the derivatives do not depend on the parameters.
    """
    losses = np.exp(-_FALL * mixtures.T)
    params = law.fit(mixtures, losses, np.full(len(losses), np.inf), None)
    return law.jacobian(params, mixtures)


def d_optimal(jacobian: np.ndarray, num: int) -> np.ndarray:
    r"""Chooses rows of designs, each at most once, such that the parameters' joint confidence region is small.

    .. math:: \max_S \; \sum_k \log \det \sum_{i \in S} x_{ki} x_{ki}^\top

    Rows are added one by one, each the best for those before it. Then rows are exchanged for others, as long as an
    exchange of one row raises the sum. With A the inverse of the matrix, i a row that leaves and j one that comes, the
    determinant is multiplied by

    .. math:: (1 - x_i^\top A x_i)(1 + x_j^\top A x_j) + (x_i^\top A x_j)^2

    Args:
        jacobian: ``[K, n, P]``, the rows x of K designs with the same n runs.
        num: number of rows, at least P and at most n.

    Returns:
        ``[num]``, numbers of rows.

    References:
        Fedorov, "Theory of optimal experiments", 1972, section 3.3; Cook and Nachtsheim, "A comparison of algorithms
        for constructing exact D-optimal designs", Technometrics 22, 1980, for exchanges row by row.
    """
    # Parameters differ in their units, and determinants do not care.
    rows = jacobian / np.maximum(np.abs(jacobian).max(axis=1, keepdims=True), 1e-300)
    every = np.arange(rows.shape[1])
    # Before there are as many rows as parameters, a little of each direction keeps the inverse finite.
    ridge = 1e-6 * np.eye(rows.shape[2])
    inverse = np.broadcast_to(np.linalg.inv(ridge), (len(rows), *ridge.shape)).copy()
    chosen = []
    for _ in range(num):
        gains = np.log1p(np.einsum("knp,kpq,knq->kn", rows, inverse, rows, optimize=True)).sum(axis=0)
        gains[chosen] = -np.inf
        chosen.append(int(np.argmax(gains)))
        # Recomputed, since updates of an inverse this near to singular lose its digits.
        inverse = _inverse(rows[:, chosen], ridge)
    for _ in range(_PASSES):
        exchanged = False
        for place in range(num):
            out = rows[:, chosen[place]]
            moved = np.einsum("kpq,kq->kp", inverse, out)
            leaving = np.einsum("kp,kp->k", out, moved)[:, None]
            coming = np.einsum("knp,kpq,knq->kn", rows, inverse, rows, optimize=True)
            crossed = np.einsum("knp,kp->kn", rows, moved)
            factors = (1.0 - leaving) * (1.0 + coming) + np.square(crossed)
            gains = np.log(np.maximum(factors, 1e-300)).sum(axis=0)
            gains[chosen] = 0.0
            best = int(every[np.argmax(gains)])
            if gains[best] > _LEAST:
                chosen[place] = best
                inverse = _inverse(rows[:, chosen], ridge)
                exchanged = True
        if not exchanged:
            break
    return np.array(chosen)


def _inverse(rows, ridge):
    return np.linalg.inv(np.einsum("knp,knq->kpq", rows, rows, optimize=True) + ridge)
