"""Weights of the losses: they move the gradient, and not the norms."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.grad_norms import Tape, value_grads_and_norms
from tests.grad_norms.models import (
    MLP,
    MLP_BATCH,
    MODELS,
    ONES,
    UNEVEN,
    B,
    compiled,
    direct,
    every_model,
    measured,
    mlp_losses,
    slope_losses,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_weights_of_zero_everywhere_and_weights_that_are_not_given():
    losses_fn, params, batch = MODELS["mlp"]
    _, grads, norms, _ = measured("mlp", weights=0 * ONES)
    np.testing.assert_allclose(norms, direct("mlp")[2], rtol=1e-4)
    chex.assert_trees_all_equal(grads, jax.tree.map(jnp.zeros_like, params))
    _, grads, _ = compiled(losses_fn, params, batch)
    mean = jax.jit(jax.grad(lambda params: losses_fn(Tape(), params, batch).mean()))(params)
    chex.assert_trees_all_close(grads, mean, rtol=1e-5, atol=1e-6)


@every_model
def test_weights_none_of_which_is_zero(name):
    """The usual branch: above, a weight of zero takes the other one."""
    losses_fn, params, batch = MODELS[name]
    weights = UNEVEN - 0.5
    _, grads, norms, _ = measured(name, weights=weights)
    mean = jax.jit(jax.grad(lambda params: (weights * losses_fn(Tape(), params, batch)).mean()))(params)
    chex.assert_trees_all_close(grads, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norms, direct(name)[2], rtol=1e-4)


def test_weights_too_small_for_the_type_count_as_zero_and_other_small_ones_do_no_harm():
    batch, params = {"a": (jnp.ones((3, 3)), jnp.ones(3))}, {"a": jnp.zeros((3, 1))}
    weights = np.float32([1e-42, 1e-30, 3.0])
    _, grads, norms = jax.jit(functools.partial(value_grads_and_norms, slope_losses))(params, batch, weights=weights)
    np.testing.assert_allclose(norms, [3**0.5] * 3, rtol=1e-6)
    np.testing.assert_allclose(grads["a"], np.ones((3, 1)), rtol=1e-6)
    with jax.enable_x64(True):
        params, batch = jax.tree.map(lambda x: np.asarray(x, np.float64), (params, batch))
        weights = np.array([1e-50, 1e45, 1.0])
        norms = jax.jit(functools.partial(value_grads_and_norms, slope_losses))(params, batch, weights=weights)[2]
        np.testing.assert_allclose(norms, [3**0.5] * 3, rtol=1e-6)


@pytest.mark.parametrize("weights", [np.ones(3), np.ones((B, 1)), 1.0])
def test_weights_must_be_one_per_example(weights):
    with pytest.raises(ValueError, match=r"weights must have one entry per example, shape \(6,\)"):
        value_grads_and_norms(mlp_losses, MLP, MLP_BATCH, weights=weights)
