"""Results of the budgets' experiments in which the best T follows a law by construction."""

import numpy as np
import xarray

from experiments.fewer_weight_updates import budgets

BUDGETS, GRID = 2 ** np.arange(8, 17), budgets.Budgets(longest=2048).horizons


def constructed(excess, budget=BUDGETS, horizon=GRID, eta=1.0, seeds=20):
    """A data set with an excess of ``excess(N, T)``, times a factor of each instance's own."""
    values = excess(budget[:, None], horizon[None, :].astype(float))
    values = np.exp(0.2 * np.random.default_rng(0).normal(size=(seeds, 1, 1))) * values
    dims = ("seed", "budget", "horizon")
    variables = {metric: (dims, values) for metric in budgets.METRICS}
    variables["rate"] = (dims[:2], np.full(values.shape[:2], 1 - 0.2 * eta))
    variables["eta"] = (("seed", "horizon"), np.full((seeds, len(horizon)), eta))
    return xarray.Dataset(variables, {"seed": np.arange(seeds), "budget": budget, "horizon": horizon})


def decaying(n, T, eta=1.0, q=1.0):
    """Excess with few updates ``(T / N)^q``, and with few steps ``(1 - η μ)^(2 T)``."""
    return (T / n) ** q + (1 - 0.2 * eta) ** (2 * T)


def along(law):
    """Excess that is least at ``T = law(N)``, and falls like ``T / N`` there."""
    return lambda n, T: law(n) / n * (0.1 + np.log(T / law(n)) ** 2)


def verdicts(claims):
    return {claim.name: claim.holds for claim in claims}
