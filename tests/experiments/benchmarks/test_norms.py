"""Tests that all ways to the gradient norms agree, and that every step trains."""

import chex
import jax
import numpy as np
import pytest

from experiments.benchmarks import norms


@pytest.mark.parametrize("model", norms.models(quick=True), ids=["mlp", "decoder"])
def test_sides_of_the_norm_benchmark_agree(model):
    batch = model.x[:16], model.y[:16]
    found = {name: jax.jit(function)(model.params, batch) for name, function in norms.passes(model).items()}
    grads, lengths = found["gradient and norms, one pass"]
    chex.assert_trees_all_close(grads, found["gradient alone"], rtol=1e-3, atol=1e-6)
    for name in ("norms, vmap(grad) by 16", "norms, vmap(grad)"):
        np.testing.assert_allclose(lengths, found[name], rtol=1e-3)
    assert (found["last layer's norms, forward"] < lengths).all() and (found["last layer's norms, forward"] > 0).all()
    taken = norms.steps(model)
    start = taken.pop("start")
    for name, step in taken.items():
        params, history = jax.jit(step)(start(), jax.random.key(0))
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a != b).any()), params, model.params)), name
        assert bool((history.values != 1).any()) == (name in ("rr", "last"))
