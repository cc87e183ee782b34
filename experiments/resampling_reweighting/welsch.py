"""The experiment on robust statistics with two groups of unequal features: paper 003, section 4.1, figures 2 and 3."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from experiments.resampling_reweighting.runs import Run, direction, swept
from experiments.resampling_reweighting.welsch_report import METHODS, claims, figure
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment

__all__ = ["Points", "Welsch", "classification", "gradients", "loss", "regression", "train", "welsch"]


class Points(NamedTuple):
    """Holds a data set with the parameters that runs start from and those they should find.

    Attributes:
        x: the features ``[n, d]``.
        y: the targets ``[n]``.
        first: the first parameters ``[d]``.
        best: the parameters of least loss in the classification, and the true ones in the regression, ``[d]``.
    """

    x: jax.Array
    y: jax.Array
    first: jax.Array
    best: jax.Array


@dataclasses.dataclass(frozen=True)
class Welsch(Run):
    """Holds the settings of section 4.1's problems.

    Attributes:
        problem: ``classification`` for section 4.1.1, or ``regression`` for section 4.1.2.
        sizes: the number of points in the first group, whose features are large, and in the second group.
        spread: the standard deviation of the second group's features in the classification.
        corrupted: the share of the regression's targets that are corrupted. The paper's text reads as if it were 1.
        offset: the distance in each coordinate at which the regression starts from the true parameters ``beta*``. The
            start is ``beta* + offset (1, ..., 1) + start_noise N(0, I)``.
        start_noise: the standard deviation of the noise in the regression's start.
        margin: a share of the way from the best parameters' loss to 1. A run has ended in the global basin if its loss
            is no farther from the best one than that.
        first: the classification's first parameter.
    """

    learning_rate: float = 0.015
    num_steps: int = 2000
    record_every: int = 20
    problem: Literal["classification", "regression"] = "classification"
    sizes: tuple[int, int] = (800, 4000)
    spread: float = 0.5
    corrupted: float = 1.0
    offset: float = 5.0
    start_noise: float = 1.0
    margin: float = 0.1
    first: float = -0.5


def loss(theta: jax.Array, points: Points) -> jax.Array:
    """Returns the loss of eq. 4.1, the mean over the points."""
    # `expm1` keeps the digits of a small residual, which `1 - exp` would lose.
    return jnp.mean(-jnp.expm1(-jnp.square(points.y - points.x @ theta) / 2))


def gradients(theta: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the gradients of eq. 4.1's terms, ``[n, d]``.

    They are exactly zero where a residual is so large that its exponential underflows in float32.
    """
    residuals = y - x @ theta
    return -(residuals * jnp.exp(-jnp.square(residuals) / 2))[:, None] * x


def classification(key: jax.Array, config: Welsch) -> Points:
    """Draws section 4.1.1's data. The best parameter is the one of least loss on a grid."""
    keys = jax.random.split(key, 3)
    first = 20 + jax.random.normal(keys[0], (config.sizes[0], 1))
    second = 0.5 + config.spread * jax.random.normal(keys[1], (config.sizes[1], 1))
    x = jnp.concatenate([first, second])
    y = jax.random.bernoulli(keys[2], shape=(len(x),)).astype(jnp.float32)
    points = Points(x, y, jnp.full(1, config.first), jnp.zeros(1))
    # The loss has several minima in the parameter, so that descent from a start need not find the least one.
    grid = jnp.linspace(-0.2, 0.2, 401)[:, None]
    best = grid[jnp.argmin(jax.lax.map(lambda theta: loss(theta, points), grid))]
    return points._replace(best=best)


def regression(key: jax.Array, config: Welsch, dim: int = 10) -> Points:
    """Draws section 4.1.2's data. The best parameters are the true ones."""
    keys = jax.random.split(key, 7)
    first = 20 + jax.random.normal(keys[0], (config.sizes[0], dim))
    second = 0.25 + 0.5 * jax.random.normal(keys[1], (config.sizes[1], dim))
    x, best = jnp.concatenate([first, second]), jax.random.normal(keys[2], (dim,))
    clean = x @ best
    bad = jax.random.bernoulli(keys[3], config.corrupted, clean.shape)
    shift = jax.random.uniform(keys[4], clean.shape, minval=-1, maxval=1) * 3 * jnp.abs(clean).max()
    y = clean + jnp.where(bad, shift, 0.0) + 0.1 * jax.random.normal(keys[5], clean.shape)
    start = best + config.offset + config.start_noise * jax.random.normal(keys[6], (dim,))
    return Points(x, y, start, best)


def train(key: jax.Array, config: Welsch) -> dict[str, jax.Array]:
    """Draws one data set, and runs every method on it from the same parameters with the same random numbers.

    Returns:
        A dict of:

        - ``theta`` ``[method, step]``, the first coordinate.
        - ``loss`` ``[method, step]``.
        - ``best_loss``, a scalar, the loss of the best parameters.
    """
    data_key, run_key = jax.random.split(key)
    points = {"classification": classification, "regression": regression}[config.problem](data_key, config)
    n, sizes = sum(config.sizes), jnp.array(config.sizes)

    def run(method):
        def step(theta, key):
            estimate = direction(method, key, lambda i: gradients(theta, points.x[i], points.y[i]), sizes, n)
            return theta - config.learning_rate * estimate, None

        def stage(theta, keys):
            theta, _ = jax.lax.scan(step, theta, keys)
            return theta, (theta[0], loss(theta, points))

        keys = jax.random.split(run_key, config.num_steps)
        return jax.lax.scan(stage, points.first, keys.reshape(-1, config.record_every))[1]

    theta, losses = map(jnp.stack, zip(*(run(method) for method in METHODS), strict=True))
    return {"theta": theta, "loss": losses, "best_loss": loss(points.best, points)}


def welsch(config: Welsch) -> Experiment:
    """Builds the experiment that shows figure 2 or figure 3, by the config's problem."""
    return Experiment(
        train=lambda key, hparams, data: train(key, configs.replace(config, hparams)),
        data=None,
        dims={"theta": ("method", "step"), "loss": ("method", "step"), "best_loss": ()},
        coords={"method": list(METHODS), "step": config.steps},
        units={"theta": "1", "loss": "1", "best_loss": "1"},
        figure=lambda results: figure(swept(results, config.learning_rate), config),
        claims=lambda results: claims(swept(results, config.learning_rate), config),
    )
