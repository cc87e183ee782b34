r"""Measures what section 3 of paper 003 states about bias, variance, stability and convergence.

Each seed draws a problem of its own, with quadratic terms in one dimension. Lemma 3.2 is measured on linear models that
interpolate, a tenth of whose features are five times as large as the others.
"""

import jax
import jax.numpy as jnp

from experiments.resampling_reweighting.neighbourhood import staying, staying_gamma
from experiments.resampling_reweighting.quadratics import METHODS, Terms, Theory, bias, estimate, problem, trace
from experiments.resampling_reweighting.stability import eigenvalue_limit, step_limit
from mixjax.grad_norms import norm

__all__ = [
    "DIMS",
    "beside_flow",
    "decaying",
    "interpolating",
    "limits",
    "train",
]

# The dimensions of lemma 3.2's models.
DIMS = (1, 5)
# The number of one-step draws by which a mean square is estimated.
DRAWS = 2000


def interpolating(key: jax.Array, dim: int, n: int = 200) -> jax.Array:
    """Draws features ``[n, dim]``, a tenth of which are five times as large as the others."""
    return jax.random.normal(key, (n, dim)) * jnp.where(jnp.arange(n) < n / 10, 5.0, 1.0)[:, None]


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
    keys = jax.random.split(run_key, config.runs)
    rows = [_of_method(method, keys, terms, config) for method in METHODS]
    stable = [limits(key, dim) for key, dim in zip(jax.random.split(limit_key, len(DIMS)), DIMS, strict=True)]
    squares = jnp.square(terms.gradients(terms.best))
    return {
        **jax.tree.map(lambda *x: jnp.stack(x), *rows),
        **{name: jnp.stack([found[name] for found in stable], -1) for name in stable[0]},
        "bound": _factor(terms, config) * jnp.stack([squares.max(), squares.mean()]),
    }


def _factor(terms: Terms, config: Theory) -> jax.Array:
    """Returns ``γ² / (2 α γ - 1)``, which times ``Tr Σ`` is the limit of theorem 3.4's mean square times ``k``."""
    gamma = config.gain / terms.curvatures.mean()
    return jnp.square(gamma) / (2 * config.gain - 1)


def _of_method(method: str, keys: jax.Array, terms: Terms, config: Theory) -> dict[str, jax.Array]:
    """Measures one method on a problem, with one run for each key."""
    at_best = terms.gradients(terms.best)
    k = jnp.arange(config.record_every, config.num_steps + 1, config.record_every) + config.offset
    path = jax.vmap(lambda key: decaying(method, key, terms, config))(keys).mean(0)
    # `r=rate` binds this turn's rate: a lambda looks names up when it is called.
    flows = [
        jax.vmap(lambda key, r=rate: beside_flow(method, key, terms, r, config.horizon))(keys) for rate in config.rates
    ]
    gamma = staying_gamma(method, terms, config)
    stayed, small = jax.vmap(lambda key: staying(method, key, terms, gamma, config))(keys)
    return {
        "bias": bias(method, at_best),
        "trace": trace(method, at_best),
        "error": k * path,
        "rate": _factor(terms, config) * trace(method, at_best),
        "deviation": jnp.stack([d.mean() / r for (d, _), r in zip(flows, config.rates, strict=True)]),
        "area": jnp.stack([area.mean() for _, area in flows]),
        "stayed": stayed.mean(),
        "small": small.mean(),
    }
