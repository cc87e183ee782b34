r"""Section 3 of paper 003 in numbers, each seed a problem of its own.

Terms are quadratic in one dimension, :math:`\ell_i(\theta) = \frac{c_i}{2} (\theta - b_i)^2`, with curvatures between
0.5 and 1.5 and heavy-tailed centres; lemma 3.2 is looked at on linear models that interpolate, a tenth of whose
features are five times as large.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.resampling_reweighting.stability import eigenvalue_limit, step_limit
from mixjax import resampling
from mixjax.grad_norms import norm

METHODS = {"sgd": "SGD", "rr": "RR (eq. 3.5)"}
DIMS = (1, 5)  # of lemma 3.2's models
DRAWS = 2000  # one-step draws that estimate a mean square


class Terms(NamedTuple):
    """Curvatures and centres ``[n]`` of quadratic terms."""

    curvatures: jax.Array
    centres: jax.Array

    @property
    def best(self) -> jax.Array:
        """The minimum of their mean."""
        return jnp.dot(self.curvatures, self.centres) / self.curvatures.sum()

    def gradients(self, theta: jax.Array) -> jax.Array:
        """``[n, 1]``."""
        return (self.curvatures * (theta - self.centres))[:, None]


@dataclasses.dataclass(frozen=True)
class Theory:
    """What is run.

    Attributes:
        num_terms: of a problem.
        runs: from the same start, a problem and method.
        num_steps: of theorem 3.4's schedule.
        record_every: steps between records.
        gain: ``α γ`` in ``η_k = γ / (k + m)``; above 1/2.
        offset: ``m``.
        rates: two constant steps, the larger first, at which runs are compared with gradient flow.
        horizon: the time ``T`` until when they are.
        epsilon: ``ε`` of eq. 3.28: runs start at ``D_1 = ε``, and are to stay at ``D <= 2 ε + sqrt(ε)``.
        delta: the ``δ`` of eq. 3.20 that the step is chosen by.
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
    """Draws a problem."""
    first, second = jax.random.split(key)
    return Terms(jax.random.uniform(first, (n,), minval=0.5, maxval=1.5), jax.random.t(second, 3.0, (n,)))


def interpolating(key: jax.Array, dim: int, n: int = 200) -> jax.Array:
    """Features ``[n, dim]``, a tenth of them five times as large as the others."""
    return jax.random.normal(key, (n, dim)) * jnp.where(jnp.arange(n) < n / 10, 5.0, 1.0)[:, None]


def probabilities(method: str, grads: jax.Array) -> jax.Array:
    """``[n]``."""
    uniform = jnp.full(len(grads), 1.0 / len(grads))
    return resampling.probabilities(norm(grads), uniform) if method == "rr" else uniform


def estimate(method: str, key: jax.Array, grads: jax.Array) -> jax.Array:
    """One step's gradient ``[d]``."""
    uniform = jnp.full(len(grads), 1.0 / len(grads))
    return resampling.estimate(key, grads, uniform, probabilities(method, grads))


def trace(method: str, grads: jax.Array) -> jax.Array:
    """``Tr Σ`` of it."""
    return resampling.variance(grads, jnp.full(len(grads), 1.0 / len(grads)), probabilities(method, grads))


def bias(method: str, grads: jax.Array) -> jax.Array:
    """Its exact mean less the mean gradient, over the mean norm."""
    q = probabilities(method, grads)
    mean = (q[:, None] * (1.0 / len(grads) / q)[:, None] * grads).sum(0)
    return norm(mean - grads.mean(0), 0) / norm(grads).mean()


def limits(key: jax.Array, dim: int) -> dict[str, jax.Array]:
    """Lemma 3.2: steps up to which no direction's mean square grows, the least over directions drawn.

    Returns:
        ``limit`` ``[method]``; ``printed``, eq. 3.11's in place of RR's; ``square`` ``[method]``, the mean square after
        one step at the limit, over draws, relative to that before.
    """
    data_key, direction_key, draw_key = jax.random.split(key, 3)
    x = interpolating(data_key, dim)
    errors = jax.random.normal(direction_key, (200, dim))
    errors /= norm(errors)[:, None]
    found, squares = [], []
    for method in METHODS:
        allowed = jax.vmap(lambda error, m=method: step_limit(x, error, m == "rr"))(errors)
        error, limit = errors[jnp.argmin(allowed)], allowed.min()
        grads = x * (x @ error)[:, None]
        steps = jax.vmap(lambda key, m=method, g=grads: estimate(m, key, g))(jax.random.split(draw_key, DRAWS))
        found.append(limit)
        squares.append(jnp.square(error - limit * steps).sum(1).mean())
    printed = jax.vmap(lambda error: eigenvalue_limit(x, error))(errors).min()
    return {"limit": jnp.stack(found), "printed": printed, "square": jnp.stack(squares)}


def decaying(method: str, key: jax.Array, terms: Terms, config: Theory) -> jax.Array:
    """Theorem 3.4 with p = 1: squared distances to the minimum ``[step]``, one run from there."""
    gamma = config.gain / terms.curvatures.mean()

    def step(theta, inputs):
        key, k = inputs
        theta -= gamma / (k + config.offset) * estimate(method, key, terms.gradients(theta))[0]
        return theta, theta

    keys = jax.random.split(key, config.num_steps)
    path = jax.lax.scan(step, terms.best, (keys, jnp.arange(1.0, config.num_steps + 1)))[1]
    return jnp.square(path[config.record_every - 1 :: config.record_every] - terms.best)


def beside_flow(method: str, key: jax.Array, terms: Terms, rate: float, horizon: float) -> tuple[jax.Array, jax.Array]:
    """Remark 3.6 and lemma 3.8, one run, 1 from the minimum at first: the largest squared distance to gradient descent
    with the same steps, and the time integral of that to the minimum."""

    def step(carry, key):
        theta, flow = carry
        theta -= rate * estimate(method, key, terms.gradients(theta))[0]
        flow -= rate * terms.gradients(flow).mean()
        return (theta, flow), (jnp.square(theta - flow), jnp.square(theta - terms.best))

    start = terms.best + 1.0
    keys = jax.random.split(key, round(horizon / rate))
    beside, away = jax.lax.scan(step, (start, start), keys)[1]
    return beside.max(), rate * away.sum()


def second_moment(method: str, terms: Terms, epsilon: float) -> jax.Array:
    """The largest ``E‖V‖²`` in the neighbourhood, which is at its ends: that is convex in the parameter."""
    ends = terms.best + jnp.array([-1.0, 1.0]) * jnp.sqrt(2 * epsilon + jnp.sqrt(epsilon))
    lengths = jax.vmap(lambda theta: norm(terms.gradients(theta)))(ends)
    return (jnp.square(lengths.mean(1)) if method == "rr" else jnp.square(lengths).mean(1)).max()


def staying_gamma(method, terms, config: Theory, power=1.0, steps=None) -> jax.Array:
    r"""The ``γ`` for which :func:`staying`'s bound of the probability to leave is ``δ``.

    .. math:: \delta = \frac{R_*}{\epsilon} \sum_{k} \eta_k^2, \qquad R_* = (4 r^2 + 1) \sup_{\mathcal U} E\|V\|^2

    Deviations from eq. 3.35 to 3.37: there ``‖∇L‖²`` is bounded by ``sum σ_i²`` and not by their mean, ``E ξ²`` by
    twice what ``E‖V‖²`` gives, and SGD's ``E‖V‖²`` by the largest term; all of it makes the printed ``R_*`` larger.
    """
    k = jnp.arange(1.0, (steps or config.num_steps) + 1)
    reach = 2 * config.epsilon + jnp.sqrt(config.epsilon)
    most = (4 * reach + 1) * second_moment(method, terms, config.epsilon)
    return jnp.sqrt(config.delta * config.epsilon / (most * jnp.sum((k + config.offset) ** (-2.0 * power))))


def staying(method, key, terms: Terms, gamma, config: Theory, power=1.0, steps=None) -> tuple[jax.Array, jax.Array]:
    r"""Eq. 3.20 by one run: whether ``D_k <= 2 ε + sqrt(ε)`` throughout, and whether ``R_k <= ε`` (eq. 3.28) did.

    The theorem leaves its neighbourhoods open; they follow from eq. 3.25, by which ``D_{k+1} <= D_1 + M_k + S_k`` and
    so ``D_{k+1} <= 2 ε + sqrt(ε)`` as long as ``R_k = M_k^2 + S_k <= ε`` and ``D_1 <= ε``.
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
    inside, small = jax.lax.scan(step, (start, 0.0 * start, 0.0 * start), inputs)[1]
    return inside.all(), small.all()


def train(key: jax.Array, config: Theory) -> dict[str, jax.Array]:
    """Everything, on one problem.

    Returns:
        By method: ``bias`` and ``trace`` of the estimate at the minimum; ``limit`` and ``square`` ``[method, dim]``;
        ``error`` ``[method, step]``, the step number times theorem 3.4's mean square; ``rate`` ``[method]``, its exact
        limit; ``deviation`` and ``area`` ``[method, rate]``, the first over the step; ``stayed``, ``small``
        ``[method]``. Besides ``printed`` ``[dim]`` and ``bound`` ``[kind]``, theorem 3.4's, by the largest squared
        gradient and by their mean, both with ``δ = 0``.
    """
    problem_key, limit_key, run_key = jax.random.split(key, 3)
    terms = problem(problem_key, config.num_terms)
    at_best, gamma = terms.gradients(terms.best), config.gain / terms.curvatures.mean()
    factor = jnp.square(gamma) / (2 * config.gain - 1)
    keys = jax.random.split(run_key, config.runs)
    k = jnp.arange(config.record_every, config.num_steps + 1, config.record_every) + config.offset
    rows = []
    for method in METHODS:
        path = jax.vmap(lambda key, m=method: decaying(m, key, terms, config))(keys).mean(0)
        flows = [
            jax.vmap(lambda key, m=method, r=rate: beside_flow(m, key, terms, r, config.horizon))(keys)
            for rate in config.rates
        ]
        own = staying_gamma(method, terms, config)
        stays = jax.vmap(lambda key, m=method, g=own: staying(m, key, terms, g, config))(keys)
        rows.append(
            {
                "bias": bias(method, at_best),
                "trace": trace(method, at_best),
                "error": k * path,
                "rate": factor * trace(method, at_best),
                "deviation": jnp.stack([d.mean() / r for (d, _), r in zip(flows, config.rates, strict=True)]),
                "area": jnp.stack([area.mean() for _, area in flows]),
                "stayed": stays[0].mean(),
                "small": stays[1].mean(),
            }
        )
    stable = [limits(key, dim) for key, dim in zip(jax.random.split(limit_key, len(DIMS)), DIMS, strict=True)]
    squares = jnp.square(at_best)
    return {
        **jax.tree.map(lambda *x: jnp.stack(x), *rows),
        **{name: jnp.stack([found[name] for found in stable], -1) for name in stable[0]},
        "bound": factor * jnp.stack([squares.max(), squares.mean()]),
    }
