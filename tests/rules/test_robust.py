"""Tests the robust loss and its weights under transformations, and their errors; values are in `test_divergences`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.rules import robust_loss, robust_weights

PRIOR = np.float32([0.5, 0.3, 0.2])


def test_robust_loss_works_under_jit_vmap_and_grad_with_traced_beta():
    losses, prior = jnp.array([0.3, 1.0, 2.0]), jnp.asarray(PRIOR)
    betas = jnp.array([0.0, 0.5, 2.0, jnp.inf])
    for divergence in ("kl", "chi2", "cvar"):
        grads = jax.jit(jax.vmap(lambda b, d=divergence: jax.grad(robust_loss)(losses, prior, b, d)))(betas)
        for grad, beta in zip(grads, betas, strict=True):
            np.testing.assert_allclose(grad, robust_weights(losses, prior, beta, divergence), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("losses", "prior"), [([1.0, 2.0], [1.0]), (1.0, 1.0), ([[1.0]], [[1.0]])])
def test_shapes_of_losses_and_prior_must_match(losses, prior):
    with pytest.raises(ValueError, match=r"losses and prior must both be \[n\]"):
        robust_weights(losses, prior, 1.0)
    with pytest.raises(ValueError, match="prior must be finite"):
        robust_weights([1.0, 2.0], [0.5, -0.5], 1.0)


@pytest.mark.parametrize("divergence", ["kl", "chi2", "cvar"])
@pytest.mark.parametrize("scale", [1e-30, 3e38])
def test_a_prior_of_any_scale_is_normalised(divergence, scale):
    losses, prior = np.float32([0.3, 1.0, 2.0]), np.float32([1.0, 0.5, 1.0])
    want = robust_weights(losses, prior, 0.7, divergence)
    np.testing.assert_allclose(robust_weights(losses, prior * np.float32(scale), 0.7, divergence), want, rtol=1e-5)
    assert np.isfinite(robust_loss(losses, prior * np.float32(scale), 0.7, divergence))
