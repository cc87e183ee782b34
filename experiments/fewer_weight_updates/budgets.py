"""Trains on random quadratics with every budget N and horizon T: full_gradients.toml and stochastic_gradients.toml.

A seed is an instance. On each instance, every (N, T) of a grid is a run of N // T rounds. The best T at N has the least
excess validation loss, averaged over instances. Between grid points it is the lowest point of a parabola in log T. The
average is the arithmetic mean: the geometric mean is ruled by instances in which two biases happen to cancel.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.fewer_weight_updates import quadratics
from experiments.fewer_weight_updates.quadratics import SPECTRUM
from mixjax import mixing, rules
from mixjax.mixing.horizons import pilot_steps
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment

METRICS = {
    "mean_weights": "mean of the weights",
    "last_weights": "last weights",
    "params": "last parameters",
}
# The grid has every T up to here, and steps of 6 % beyond.
CONSECUTIVE = 20


@dataclasses.dataclass(frozen=True)
class Budgets:
    """Sets the size of the random instances, one learning rate and one weight rule.

    Attributes:
        num_domains: ``D``, the number of domains.
        dim: the number of parameters.
        learning_rate: ``η``, if it does not depend on T.
        tied: True for ``η_T = min(1 / L, log(T + 1) / (2 μ T))`` in place of ``learning_rate``.
        rule: the step of mirror descent. ``sqrt`` is the step of theory, ``step_size / (G sqrt(R))``, with R the number
            of rounds and G the instance's largest slope; ``constant`` is ``step_size / G``; ``adaptive`` is the
            library's default.
        step_size: see ``rule``.
        sigma: standard deviation of the noise in each coordinate of each domain's gradient.
        repeats: number of runs of an instance, each with noise of its own; metrics are their means. A repeat's rounds
            see the same normal numbers at every N and T.
        budgets: the ``N``.
        shortest: the least T of the grid.
        longest: the largest T of the grid.
    """

    num_domains: int = 3
    dim: int = 4
    learning_rate: float = 1.0
    tied: bool = False
    rule: Literal["sqrt", "constant", "adaptive"] = "sqrt"
    step_size: float = 1.0
    sigma: float = 0.0
    repeats: int = 1
    budgets: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
    shortest: int = 1
    longest: int = 512

    def __post_init__(self):
        """Raises a ValueError for a grid of T that does not reach beyond its consecutive part."""
        if not 1 <= self.shortest <= CONSECUTIVE <= self.longest:
            raise ValueError(
                f"shortest must be 1 to {CONSECUTIVE} and longest at least {CONSECUTIVE}, "
                f"got {self.shortest} and {self.longest}."
            )

    @property
    def horizons(self) -> np.ndarray:
        """Returns the grid of T."""
        beyond = np.geomspace(CONSECUTIVE, self.longest, round(np.log(self.longest / CONSECUTIVE) / 0.06) + 1)
        grid = np.unique(np.concatenate([np.arange(1, CONSECUTIVE), beyond.round()]).astype(int))
        return grid[(grid >= self.shortest) & (grid <= self.longest)]


def train(key: jax.Array, config: Budgets) -> dict[str, jax.Array]:
    """Trains one instance with every budget and horizon.

    Returns:
        A dictionary of

        - the excess validation losses ``[budget, horizon]``, one entry for each of ``METRICS``;
        - ``rate`` ``[budget]``, the contraction that ``mixing.fit(T="auto")`` would measure on its first steps, or 1
          (no contraction) where the learning rate depends on T;
        - ``eta`` ``[horizon]``, the learning rate.
    """
    instance_key, noise_key, pilot_key = jax.random.split(key, 3)
    problem = quadratics.instance(instance_key, config.num_domains, config.dim)
    slope, noise = quadratics.largest_slope(problem), None
    if config.sigma:
        most = max(config.budgets) // config.shortest
        noise = config.sigma * jax.random.normal(noise_key, (most, config.repeats, config.num_domains, config.dim))

    def learning_rate(T):
        tied = 0.5 * jnp.log(T + 1.0) / (SPECTRUM[0] * T)
        return jnp.minimum(1 / SPECTRUM[1], tied) if config.tied else config.learning_rate

    def cell(budget_and_horizon):
        budget, T = budget_and_horizon
        rounds = budget // T
        scale = {"sqrt": slope * jnp.sqrt(rounds), "constant": slope, "adaptive": 1.0}[config.rule]
        rule = rules.mirror_descent(config.step_size / scale, adaptive=config.rule == "adaptive")

        def once(noise):
            run = quadratics.run(problem, rule, learning_rate(T), T, rounds, noise)
            return {
                "mean_weights": quadratics.excess(problem, run.mean_weights),
                "last_weights": quadratics.excess(problem, run.last_weights),
                "params": quadratics.excess_of(problem, run.params),
            }

        if noise is None:
            return once(None)
        return jax.tree.map(lambda x: x.mean(0), jax.vmap(once, 1)(noise))

    grid = jnp.stack(jnp.meshgrid(jnp.array(config.budgets), jnp.array(config.horizons), indexing="ij"), -1)
    found = jax.tree.map(lambda x: x.reshape(grid.shape[:2]), jax.lax.map(cell, grid.reshape(-1, 2)))
    eta = jnp.broadcast_to(learning_rate(jnp.array(config.horizons)), len(config.horizons))
    return found | {"rate": pilot(problem, pilot_key, config), "eta": eta}


def pilot(problem: quadratics.Quadratics, key: jax.Array, config: Budgets) -> jax.Array:
    """Measures the contraction on the first ``min(64, N / 16)`` steps, for every N."""
    if config.tied:
        return jnp.ones(len(config.budgets))
    tx = optax.sgd(config.learning_rate)

    def measured(count):
        steps = jnp.broadcast_to(problem.minima, (count, *problem.minima.shape))
        uniform, start = jnp.full(config.num_domains, 1 / config.num_domains), jnp.zeros(config.dim)
        return mixing.contraction(quadratics.loss_of(problem), tx)(uniform, start, tx.init(start), steps, key)[0]

    rates = {count: measured(count) for count in set(map(pilot_steps, config.budgets))}
    return jnp.stack([rates[pilot_steps(budget)] for budget in config.budgets])


def experiment(config: Budgets, figure, claims) -> Experiment:
    """Builds the experiment from its settings, its figure and its claims, which differ between the two configs."""
    return Experiment(
        train=lambda key, hparams, data: train(key, configs.replace(config, hparams)),
        data=None,
        dims=dict.fromkeys(METRICS, ("budget", "horizon")) | {"rate": ("budget",), "eta": ("horizon",)},
        coords={"budget": list(config.budgets), "horizon": config.horizons.tolist()},
        units=dict.fromkeys(METRICS, "loss") | {"rate": "1", "eta": "1"},
        figure=figure,
        claims=claims,
    )
