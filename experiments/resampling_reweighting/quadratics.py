r"""Draws the random problems of the experiment on section 3 of paper 003, and estimates their gradients.

The terms of a problem are quadratic in one dimension, :math:`\ell_i(\theta) = \frac{c_i}{2} (\theta - b_i)^2`, with
curvatures ``c_i`` between 0.5 and 1.5 and heavy-tailed centres ``b_i``.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.resampling_reweighting import schemes
from mixjax.grad_norms import norm

__all__ = ["METHODS", "Terms", "Theory", "bias", "estimate", "probabilities", "problem", "trace"]

METHODS = {"sgd": "SGD", "rr": "RR (eq. 3.5)"}


class Terms(NamedTuple):
    """Holds the quadratic terms of a loss.

    Attributes:
        curvatures: the terms' curvatures ``c``, ``[n]``.
        centres: the terms' centres ``b``, ``[n]``.
    """

    curvatures: jax.Array
    centres: jax.Array

    @property
    def best(self) -> jax.Array:
        """Returns the parameter at which the mean of the terms is least."""
        return jnp.dot(self.curvatures, self.centres) / self.curvatures.sum()

    def gradients(self, theta: jax.Array) -> jax.Array:
        """Returns the gradients of the terms at a parameter, ``[n, 1]``."""
        return (self.curvatures * (theta - self.centres))[:, None]


@dataclasses.dataclass(frozen=True)
class Theory:
    """Holds the settings of the experiment.

    Attributes:
        num_terms: the number of terms of a problem.
        runs: the number of runs of each method on a problem, all from the same start.
        num_steps: the number of steps with theorem 3.4's schedule of learning rates.
        record_every: the number of steps between two records.
        gain: ``α γ``, where ``α`` is the loss's curvature and ``η_k = γ / (k + m)`` the schedule; above 1/2.
        offset: ``m`` of the schedule.
        rates: two constant learning rates, the larger one first, at which runs are compared with gradient flow.
        horizon: the time ``T`` until which runs are compared with gradient flow.
        epsilon: ``ε`` of eq. 3.28. Runs start at the squared distance ``D_1 = ε``, and stay in the neighbourhood as
            long as ``D <= 2 ε + sqrt(ε)``.
        delta: ``δ`` of eq. 3.20, the probability to leave by which the learning rate is chosen.
    """

    num_terms: int = 20
    runs: int = 16
    num_steps: int = 1000
    record_every: int = 20
    gain: float = 3.0
    offset: float = 20.0
    rates: tuple[float, float] = (0.02, 0.005)
    horizon: float = 4.0
    epsilon: float = 0.1
    delta: float = 0.5


def problem(key: jax.Array, n: int) -> Terms:
    """Draws a problem of ``n`` terms."""
    first, second = jax.random.split(key)
    return Terms(jax.random.uniform(first, (n,), minval=0.5, maxval=1.5), jax.random.t(second, 3.0, (n,)))


def probabilities(method: str, grads: jax.Array) -> jax.Array:
    """Returns the probabilities ``[n]`` with which a method draws the terms, given their gradients ``[n, d]``."""
    uniform = jnp.full(len(grads), 1.0 / len(grads))
    return schemes.probabilities(norm(grads), uniform) if method == "rr" else uniform


def estimate(method: str, key: jax.Array, grads: jax.Array) -> jax.Array:
    """Draws a method's estimate ``[d]`` of the mean of the gradients ``[n, d]``."""
    uniform = jnp.full(len(grads), 1.0 / len(grads))
    return schemes.estimate(key, grads, uniform, probabilities(method, grads))


def trace(method: str, grads: jax.Array) -> jax.Array:
    """Returns ``Tr Σ``, the total variance of a method's estimate of the mean gradient."""
    return schemes.variance(grads, jnp.full(len(grads), 1.0 / len(grads)), probabilities(method, grads))


def bias(method: str, grads: jax.Array) -> jax.Array:
    """Returns how far the exact mean of a method's estimate is from the mean gradient, over the mean norm."""
    q = probabilities(method, grads)
    mean = (q[:, None] * (1.0 / len(grads) / q)[:, None] * grads).sum(0)
    return norm(mean - grads.mean(0), 0) / norm(grads).mean()
