"""The example of two groups with slopes 1 and K, of paper 003, section 2.1: settings, training and exact results."""

import dataclasses
import functools
from fractions import Fraction

import jax
import jax.numpy as jnp

from experiments.resampling_reweighting import lattice, schemes
from experiments.resampling_reweighting.runs import Run, swept
from mixjax import grad_norms
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment

__all__ = [
    "LEFT",
    "METHODS",
    "SOURCE",
    "Piecewise",
    "chain",
    "exits",
    "experiment_of",
    "mass_right",
    "slopes",
    "train",
]

SOURCE = "paper 003, section 2.1"
METHODS: dict[lattice.Scheme, str] = {
    "sgd": "SGD",
    "static": "RR, f and w of section 2",
    "per_term": "RR, gradient norms (eq. 3.5)",
}
# A run has left the global minimum's basin once its parameter is below this value.
LEFT = -0.5


@dataclasses.dataclass(frozen=True)
class Piecewise(Run):
    """Holds the settings of section 2.1's example.

    Attributes:
        share: ``a_1``, the share of the group of slope 1.
        epsilon: ``ε``, the slope of either group's loss where the other group's loss acts.
        steepness: ``K``, the slope of the second group.
        first: the first parameter.
        shown: the learning rates whose trajectories are drawn. The first one is figure 1's.
    """

    learning_rate: float = 0.04
    num_steps: int = 1000
    record_every: int = 10
    share: float = 0.4
    epsilon: float = 0.1
    steepness: float = 5.0
    first: float = 0.25
    shown: tuple[float, ...] = (0.04,)


def slopes(theta: jax.Array, config: Piecewise) -> jax.Array:
    """Returns the derivatives of both groups' losses, ``[2, 1]``."""
    left = jnp.stack([jnp.sign(theta + 1), jnp.full_like(theta, -config.epsilon)])
    right = jnp.stack([jnp.full_like(theta, config.epsilon), jnp.sign(config.steepness * theta - 1) * config.steepness])
    return jnp.where(theta <= 0, left, right)[:, None]


def train(key: jax.Array, config: Piecewise) -> dict[str, jax.Array]:
    """Runs every method from the same parameter with the same random numbers.

    Returns:
        A dict of:

        - ``theta`` ``[method, step]``, the parameter.
        - ``left_at`` ``[method]``, the first step at which it is below ``LEFT``, or ``num_steps + 1`` if there is none.
        - ``spread`` ``[method]``, its standard deviation over the second half of the steps.
        - ``right`` ``[method]``, the share of the second half that it spends above 0.
    """
    prior = jnp.array([config.share, 1 - config.share])
    lipschitz = jnp.array([1.0, config.steepness])

    def scores(method, grads):
        return {"sgd": jnp.ones(2), "static": lipschitz, "per_term": grad_norms.norm(grads)}[method]

    def step(method, theta, key):
        grads = slopes(theta, config)
        q = schemes.probabilities(scores(method, grads), prior)
        theta = theta - config.learning_rate * schemes.estimate(key, grads, prior, q)[0]
        return theta, theta

    def run(method):
        # The same keys for every method, so that the runs are paired.
        keys = jax.random.split(key, config.num_steps)
        return jax.lax.scan(functools.partial(step, method), jnp.float32(config.first), keys)[1]

    theta = jnp.stack([run(method) for method in METHODS])
    out, half = theta < LEFT, theta[:, config.num_steps // 2 :]
    return {
        "theta": theta[:, config.record_every - 1 :: config.record_every],
        "left_at": 1.0 + jnp.where(out.any(1), jnp.argmax(out, 1), config.num_steps),
        "spread": half.std(1),
        "right": (half > 0).mean(1),
    }


def experiment_of(config: Piecewise, figure, claims) -> Experiment:
    """Builds an experiment from the figure and the claims in which the two experiments differ."""
    dims = {"theta": ("method", "step")} | dict.fromkeys(("left_at", "spread", "right"), ("method",))
    return Experiment(
        train=lambda key, hparams, data: train(key, configs.replace(config, hparams)),
        data=None,
        dims=dims,
        coords={"method": list(METHODS), "step": config.steps},
        units={"theta": "1", "left_at": "steps", "spread": "1", "right": "share"},
        figure=lambda results: figure(swept(results, config.learning_rate), config),
        claims=lambda results: claims(swept(results, config.learning_rate), config),
    )


def chain(method: lattice.Scheme, config: Piecewise, learning_rate: float) -> lattice.Walk:
    """Builds the exact walk of a method, with the config's decimals as fractions."""
    # `str` of a rounded float gives the decimal that the config has; `Fraction` of the float itself would have a
    # power of two below the line, and the lattice would have far too many positions.
    numbers = (learning_rate, config.first, config.share, config.epsilon, config.steepness)
    return lattice.walk(method, *(Fraction(str(round(float(number), 9))) for number in numbers))


# Claims and figures ask for the same numbers, and an exact walk of many steps takes seconds.
@functools.cache
def exits(method: lattice.Scheme, config: Piecewise, learning_rate: float) -> float:
    """Returns the exact probability of leaving within the steps of a run."""
    return lattice.exit_probabilities(chain(method, config, learning_rate), LEFT, [config.num_steps])[0]


@functools.cache
def mass_right(method: lattice.Scheme, config: Piecewise, learning_rate: float) -> float:
    """Returns the share of time that the exact walk spends above 0 in the long run."""
    walk = chain(method, config, learning_rate)
    return float(lattice.stationary(walk)[walk.positions > 0].sum())
