"""The benchmark of norms of flax modules: every side runs, and they agree."""

import chex
import jax
import numpy as np
import pytest
from flax import nnx

from experiments.benchmarks import module_norms

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("index", range(3))
def test_the_sides_agree(index):
    task = module_norms.tasks(quick=True)[index]
    alone, by_factors, direct = (
        side(nnx.state(task.model, nnx.Param), task.batch) for side in module_norms.passes(task).values()
    )
    np.testing.assert_allclose(by_factors[1], direct[1], rtol=1e-4)
    for grads in (by_factors[0], direct[0]):
        chex.assert_trees_all_close(jax.tree.leaves(grads), jax.tree.leaves(alone), rtol=1e-3, atol=1e-5)
