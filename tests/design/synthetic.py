"""Swarms whose law is known, from which noise hides it."""

import numpy as np

from mixjax.design.laws import LAWS


def parameters(num_domains, num_metrics, rng):
    """Draws a log-linear law for each metric; each domain's own share lowers its loss most."""
    logs = rng.normal(0.2, 0.4, (num_metrics, num_domains))
    logs[np.arange(num_metrics), np.arange(num_metrics) % num_domains] -= 3.0
    return np.concatenate([rng.uniform(1.0, 3.0, (num_metrics, 1)), logs], axis=1)


def swarm(num_domains, num_metrics, num_runs, noise, seed, repeats=1):
    """Returns parameters, mixtures and losses of a log-linear law with normal noise."""
    rng = np.random.default_rng(seed)
    params = parameters(num_domains, num_metrics, rng)
    mixtures = rng.dirichlet(np.full(num_domains, 0.7), num_runs).repeat(repeats, axis=0)
    losses = LAWS["log_linear"].predict(params, mixtures).T
    return params, mixtures, losses + noise * rng.normal(size=losses.shape)
