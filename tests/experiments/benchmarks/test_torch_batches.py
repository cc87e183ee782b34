"""PyTorch's seeds as one batch, checked against its runs one by one."""

import numpy as np
import pytest

from experiments.benchmarks import figure_1, pytorch, torch_batches
from experiments.loss_and_sampling_weights import linear


@pytest.mark.parametrize("step", ["by hand", "vmap"])
def test_seeds_at_once_are_the_runs_one_by_one(step):
    torch = pytest.importorskip("torch")
    config, _ = figure_1.settings(quick=True)
    sets = [pytorch.generate(config, seed) for seed in range(2)]
    data = tuple(torch.cat(parts) for parts in zip(*sets, strict=True))
    draws = torch_batches.uniforms(config, 3)
    for method in linear.METHODS:
        found = torch_batches.train(config, method, data, draws, step)
        for seed in range(3):
            own = tuple(part[:, seed] for part in draws)
            expected = pytorch.train(config, method, sets[seed % 2], own, autograd=False)
            for name, values in expected.items():
                np.testing.assert_allclose(found[name][seed], values, rtol=1e-4, atol=1e-6, err_msg=name)


def test_counts_are_those_of_one_seed():
    torch = pytest.importorskip("torch")
    weights = torch.tensor([[0.5, 0.5], [0.98, 0.02], [0.3, 0.7]])
    expected = [pytorch.allocate(row, 16) for row in weights.tolist()]
    assert torch_batches.allocate(weights, 16).tolist() == expected
