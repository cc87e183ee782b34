r"""Measures what section 3 of paper 003 states about bias, variance, stability and convergence.

Each seed draws a problem of its own. Its terms are quadratic in one dimension,
:math:`\ell_i(\theta) = \frac{c_i}{2} (\theta - b_i)^2`, with curvatures ``c_i`` between 0.5 and 1.5 and heavy-tailed
centres ``b_i``. Lemma 3.2 is measured on linear models that interpolate, a tenth of whose features are five times as
large as the others.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.resampling_reweighting import schemes
from experiments.resampling_reweighting.stability import eigenvalue_limit, step_limit
from mixjax.grad_norms import norm

__all__ = [
    "DIMS",
    "METHODS",
    "Terms",
    "Theory",
    "beside_flow",
    "bias",
    "decaying",
    "estimate",
    "interpolating",
    "limits",
    "probabilities",
    "problem",
    "second_moment",
    "staying",
    "staying_gamma",
    "trace",
    "train",
]

METHODS = {"sgd": "SGD", "rr": "RR (eq. 3.5)"}
# The dimensions of lemma 3.2's models.
DIMS = (1, 5)
# The number of one-step draws by which a mean square is estimated.
DRAWS = 2000


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


def interpolating(key: jax.Array, dim: int, n: int = 200) -> jax.Array:
    """Draws features ``[n, dim]``, a tenth of which are five times as large as the others."""
    return jax.random.normal(key, (n, dim)) * jnp.where(jnp.arange(n) < n / 10, 5.0, 1.0)[:, None]


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


def limits(key: jax.Array, dim: int) -> dict[str, jax.Array]:
    """Measures the step sizes of lemma 3.2, up to which the mean square error grows in no direction.

    Every limit is the least over directions that are drawn at random.

    Returns:
        A dict of:

        - ``limit`` ``[method]``, the largest stable step size.
        - ``printed``, the step size that eq. 3.11 gives for RR.
        - ``square`` ``[method]``, the mean square error after one step of that size, over the one before, estimated
          from draws.
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
        # `m=method` and `g=grads` bind this turn's values: a lambda looks names up when it is called.
        steps = jax.vmap(lambda key, m=method, g=grads: estimate(m, key, g))(jax.random.split(draw_key, DRAWS))
        found.append(limit)
        squares.append(jnp.square(error - limit * steps).sum(1).mean())
    printed = jax.vmap(lambda error: eigenvalue_limit(x, error))(errors).min()
    return {"limit": jnp.stack(found), "printed": printed, "square": jnp.stack(squares)}


def decaying(method: str, key: jax.Array, terms: Terms, config: Theory) -> jax.Array:
    """Runs theorem 3.4's schedule with p = 1 from the minimum, and returns the squared distances to it, ``[step]``."""
    gamma = config.gain / terms.curvatures.mean()

    def step(theta, inputs):
        key, k = inputs
        theta -= gamma / (k + config.offset) * estimate(method, key, terms.gradients(theta))[0]
        return theta, theta

    keys = jax.random.split(key, config.num_steps)
    path = jax.lax.scan(step, terms.best, (keys, jnp.arange(1.0, config.num_steps + 1)))[1]
    return jnp.square(path[config.record_every - 1 :: config.record_every] - terms.best)


def beside_flow(method: str, key: jax.Array, terms: Terms, rate: float, horizon: float) -> tuple[jax.Array, jax.Array]:
    """Runs a method and gradient descent side by side, for remark 3.6 and lemma 3.8.

    Both start at a distance of 1 from the minimum and take steps of the same learning rate.

    Returns:
        The largest squared distance between the two, and the time integral of the method's squared distance to the
        minimum.
    """

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


def train(key: jax.Array, config: Theory) -> dict[str, jax.Array]:
    """Draws one problem and measures everything on it.

    Returns:
        A dict of:

        - ``bias`` and ``trace`` ``[method]``, the bias and the variance of the estimate at the minimum.
        - ``error`` ``[method, step]``, theorem 3.4's mean square times ``k + m``, and ``rate`` ``[method]``, its exact
          limit.
        - ``deviation`` ``[method, rate]``, the largest squared distance to gradient descent over the learning rate,
          and ``area`` ``[method, rate]``, the time integral of the squared distance to the minimum.
        - ``stayed`` and ``small`` ``[method]``, the shares of runs for which :func:`staying` returns True.
        - ``limit`` and ``square`` ``[method, dim]``, and ``printed`` ``[dim]``, as :func:`limits` returns them.
        - ``bound`` ``[kind]``, theorem 3.4's bound of ``error`` with ``δ = 0``, by the largest squared gradient and by
          the mean of the squared gradients.
    """
    problem_key, limit_key, run_key = jax.random.split(key, 3)
    terms = problem(problem_key, config.num_terms)
    at_best, gamma = terms.gradients(terms.best), config.gain / terms.curvatures.mean()
    factor = jnp.square(gamma) / (2 * config.gain - 1)
    keys = jax.random.split(run_key, config.runs)
    k = jnp.arange(config.record_every, config.num_steps + 1, config.record_every) + config.offset
    rows = []
    for method in METHODS:
        # Lambdas take this turn's values as defaults: a lambda looks names up when it is called.
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
