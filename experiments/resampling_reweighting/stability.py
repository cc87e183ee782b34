r"""Stochastic linear stability of SGD and RR at an interpolating solution: paper 003, section 3.2.

Let ``x_i`` be the model's gradient at example ``i``, ``H_i = x_i x_i^T``, ``H`` the mean of the ``H_i``, and ``e`` the
error, which is the parameters less the solution. The mean square of the error after a step of size ``η`` is exactly

.. math:: E\|e'\|^2 = \|e\|^2 - 2 \eta\, e^\top H e + \eta^2 S(e), \qquad
          S_{SGD} = \frac1n \sum_i \|H_i e\|^2, \quad S_{RR} = \Bigl(\frac1n \sum_i \|H_i e\|\Bigr)^2

so that the mean square does not grow in the direction ``e`` up to ``η = 2 e^T H e / S(e)``. For RR, eq. 3.11 uses the
largest eigenvalue of a matrix instead. That matrix holds ``1 / ‖H_i e‖``, which depends on ``e``. In more than one
dimension the eigenvalue can therefore forbid step sizes at which no direction grows.
"""

import jax
import jax.numpy as jnp

from mixjax.grad_norms import norm

__all__ = ["eigenvalue_limit", "step_limit"]


def step_limit(features: jax.Array, error: jax.Array, resample: bool) -> jax.Array:
    """Returns the largest step size at which the mean square error does not grow in one step.

    Args:
        features: the model's gradients at the solution, ``[n, d]``.
        error: the parameters less the solution, ``[d]``.
        resample: True for RR by gradient norms, False for SGD.

    Returns:
        A scalar. It is NaN where the error is orthogonal to all features.
    """
    inner = features @ error
    lengths = jnp.abs(inner) * norm(features)
    second = jnp.square(lengths.mean()) if resample else jnp.square(lengths).mean()
    return 2 * jnp.square(inner).mean() / second


def eigenvalue_limit(features: jax.Array, error: jax.Array) -> jax.Array:
    """Returns the largest step size that eq. 3.11 allows, as printed but without its ``O(ε)``.

    Up to this step size the largest eigenvalue of the matrix of eq. 3.11 is at most 1, that is,
    ``λ_max(η² M - 2 η H) <= 0`` with ``M = mean(G_i H_i²)``.

    Args:
        features: the model's gradients at the solution, ``[n, d]``.
        error: the parameters less the solution, ``[d]``. The matrix depends on its direction.

    Returns:
        A scalar. It is NaN where the features do not span the space, or where one of them is orthogonal to the error,
        which makes its ``G_i`` infinite.
    """
    squares = jnp.square(features).sum(1)
    lengths = jnp.abs(features @ error) * jnp.sqrt(squares)
    scales = squares * lengths.mean() / lengths
    matrix = (features * scales[:, None]).T @ features / len(features)
    hessian = features.T @ features / len(features)
    # η M - 2 H has no positive eigenvalue up to η = 2 / λ_max(H^-1/2 M H^-1/2).
    values, vectors = jnp.linalg.eigh(hessian)
    root = vectors / jnp.sqrt(values)
    return 2 / jnp.linalg.eigvalsh(root.T @ matrix @ root)[-1]
