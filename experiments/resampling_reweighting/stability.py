r"""Stochastic linear stability of SGD and RR at an interpolating solution: paper 003, section 3.2.

With ``H_i = x_i x_i^T`` and an error ``e``, a step's mean square is exactly

.. math:: E\|e'\|^2 = \|e\|^2 - 2 \eta\, e^\top H e + \eta^2 S(e), \qquad
          S_{SGD} = \frac1n \sum_i \|H_i e\|^2, \quad S_{RR} = \Bigl(\frac1n \sum_i \|H_i e\|\Bigr)^2

so that it does not grow in the direction ``e`` up to ``η = 2 e^T H e / S(e)``. For RR eq. 3.11 puts the largest
eigenvalue of a matrix in place of this form; but the matrix holds ``1 / ‖H_i e‖``, which depends on ``e``, and in more
than one dimension the eigenvalue can forbid steps at which no direction grows.
"""

import jax
import jax.numpy as jnp

from mixjax.grad_norms import norm


def step_limit(features: jax.Array, error: jax.Array, resample: bool) -> jax.Array:
    """The largest step at which the mean square error does not grow in one step.

    Args:
        features: ``[n, d]``, the model's gradients at the solution.
        error: ``[d]``, parameters less the solution.
        resample: RR by gradient norms, or SGD.

    Returns:
        A scalar; NaN for an error that no feature sees.
    """
    inner = features @ error
    lengths = jnp.abs(inner) * norm(features)
    second = jnp.square(lengths.mean()) if resample else jnp.square(lengths).mean()
    return 2 * jnp.square(inner).mean() / second


def eigenvalue_limit(features: jax.Array, error: jax.Array) -> jax.Array:
    """Eq. 3.11 as printed, without its ``O(ε)``: the step at which the largest eigenvalue of the matrix reaches 1.

    Args:
        features: ``[n, d]``.
        error: ``[d]``; the matrix depends on its direction.

    Returns:
        A scalar: ``λ_max(η² M - 2 η H) <= 0`` up to it, ``M = mean(G_i H_i²)``. NaN where features do not span the
        space, or one is orthogonal to the error (``G_i`` is then infinite).
    """
    squares = jnp.square(features).sum(1)
    lengths = jnp.abs(features @ error) * jnp.sqrt(squares)
    scales = squares * lengths.mean() / lengths
    matrix = (features * scales[:, None]).T @ features / len(features)
    hessian = features.T @ features / len(features)
    # η M - 2 H is negative up to η = 2 / λ_max(H^-1/2 M H^-1/2).
    values, vectors = jnp.linalg.eigh(hessian)
    root = vectors / jnp.sqrt(values)
    return 2 / jnp.linalg.eigvalsh(root.T @ matrix @ root)[-1]
