"""Modes that look at the last parameters only, against closed forms and the modes that differentiate the steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mixjax.hypergrad import hypergrad
from tests.hypergrad.problems import (
    CENTERS,
    CURVATURES,
    TARGET,
    WEIGHTS,
    D,
    at_the_optimum,
    distance,
    loss,
    problem,
    quadratic,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("options", [{}, {"neumann_step": 1.0, "max_iterations": 400, "tolerance": 1e-12}])
def test_many_steps_from_the_inner_optimum_equal_implicit(options):
    g = at_the_optimum(200, "reverse")
    np.testing.assert_allclose(
        at_the_optimum(1, "implicit", **({"tolerance": 1e-12} | options)), g, rtol=1e-8, atol=1e-10
    )
    # and both are the derivative of F at the optimum, which is (c @ centers) / sum(c)
    optimum = WEIGHTS @ CENTERS
    np.testing.assert_allclose(g, (CENTERS - optimum) @ (optimum - TARGET), rtol=1e-8, atol=1e-10)


def test_ridge_and_tolerance_of_implicit():
    optimum = WEIGHTS @ CENTERS
    gradients = CURVATURES * (optimum - CENTERS)
    expected = -gradients @ ((optimum - TARGET) / (CURVATURES + 0.5))
    np.testing.assert_allclose(at_the_optimum(1, "implicit", ridge=0.5, tolerance=1e-12), expected, rtol=1e-8)
    steps = {"neumann_step": 1.0, "max_iterations": 400}
    rough, fine = (at_the_optimum(1, "implicit", tolerance=tol, **steps) for tol in (0.5, 1e-10))
    assert np.abs(rough - fine).max() > 1e-2


def test_alignment_is_minus_the_inner_products():
    optimizer = optax.sgd(0.1)
    params, batches, val_batch = problem()
    result = jax.jit(hypergrad(loss, loss, optimizer, mode="alignment"))(
        WEIGHTS, params, optimizer.init(params), batches, val_batch
    )
    slope = jax.grad(loss)(result.params, val_batch)
    for d in range(D):
        own = jax.grad(loss)(result.params, jax.tree.map(lambda x, d=d: x[-1, d], batches))
        np.testing.assert_allclose(result.hypergrads[d], -optax.tree.vdot(own, slope), rtol=1e-9)


def test_alignment_takes_losses_without_a_forward_derivative():
    @jax.custom_vjp
    def square(z):
        return z**2

    square.defvjp(lambda z: (z**2, z), lambda z, g: (2 * z * g,))

    def own(x, center):
        return 0.5 * jnp.sum(CURVATURES * square(x - center))

    optimizer, x, batches = optax.sgd(0.1), jnp.zeros(4), jnp.asarray(CENTERS)[None]
    inputs = WEIGHTS, x, optimizer.init(x), batches, jnp.asarray(TARGET)
    a, b = (hypergrad(f, distance, optimizer, mode="alignment")(*inputs) for f in (own, quadratic))
    np.testing.assert_allclose(a.hypergrads, b.hypergrads, rtol=1e-12)
