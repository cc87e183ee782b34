"""Chooses the learning rate of theorem 3.4 of paper 003, and sees whether a run stays near the minimum."""

import jax
import jax.numpy as jnp

from experiments.resampling_reweighting.quadratics import Terms, Theory, estimate
from mixjax.grad_norms import norm

__all__ = ["second_moment", "staying", "staying_gamma"]


def second_moment(method: str, terms: Terms, epsilon: float) -> jax.Array:
    """Returns the largest ``E‖V‖²``, the mean square of a method's estimate, in theorem 3.4's neighbourhood."""
    # The mean square is convex in the parameter, so that it is largest at one of the ends.
    ends = terms.best + jnp.array([-1.0, 1.0]) * jnp.sqrt(2 * epsilon + jnp.sqrt(epsilon))
    lengths = jax.vmap(lambda theta: norm(terms.gradients(theta)))(ends)
    return (jnp.square(lengths.mean(1)) if method == "rr" else jnp.square(lengths).mean(1)).max()


def staying_gamma(
    method: str, terms: Terms, config: Theory, *, power: float = 1.0, steps: int | None = None
) -> jax.Array:
    r"""Returns the ``γ`` with which :func:`staying` leaves its neighbourhood with a probability of at most ``δ``.

    It solves the bound of theorem 3.4's proof for ``γ``, with ``η_k = γ / (k + m)^p``:

    .. math:: \delta = \frac{R_*}{\epsilon} \sum_{k} \eta_k^2, \qquad R_* = (4 r^2 + 1) \sup_{\mathcal U} E\|V\|^2

    Here ``r²`` is the largest squared distance to the minimum in the neighbourhood. The bound is tighter than eq. 3.35
    to 3.37, whose ``R_*`` is larger for three reasons:

    - They bound ``‖∇L‖²`` by ``sum σ_i²``, not by the mean of the ``σ_i²``.
    - They bound ``E ξ²`` by twice what ``E‖V‖²`` gives.
    - They bound the ``E‖V‖²`` of SGD by the largest term.

    Args:
        method: a key of ``METHODS``.
        terms: the problem.
        config: the settings.
        power: the exponent ``p`` of the schedule.
        steps: the number of steps; ``config.num_steps`` where it is None.
    """
    k = jnp.arange(1.0, (steps or config.num_steps) + 1)
    reach = 2 * config.epsilon + jnp.sqrt(config.epsilon)
    most = (4 * reach + 1) * second_moment(method, terms, config.epsilon)
    return jnp.sqrt(config.delta * config.epsilon / (most * jnp.sum((k + config.offset) ** (-2.0 * power))))


def staying(
    method: str,
    key: jax.Array,
    terms: Terms,
    gamma: jax.Array,
    config: Theory,
    *,
    power: float = 1.0,
    steps: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    r"""Runs a method once to see whether it stays in the neighbourhood of eq. 3.20.

    The theorem leaves its neighbourhoods open. They follow from eq. 3.25, by which ``D_{k+1} <= D_1 + M_k + S_k``. Here
    ``D_k`` is the squared distance to the minimum. Hence ``D_{k+1} <= 2 ε + sqrt(ε)`` as long as ``D_1 <= ε`` and
    ``R_k = M_k^2 + S_k <= ε``.

    Args:
        method: a key of ``METHODS``.
        key: a ``jax.random.key``.
        terms: the problem.
        gamma: ``γ`` of the schedule ``η_k = γ / (k + m)^p``.
        config: the settings.
        power: the exponent ``p`` of the schedule.
        steps: the number of steps; ``config.num_steps`` where it is None.

    Returns:
        Two booleans: ``D_k <= 2 ε + sqrt(ε)`` at every step, and ``R_k <= ε`` (eq. 3.28) at every step.
    """

    def step(carry, inputs):
        theta, martingale, total = carry
        key, k = inputs
        eta, grads = gamma / (k + config.offset) ** power, terms.gradients(theta)
        taken = estimate(method, key, grads)[0]
        martingale -= 2 * eta * (theta - terms.best) * (taken - grads.mean())
        total += jnp.square(eta * taken)
        theta -= eta * taken
        inside = jnp.square(theta - terms.best) <= 2 * config.epsilon + jnp.sqrt(config.epsilon)
        return (theta, martingale, total), (inside, jnp.square(martingale) + total <= config.epsilon)

    steps = steps or config.num_steps
    inputs = jax.random.split(key, steps), jnp.arange(1.0, steps + 1)
    start = terms.best + jnp.sqrt(config.epsilon)
    # `0.0 * start` is a zero of start's dtype and batch shape, which the scan's carry must keep.
    inside, small = jax.lax.scan(step, (start, 0.0 * start, 0.0 * start), inputs)[1]
    return inside.all(), small.all()
