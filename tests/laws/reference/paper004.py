"""Paper 004, "Distributionally Robust Deep Learning using Hardness Weighted Sampling": its equations in float64.

The paper's prior is uniform, ``p_train = 1 / n``; here it is any ``pi`` on the simplex. ``v`` are the losses, as in
section 11. Lambda is found by bisection or from a sort, where mixjax runs Newton.
"""

import numpy as np


def _f64(x):
    return np.asarray(x, np.float64)


def phi(z, divergence, scale=1.0):
    """Example 3.1's phi, and Pearson's, whose constant the paper leaves open; definition 2.1 holds for both."""
    z = _f64(z)
    if divergence == "kl":
        return scale * (np.where(z > 0, z * np.log(np.where(z > 0, z, 1.0)), 0.0) - z + 1.0)
    return scale * (z - 1.0) ** 2


def strong_convexity(n, divergence, scale=1.0):
    """Definition 2.1's rho on [0, n]: the least second derivative. KL's is 1 / z, hence 1 / n, not 1."""
    return scale / n if divergence == "kl" else 2.0 * scale


def eq2(q, pi, divergence, scale=1.0):
    """The divergence D_phi(q || pi)."""
    return np.sum(_f64(pi) * phi(_f64(q) / _f64(pi), divergence, scale))


def eq3(q, v, pi, beta, divergence, scale=1.0):
    """What R maximises over q."""
    return _f64(q) @ _f64(v) - eq2(q, pi, divergence, scale) / beta


def eq12(v, pi, beta):
    """KL: the softmax, with the prior in it."""
    v = _f64(v)
    scores = _f64(pi) * np.exp(beta * (v - v.max()))
    return scores / scores.sum()


def eq34(v, pi, beta, scale=1.0):
    """Pearson: ``pi ReLU((phi*)'(beta (v + lambda)))``, ``(phi*)'(s) = 1 + s / (2 scale)``, by bisection on lambda."""
    v, pi = _f64(v), _f64(pi)
    low, high = -v.max(), -(pi @ v) / pi.sum()  # at the first every term is at most 1, at the second the mean is
    for _ in range(200):
        mid = 0.5 * (low + high)
        total = np.sum(pi * np.maximum(1.0 + beta * (v + mid) / (2.0 * scale), 0.0))
        low, high = (low, mid) if total >= 1.0 else (mid, high)
    p = pi * np.maximum(1.0 + beta * (v + high) / (2.0 * scale), 0.0)
    return p / p.sum()


def eq34_by_sorting(v, pi, beta, scale=1.0):
    """The same from the sorted losses: the largest support on which all terms are positive."""
    v, pi = _f64(v), _f64(pi)
    order = np.argsort(-v)
    mass, mean = np.cumsum(pi[order]), np.cumsum((pi * v)[order])
    lambdas = ((1.0 - mass) * 2.0 * scale / beta - mean) / mass
    size = np.flatnonzero(1.0 + beta * (v[order] + lambdas) / (2.0 * scale) > 0)[-1]
    p = pi * np.maximum(1.0 + beta * (v + lambdas[size]) / (2.0 * scale), 0.0)
    return p / p.sum()


def cvar(v, pi, level):
    """Weights of the mean over the worst ``level``: fill up with ``pi / level`` from the largest loss down."""
    pi = _f64(pi)
    _, group = np.unique(-_f64(v), return_inverse=True)  # 0 is the hardest
    mass = np.bincount(group, pi)
    taken = np.diff(np.minimum(np.cumsum(mass) / level, 1.0), prepend=0.0)
    return pi * (taken / mass)[group]


def group_dro(c, losses, step_size, adjustment=0.0):
    """Sagawa et al. (2020), algorithm 1, lines 5 and 6, with all groups moving at once."""
    scores = _f64(c) * np.exp(step_size * (_f64(losses) + adjustment))
    return scores / scores.sum()
