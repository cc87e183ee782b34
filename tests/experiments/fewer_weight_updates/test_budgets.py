"""The grid of T, and a tiny run of the experiments over budgets."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import mixjax
from experiments.fewer_weight_updates import budgets, full_gradients, stochastic_gradients


def test_the_grid_of_horizons():
    grid = budgets.Budgets(shortest=3, longest=100).horizons
    assert grid[0] == 3 and grid[-1] == 100 and (np.diff(grid[:17]) == 1).all()
    assert (grid[1:] / grid[:-1])[17:].max() < 1.1
    with pytest.raises(ValueError, match="shortest must be 1 to 20 and longest at least 20, got 1 and 19"):
        budgets.Budgets(longest=19)


def test_a_tiny_run_of_budgets_to_the_end():
    """One run in place of all: compiling is what takes time."""
    config = budgets.Budgets(budgets=(64, 256, 1024), shortest=2, longest=24, sigma=0.5, repeats=2)
    made = stochastic_gradients.stochastic_gradients(config)
    data = mixjax.sweep(made.train, seeds=3, dims=made.dims, coords=made.coords, chunk=3)
    assert all(np.isfinite(data[metric]).all() for metric in (*budgets.METRICS, "rate", "eta"))
    excess = data.mean_weights.mean("seed")
    assert (excess.sel(budget=1024).min() < 0.5 * excess.sel(budget=64).min()) and (data.mean_weights >= 0).all()
    np.testing.assert_allclose(data.rate.sel(budget=1024), 0.8, atol=0.02)  # 1 - η μ
    names = {stochastic_gradients: [*stochastic_gradients.RULES, *stochastic_gradients.FIXED]}
    names[full_gradients] = [*full_gradients.RULES, full_gradients.TOO_LARGE]
    for module, runs in names.items():
        held = data.expand_dims(learning_rate=[1.0]) if module is full_gradients else data
        results = dict.fromkeys(runs, held)
        assert len(module.claims(results)) > 10
        plt.close(module.figure(results))
