"""Paper 000, "Sampling and Loss Weights in Multi-Domain Training": its equations, one function each, in float64.

The paper's notation is kept: ``pi`` are the population proportions, ``w`` the loss weights (the prior divided out), and
the weight of domain ``i`` in the objective is ``pi_i w_i / sum_j pi_j w_j``, which mixjax calls ``c``.
"""

import numpy as np


def _f64(x):
    return np.asarray(x, np.float64)


def loss_weights(pi, w):
    """``pi_i w_i / sum_j pi_j w_j``: the weights of algorithm 1, line 5."""
    return _f64(pi) * _f64(w) / np.sum(_f64(pi) * _f64(w))


def eq9(variances):
    """Corollary 3.2: ``w_i`` proportional to ``1 / sigma_i^2``."""
    return 1.0 / _f64(variances)


def eq10(x, y, theta, domain):
    """FGLS: the mean squared residual of each domain, and the ``w`` that are proportional to its inverse."""
    variances = []
    for i in range(max(domain) + 1):
        residuals = [(np.dot(theta, x[j]) - y[j]) ** 2 for j in range(len(y)) if domain[j] == i]
        variances.append(sum(residuals) / len(residuals))
    return np.array(variances), 1.0 / np.array(variances)


def algorithm1_line11(w, losses, gamma):
    """One-shot FGLS: ``w_i <- (1 - gamma) w_i + gamma / (mean held-out loss of i)``."""
    return (1.0 - gamma) * _f64(w) + gamma / _f64(losses)


def gap(pi, w, losses):
    """``G(t) = sum_j pi_j (1 - w_j) L_j``."""
    return np.sum(_f64(pi) * (1.0 - _f64(w)) * _f64(losses))


def eq12(w, pi, losses, variances, gamma1, gamma2, normalised):
    """ERMA: the right-hand side itself, or that side rescaled to ``sum_i pi_i w_i = 1``."""
    w, pi, losses, variances = _f64(w), _f64(pi), _f64(losses), _f64(variances)
    new = w * np.exp(gamma1 * pi * gap(pi, w, losses) * losses - gamma2 * pi * w * variances)
    return new / np.sum(pi * new) if normalised else new


def eq11_bound(w, pi, losses, variances, constant, validation_size):
    """The bound of theorem 3.4 with ``|V_i| = pi_i |V|``."""
    w, pi, losses, variances = _f64(w), _f64(pi), _f64(losses), _f64(variances)
    spread = np.sum(pi**2 * w**2 / (pi * validation_size) * variances)
    return 2.0 * np.sum(pi * (1.0 - w) * losses) ** 2 + constant * spread


def eq14(pi, w, v, b):
    """Variance of the gradient estimate with ``b_i`` examples of domain ``i``; domains of weight zero need none."""
    total = 0.0
    for pi_i, w_i, v_i, b_i in zip(_f64(pi), _f64(w), _f64(v), _f64(b), strict=True):
        if pi_i * w_i * v_i > 0:
            total += pi_i**2 * w_i**2 / b_i * v_i**2
    return total


def eq15(gradients):
    """``v_i^2``: the mean squared distance of a domain's gradients ``[n, ...]`` from their mean (divisor ``n``)."""
    flat = _f64(gradients).reshape(len(gradients), -1)
    return np.mean(np.sum((flat - flat.mean(axis=0)) ** 2, axis=1))


def eq16(pi, w, v):
    """Variance-aware sampling, normalised as in algorithm 2, line 15."""
    b = _f64(pi) * _f64(w) * _f64(v)
    return b / b.sum()


def algorithm1_line5(pi, w, gradients):
    """The combined gradient; ``gradients`` is one array ``[n_i, ...]`` of per-example gradients per domain."""
    pi, w = _f64(pi), _f64(w)
    total = 0.0
    for i, g in enumerate(gradients):
        total = total + w[i] * pi[i] / len(g) * np.sum(_f64(g), axis=0)
    return total / np.sum(w * pi)
