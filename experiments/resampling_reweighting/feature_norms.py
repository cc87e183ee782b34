r"""The experiment on features of norm 1 and ``K`` under a nonlinear model: paper 003, remark 2.2.

.. math:: L(\theta) = \frac{1}{2n} \sum_i (f(\theta \cdot x_i) - y_i)^2, \qquad f = \tanh

The remark leaves ``f`` and the targets open. ``tanh`` is chosen here because it saturates: where one group is fitted,
the gradients of the other group are small, as in section 2's example. All features lie around one axis ``e``. There are
two groups:

- A share of the features has norm ``K``. Their targets are ``f(e · x / K)`` plus noise.
- The other features have norm 1. Their targets are ``f(-b e · x)`` plus noise.

The loss has a sharp minimum near ``e / K`` and a flat one near ``-b e``.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.resampling_reweighting.feature_norms_report import METHODS, claims, figure
from experiments.resampling_reweighting.runs import Run, direction
from mixjax.grad_norms import norm
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment

__all__ = [
    "FeatureNorms",
    "Points",
    "along_axis",
    "feature_norms",
    "gradients",
    "loss",
    "problem",
    "train",
]

# The number of points on the segment between the minima at which the loss is recorded.
LINE = 101


class Points(NamedTuple):
    """Holds a data set and the parameters that fit either of its groups.

    Attributes:
        x: the features ``[n, d]``, the large ones first.
        y: the targets ``[n]``.
        sharp: the parameters that fit the large features, ``e / K``.
        flat: the parameters that fit the other features, ``-b e``.
    """

    x: jax.Array
    y: jax.Array
    sharp: jax.Array
    flat: jax.Array


@dataclasses.dataclass(frozen=True)
class FeatureNorms(Run):
    """Holds the settings of remark 2.2's problem.

    Attributes:
        num_examples: ``n``, the number of examples.
        dim: ``d``, the number of features of an example.
        large: ``K``, the norm of the large features.
        share: the share of examples whose features have norm ``K``.
        spread: the size of a feature's part across the axis, relative to its part along the axis.
        noise: the standard deviation of the noise in the targets.
        flat: ``b``, the distance of the flat minimum from 0.
        first: the start, in units of ``e / K``.
    """

    learning_rate: float = 0.01
    num_steps: int = 1000
    record_every: int = 20
    num_examples: int = 200
    dim: int = 10
    large: float = 20.0
    share: float = 0.2
    spread: float = 0.3
    noise: float = 0.5
    flat: float = 0.5
    first: float = 1.25


def loss(theta: jax.Array, points: Points) -> jax.Array:
    """Returns the loss of eq. 2.3."""
    return jnp.square(jnp.tanh(points.x @ theta) - points.y).mean() / 2


def gradients(theta: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the gradients of the terms of eq. 2.3, ``[n, d]``."""
    fitted = jnp.tanh(x @ theta)
    return ((fitted - y) * (1 - jnp.square(fitted)))[:, None] * x


def problem(key: jax.Array, config: FeatureNorms) -> tuple[Points, jax.Array]:
    """Draws a data set. ``config.share`` may be traced.

    Returns:
        The points, and the number of them that are large.
    """
    across_key, noise_key = jax.random.split(key)
    n, axis = config.num_examples, jnp.eye(config.dim)[0]
    # A mask rather than two arrays: `share` may be traced, so that the number of large features has no shape.
    large = jnp.arange(n) < config.share * n
    x = axis + config.spread * jax.random.normal(across_key, (n, config.dim)) / np.sqrt(config.dim)
    x *= (jnp.where(large, config.large, 1.0) / norm(x))[:, None]
    sharp, flat = axis / config.large, -config.flat * axis
    clean = jnp.tanh(x @ jnp.stack([flat, sharp], 1))
    y = jnp.where(large, clean[:, 1], clean[:, 0]) + config.noise * jax.random.normal(noise_key, (n,))
    return Points(x, y, sharp, flat), large.sum()


def along_axis(points: Points) -> tuple[jax.Array, jax.Array]:
    """Returns the coordinates of places on the axis from ``e / K`` to ``-b e``, and the losses there."""
    steps = jnp.linspace(0, 1, LINE)[:, None]
    places = (1 - steps) * points.sharp + steps * points.flat
    return places[:, 0], jax.vmap(lambda theta: loss(theta, points))(places)


def train(key: jax.Array, config: FeatureNorms) -> dict[str, jax.Array]:
    """Draws one data set, and runs every method on it from the same parameters with the same random numbers.

    Returns:
        A dict of:

        - ``theta`` ``[method, step]``, the coordinate along the axis.
        - ``stayed`` ``[method]``, 1 where a run ends on the sharp minimum's side of the highest point between the
          minima, and 0 elsewhere.
        - ``line`` ``[place]``, the loss along the axis.
    """
    data_key, run_key = jax.random.split(key)
    points, number = problem(data_key, config)
    sizes = jnp.stack([number, config.num_examples - number])
    places, line = along_axis(points)
    barrier = places[jnp.argmax(line)]
    keys = jax.random.split(run_key, config.num_steps).reshape(-1, config.record_every)

    def run(method):
        def step(theta, key):
            estimate = direction(
                method,
                key,
                lambda i: gradients(theta, points.x[i], points.y[i]),
                sizes,
                config.num_examples,
                norm(points.x),
            )
            return theta - config.learning_rate * estimate, None

        def stage(theta, keys):
            theta, _ = jax.lax.scan(step, theta, keys)
            return theta, theta[0]

        last, path = jax.lax.scan(stage, config.first * points.sharp, keys)
        return path, last[0] > barrier

    theta, stayed = map(jnp.stack, zip(*map(run, METHODS), strict=True))
    return {"theta": theta, "stayed": 1.0 * stayed, "line": line}


def feature_norms(config: FeatureNorms) -> Experiment:
    """Builds the experiment: which methods stay in the sharp minimum's basin, by learning rate and by share."""
    return Experiment(
        train=lambda key, hparams, data: train(key, configs.replace(config, hparams)),
        data=None,
        dims={"theta": ("method", "step"), "stayed": ("method",), "line": ("place",)},
        coords={
            "method": list(METHODS),
            "step": config.steps,
            "place": np.linspace(1 / config.large, -config.flat, LINE),
        },
        units={"theta": "1", "stayed": "share", "line": "1"},
        figure=lambda results: figure(next(iter(results.values())), config),
        claims=lambda results: claims(next(iter(results.values())), config),
    )
